"""The client of the control port, against servers that answer well, badly or not at all."""

import json
import re
import socket

import pytest
from kit.cli import answering, http, inside, refusal

from mu.client.address import Address
from mu.client.control_port import ControlPort
from mu.client.errors import DaemonUnreachable, NotRunning, RequestRefused


class Known(ControlPort):
    """A client of a daemon with these jobs."""

    def __init__(self, *ids):
        self._ids = ids

    def jobs(self, last=0, **having):
        return [{"id": name} for name in self._ids][-last:]

    def job(self, job_id):
        if job_id not in self._ids:
            raise RequestRefused("there is no job", 404)
        return {"id": job_id}


def test_a_job_is_named_by_its_id_a_prefix_or_last():
    client = Known("ab12", "ab34", "ab3", "cd56")
    found = [client.find_job(name)["id"] for name in ("ab12", "ab1", "ab3", "c", "last")]
    assert found == ["ab12", "ab12", "ab3", "cd56", "cd56"]


@pytest.mark.parametrize(
    ("ids", "name", "says"),
    [
        (["ab12", "ab34", "cd"], "ab", "'ab' matches 2 jobs, ab12, ab34"),
        (["ab12"], "x", "there is no job 'x'; `mu jobs` lists all jobs"),
        (["ab12"], "", "there is no job ''"),
        ([], "last", "there is no last job: no job has been started yet"),
    ],
)
def test_an_unknown_or_ambiguous_job_name_is_refused(ids, name, says):
    with pytest.raises(RequestRefused, match=re.escape(says)):
        Known(*ids).find_job(name)


def test_a_broken_plugin_is_shown_with_the_reason():
    good = {"name": "p", "description": "Does it.", "parameters": []}
    broken = {"name": "q", "owner": "q:it of some-package", "error": "ImportError: no q"}
    told = http("200 OK", json.dumps([good, broken]))
    with answering(told, told, told) as client:
        url = ["--url", client.url]
        listed = inside(*url, "pipelines", MU_TOKEN="t").stdout
        says = [
            refusal(*url, *words, MU_TOKEN="t") for words in (["pipelines", "q"], ["launch", "q"])
        ]
    assert listed.startswith("Plugin q (q:it of some-package) cannot be used: ImportError: no q\n")
    assert "p         Does it." in listed
    assert (
        says == ["mu: pipeline q of q:it of some-package cannot be used: ImportError: no q\n"] * 2
    )


def test_output_that_was_cut_is_mentioned():
    job = {"id": "x", "workers": 1, "finished": 1.0}
    with answering(
        http("200 OK", json.dumps(job)), http("200 OK", "tail", ["Mu-Log-End: 104"])
    ) as client:
        ended = inside("--url", client.url, "log", "x", "-a", 0, MU_TOKEN="t")
    assert (ended.stdout, ended.exit_code) == ("tail", 0)
    assert ended.stderr == "mu: 100 earlier bytes were cut (see [logs] actor_bytes in mu.conf)\n"


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"", "was lost before its answer was complete"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[",
            "was lost before its answer was complete",
        ),
        (b"SSH-2.0-server\r\n", "was lost before its answer was complete"),
        (http("200 OK", "<html>"), "is not a mu daemon: its answer is not JSON"),
        (http("200 OK", "{}"), "is not a mu daemon: its answer is not a JSON list"),
        (http("404 Not Found", "<html>"), "is not a mu daemon: it answered with HTTP status 404"),
        (http("301 Moved", "", ["Location: http://x/"]), "it answered with HTTP status 301"),
        (
            http("500 Oh", '{"error": {"message": "a fault in mu; its log says more"}}'),
            "failed: a fault in mu; its log says more",
        ),
    ],
)
def test_an_invalid_answer_is_reported(answer, says):
    with answering(answer) as client, pytest.raises(DaemonUnreachable) as lost:
        client.jobs()
    assert says in str(lost.value)


def test_a_daemon_that_does_not_answer_in_time_is_reported():
    with answering(None, timeout_s=0.2) as client, pytest.raises(DaemonUnreachable) as lost:
        client.jobs()
    assert "did not answer within 0.2 s" in str(lost.value)


