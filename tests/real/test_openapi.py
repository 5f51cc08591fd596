"""docs/openapi.json describes the running control port: schemathesis sends it many requests."""

from pathlib import Path

import pytest
from stage import Daemon, free_ports_conf

schemathesis = pytest.importorskip("schemathesis", reason="pip install schemathesis")
from hypothesis import HealthCheck, settings  # noqa: E402

pytest_plugins = "schemathesis.pytest.plugin"
SCHEMA = schemathesis.openapi.from_path(Path(__file__).parents[2] / "docs" / "openapi.json")


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


@SCHEMA.parametrize()
@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    database=None,
)
def test_the_control_port_matches_its_description(asked, case):
    answer = case.call(
        base_url=asked.url, headers={"Authorization": f"Bearer {asked.token}"}, timeout=10
    )
    assert answer.status_code < 500 or answer.status_code == 503
    case.validate_response(answer, excluded_checks=EXCLUDED)


EXCLUDED = [
    schemathesis.checks.CHECKS.get_one(name)
    for name in (
        "positive_data_acceptance",  # any string is a valid job id, but few jobs exist
        "unsupported_method",
        "ignored_auth",
    )
]


def test_known_jobs_and_pipelines_match_the_description(asked):
    (job, *_) = asked.ask("/jobs")
    for path, method in (
        ("/jobs/{job}", "GET"),
        ("/jobs/{job}/overview", "GET"),
        ("/jobs/{job}/workers", "GET"),
        ("/jobs/{job}/timeline", "GET"),
        ("/jobs/{job}/log", "GET"),
        ("/jobs/{job}", "DELETE"),
    ):
        case = SCHEMA[path][method].Case(path_parameters={"job": job["id"]})
        case.call_and_validate(
            base_url=asked.url,
            headers={"Authorization": f"Bearer {asked.token}"},
            excluded_checks=EXCLUDED,
        )
    case = SCHEMA["/doctor"]["POST"].Case(body={"engine": "local", "pipeline": "hello"})
    case.headers["Content-Type"] = "application/json"
    case.call_and_validate(
        base_url=asked.url,
        headers={"Authorization": f"Bearer {asked.token}"},
        excluded_checks=EXCLUDED,
    )
    case = SCHEMA["/pipelines/{name}"]["GET"].Case(path_parameters={"name": "hello"})
    case.call_and_validate(
        base_url=asked.url,
        headers={"Authorization": f"Bearer {asked.token}"},
        excluded_checks=EXCLUDED,
    )


@pytest.mark.parametrize("operation", [one.ok() for one in SCHEMA.get_all_operations()])
def test_the_answer_to_a_foreign_host_matches_the_description(asked, operation):
    path = dict.fromkeys(("job", "name"), "x")
    case = operation.Case(
        path_parameters={name: path[name] for name in path if f"{{{name}}}" in operation.path}
    )
    answer = case.call(base_url=asked.url, headers={"Host": "evil.example"}, timeout=10)
    assert answer.status_code == 421
    case.validate_response(answer, excluded_checks=EXCLUDED)
