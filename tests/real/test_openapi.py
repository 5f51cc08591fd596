"""docs/openapi.json describes the running control port: schemathesis sends it many requests."""

import json
from pathlib import Path

import pytest
from stage import Daemon, free_ports_conf

schemathesis = pytest.importorskip("schemathesis", reason="pip install schemathesis")
from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis.strategies import one_of  # noqa: E402
from schemathesis import GenerationMode  # noqa: E402
from schemathesis.checks import load_all_checks  # noqa: E402

DESCRIPTION = Path(__file__).parents[2] / "docs" / "openapi.json"
OPERATIONS = [
    (path, method)
    for path, one in json.loads(DESCRIPTION.read_text())["paths"].items()
    for method in one
]


@pytest.fixture(scope="module")
def schema():
    return schemathesis.openapi.from_path(DESCRIPTION)


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """A daemon that starts no workers, with two jobs."""
    conf = free_ports_conf(local="enabled = no", launch="engine = external\ncheckip = none")
    nowhere = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/none"}
    nowhere |= {"AWS_SHARED_CREDENTIALS_FILE": "/none", "AWS_ENDPOINT_URL": "http://127.0.0.1:1"}
    running = Daemon(tmp_path_factory.mktemp("openapi"), nowhere, conf)
    for _ in range(2):
        running.ask("/jobs", {"pipeline": "hello", "engine": "external", "workers": 2})
    yield running
    running.stop()


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_the_control_port_matches_its_description(asked, schema, path, method):
    operation = schema[path][method]

    @settings(
        max_examples=10,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
        database=None,
    )
    @given(one_of(operation.as_strategy(generation_mode=mode) for mode in GenerationMode))
    def matches(case):
        answer = case.call(
            base_url=asked.url, headers={"Authorization": f"Bearer {asked.token}"}, timeout=120
        )
        assert answer.status_code < 500 or answer.status_code == 503
        case.validate_response(answer, excluded_checks=excluded())

    matches()


def excluded():
    """Return the checks that do not apply."""
    names = (
        "positive_data_acceptance",  # any string is a valid job id, but few jobs exist
        "unsupported_method",
        "ignored_auth",
    )
    load_all_checks()
    return [schemathesis.checks.CHECKS.get_one(name) for name in names]


def test_known_jobs_and_pipelines_match_the_description(asked, schema):
    (job, *_) = asked.ask("/jobs")
    for path, method in (
        ("/jobs/{job}", "GET"),
        ("/jobs/{job}/overview", "GET"),
        ("/jobs/{job}/workers", "GET"),
        ("/jobs/{job}/timeline", "GET"),
        ("/jobs/{job}/log", "GET"),
        ("/jobs/{job}", "DELETE"),
    ):
        case = schema[path][method].Case(path_parameters={"job": job["id"]})
        case.call_and_validate(
            base_url=asked.url,
            headers={"Authorization": f"Bearer {asked.token}"},
            excluded_checks=excluded(),
        )
    case = schema["/doctor"]["POST"].Case(body={"engine": "local", "pipeline": "hello"})
    case.headers["Content-Type"] = "application/json"
    case.call_and_validate(
        base_url=asked.url,
        headers={"Authorization": f"Bearer {asked.token}"},
        excluded_checks=excluded(),
    )
    case = schema["/pipelines/{name}"]["GET"].Case(path_parameters={"name": "hello"})
    case.call_and_validate(
        base_url=asked.url,
        headers={"Authorization": f"Bearer {asked.token}"},
        excluded_checks=excluded(),
    )


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_the_answer_to_a_foreign_host_matches_the_description(asked, schema, path, method):
    given = {name: "x" for name in ("job", "name", "digest") if f"{{{name}}}" in path}
    case = schema[path][method].Case(path_parameters=given)
    answer = case.call(base_url=asked.url, headers={"Host": "evil.example"}, timeout=120)
    assert answer.status_code == 421
    case.validate_response(answer, excluded_checks=excluded())