def test_a_port_where_nothing_listens_is_reported():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    with pytest.raises(NotRunning, match="not there"):
        ControlPort(Address(url, "t", "not there", "")).jobs()
    assert f"nothing listens at {url}" in refusal("--url", url, "jobs", status=4, MU_TOKEN="t")


def test_an_order_whose_answer_is_lost_may_have_started_a_job():
    pipelines = http("200 OK", json.dumps([{"name": "hello", "parameters": []}]))
    words = ["launch", "hello", "--idempotency-key", "k"]
    with answering(pipelines, b"") as client:
        says = refusal("--url", client.url, *words, status=4, MU_TOKEN="t")
    assert "The job may have been started anyway: check with `mu jobs`, or repeat" in says


def test_watching_ends_when_the_daemon_has_dropped_the_job():
    job = {"id": "x", "pipeline": "p", "workers": 1, "engine": "e", "state": "running"}
    job |= {"counts": {"running": 0, "failed": 0}, "created": 0.0, "finished": None}
    gone = http("404 Not Found", '{"error": {"message": "there is no job", "field": null}}')
    with answering(http("200 OK", json.dumps(job)), gone, gone) as client:
        ended = inside("--url", client.url, "watch", "x", MU_TOKEN="t")
    assert ended.exit_code == 4
    assert "job x is no longer known: the daemon dropped it" in ended.stderr
    assert "resumes" not in ended.stderr


def test_when_the_daemon_goes_away_the_command_that_fetches_the_files_is_named(tmp_path):
    job = {"id": "x", "pipeline": "p", "workers": 1, "engine": "e", "state": "running"}
    job |= {"counts": {"running": 0, "failed": 0}, "created": 0.0, "finished": None}
    job["params"] = {"bucket": "films"}
    place = {"bucket": "films", "embedded": False, "endpoint": None, "region": None}
    place |= {"addressing": "auto", "profile": None, "engine": "external"}
    told = http("200 OK", json.dumps(job))
    with answering(told, http("200 OK", json.dumps(place)), told, b"") as client:
        words = ["rerun", "x", "--out", tmp_path / "to here"]
        ended = inside("--url", client.url, *words, MU_TOKEN="t")
    assert ended.exit_code == 4
    assert f"For its files, once it has ended: mu fetch x --to '{tmp_path}/to here'" in ended.stderr


def test_a_rerun_whose_files_are_out_of_reach_is_not_ordered(tmp_path):
    job = {"id": "x", "pipeline": "map", "state": "failed", "params": {"bucket": "mu_files"}}
    place = {"bucket": "mu_files", "embedded": True, "endpoint": "http://127.0.0.1:1"}
    answers = (http("200 OK", json.dumps(told)) for told in (job, place))
    with answering(*answers) as client:
        ended = inside("--url", client.url, "rerun", "x", "--out", tmp_path, MU_TOKEN="t")
    assert ended.exit_code == 2
    assert "the embedded S3 server is on the daemon's machine" in ended.stderr


def test_a_job_that_could_not_be_resumed_is_shown_without_its_missing_fields():
    """As older daemons describe one whose pipeline was not installed at their restart."""
    job = {"id": "ab12", "pipeline": "gone", "workers": 2, "state": "failed", "params": {}}
    job |= {"counts": dict.fromkeys(("waiting", "running", "done", "failed"), 0)}
    job |= {"created": 10.0, "finished": 12.0, "cost_usd": None, "result": None}
    job |= {"error": "pipeline 'gone' is not installed"}
    told, listed = http("200 OK", json.dumps(job)), http("200 OK", json.dumps([job]))
    with answering(told, listed, told, http("200 OK", "[]")) as client:
        watched, jobs, workers = (
            inside("--url", client.url, *words, MU_TOKEN="t")
            for words in (["watch", "ab12"], ["jobs"], ["workers", "ab12"])
        )
    assert watched.exit_code == 1, watched.output
    assert watched.stdout == (
        "Job ab12: gone with 2 workers\n"
        "Job ab12 failed after 2.0 s: pipeline 'gone' is not installed\n"
    )
    assert jobs.stdout.startswith("Job ab12 failed: pipeline 'gone' is not installed\n")
    assert workers.stdout == "Job ab12 has no actors.\n"
