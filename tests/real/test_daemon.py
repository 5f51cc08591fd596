"""End to end: the real daemon, the real local engine, a real S3 server, real workers."""

import http.client
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import urllib.error
import zipfile

import pytest
from kit.film import chunk, kill, order, processes, put_film, wait_until, worker_of
from kit.local import sleepers
from stage import Daemon, free_ports_conf


def run_job(daemon, body, **wait):
    return daemon.wait(daemon.ask("/jobs", body)["id"], **wait)


def test_a_job_runs_on_real_workers(daemon, s3):
    put_film(s3, "plain", [f"frame {n}\n" for n in range(1, 9)])
    job = run_job(daemon, order("plain", workers=4))
    assert (job["state"], job["error"]) == ("done", None)
    assert job["counts"] == {"waiting": 0, "running": 0, "done": 4, "failed": 0, "cancelled": 0}
    assert job["launches"] == {"accepted": 4}
    assert job["result"] == {"keys": [f"plain-y4m_02/{n:08d}.y4m" for n in range(4)]}
    assert [chunk(s3, "plain", n) for n in range(4)] == [
        f"frame {2 * n + 1}\nframe {2 * n + 2}\n" for n in range(4)
    ]
    assert job["created"] <= job["first_hello"] <= job["last_hello"] <= job["finished"]

    actors = daemon.ask(f"/jobs/{job['id']}/workers")
    assert [actor["actor"] for actor in actors] == [0, 1, 2, 3]
    assert {actor["state"] for actor in actors} == {"done"}
    assert {actor["attempt"] for actor in actors} == {1}
    assert actors[2]["last_reply"].startswith("OK:UPLOAD(films/plain-y4m_02/00000002.y4m")
    assert "joining " in daemon.ask(f"/jobs/{job['id']}/log?actor=2")
    assert daemon.ask(f"/jobs/{job['id']}/log").count("== actor ") == 4


def test_a_command_that_fails_fails_its_actor_with_what_it_printed(daemon, s3):
    put_film(s3, "spoilt", ["fine\n", "fine\n", "fine\n", "bad\n"])
    job = run_job(daemon, order("spoilt", workers=2))
    assert job["state"] == "failed"
    assert job["counts"]["done"] == 1
    assert "1 of 2 actors failed: actor " in job["error"]
    assert "RETVAL(3)" in job["error"]
    assert "cannot join" in job["error"]


def test_a_missing_key_fails_its_actor_with_its_name(daemon):
    job = run_job(daemon, order("nowhere", workers=1))
    assert job["state"] == "failed"
    assert "films/nowhere-png16/00000001.png" in job["error"]


def test_a_worker_killed_with_sigkill_fails_its_actor_and_the_others_finish(daemon, s3):
    put_film(s3, "killed", ["a\n", "b\n", "slow\n", "c\n", "d\n", "e\n"])
    ordered = daemon.ask("/jobs", order("killed", workers=3))
    (sleeping,) = wait_until(lambda: sleepers(daemon.home))
    kill(worker_of(sleeping))
    job = daemon.wait(ordered["id"])
    assert job["state"] == "failed"
    assert job["counts"] == {"waiting": 0, "running": 0, "done": 2, "failed": 1, "cancelled": 0}
    # Either the connection's end is noticed first, or what the engine says of it.
    assert re.search(r"its worker (at 127\.0\.0\.1:.* is gone|ended: .*killed)", job["error"])
    wait_until(lambda: not sleepers(daemon.home))


def test_a_cancelled_job_tells_its_workers_to_quit(daemon, s3):
    put_film(s3, "cancelled", ["slow\n"] * 4)
    job = daemon.ask("/jobs", order("cancelled", workers=2))
    wait_until(lambda: len(sleepers(daemon.home)) == 2)
    daemon.ask(f"/jobs/{job['id']}", method="DELETE")
    job = daemon.wait(job["id"])
    assert (job["state"], job["error"]) == ("cancelled", "cancelled by request")
    wait_until(lambda: not sleepers(daemon.home))


def test_a_job_past_its_deadline_fails(daemon, s3):
    put_film(s3, "late", ["slow\n"] * 2)
    job = run_job(daemon, order("late", workers=1, deadline_s=2))
    assert (job["state"], job["error"]) == ("failed", "the deadline of 2 s has passed")
    wait_until(lambda: not sleepers(daemon.home))


def test_a_function_that_is_not_there_fails_the_job_with_what_to_do(daemon):
    job = run_job(daemon, order("plain", workers=3, function="absent"))
    assert job["state"] == "failed"
    assert "ResourceNotFoundException" in job["error"]
    assert "deploy the function 'absent'" in job["error"]


def test_an_actor_may_have_more_replies_than_its_worker_keeps(daemon, s3):
    frames = 400  # three replies for each
    put_film(s3, "long", ["x"] * frames)
    job = run_job(daemon, order("long", workers=1, frames=frames))
    assert (job["state"], job["error"]) == ("done", None)
    assert chunk(s3, "long", 0, frames) == "x" * frames


# ---------------------------------------------------------------- started by hand


def test_external_workers_are_started_by_hand(daemon, s3, joiner, tmp_path):
    put_film(s3, "hand", ["one\n", "two\n"])
    job = daemon.ask("/jobs", order("hand", workers=1, engine="external"))
    with zipfile.ZipFile(joiner) as zipped:
        zipped.extractall(tmp_path)
    (tmp_path / "join").chmod(0o755)
    start = "import json, sys, lambda_function as f; print(f.lambda_handler(json.load(sys.stdin), None))"
    worker = subprocess.run(
        [sys.executable, "-c", start],
        input=json.dumps(job["event"]),
        env={**os.environ, **s3.env, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert worker.returncode == 0, worker.stderr
    assert daemon.wait(job["id"])["state"] == "done"
    assert chunk(s3, "hand", 0) == "one\ntwo\n"


def test_the_event_holds_no_key_but_the_jobs_own(daemon):
    job = daemon.ask("/jobs", order("plain", workers=1, engine="external"))
    told = json.dumps(job["event"])
    assert (daemon.home / "ca.key").read_text() not in job["event"].values()
    assert told.count("BEGIN PRIVATE KEY") == 1
    daemon.ask(f"/jobs/{job['id']}", method="DELETE")


# ---------------------------------------------------------------- the control port


def refusal(daemon, *args, **kwargs):
    with pytest.raises(urllib.error.HTTPError) as refused:
        daemon.ask(*args, **kwargs)
    return refused.value.code, json.loads(refused.value.msg)["error"]


@pytest.mark.parametrize(
    ("change", "field", "says"),
    [
        ({"pipeline": "nothing"}, "pipeline", "unknown pipeline 'nothing'; the pipelines are"),
        ({"engine": "ferry"}, "engine", "the engines are external, lambda, local"),
        ({"workers": 0}, "workers", "between 1 and 10000, got 0"),
        ({"workers": "5"}, "workers", "a whole number, got '5'"),
        ({"wrokers": 5}, "wrokers", "is unknown"),
        ({"params": {"framse": 6}}, "params.framse", "is unknown"),
        ({"params": {"frames": 0}}, "params.frames", "between 1 and 10000"),
        ({"params": 7}, "params", "an object, got 7"),
        ({"regions": []}, "regions", "a list of names"),
        ({"actors": [0, 0]}, "actors", "each number once"),
        ({"actors": [-1]}, "actors", "numbers from 0 to 9999"),
        ({"actors": ["1"]}, "actors", "numbers from 0 to 9999"),
        ({"actors": [1]}, "actors", "with workers = 1, actors must be at most 0, got 1"),
        ({"retries": -1}, "retries", "between 0 and"),
        ({"on_failure": "panic"}, "on_failure", "finish or stop, got 'panic'"),
    ],
)
def test_a_bad_order_is_refused_with_its_field(daemon, change, field, says):
    before = len(daemon.ask("/jobs"))
    status, error = refusal(daemon, "/jobs", order("plain", workers=1) | change)
    assert (status, error["field"]) == (400, field)
    assert says in error["message"]
    assert len(daemon.ask("/jobs")) == before


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/jobs/none", "GET", 404),
        ("/jobs/none", "DELETE", 404),
        ("/jobs/none/workers", "GET", 404),
        ("/nothing", "GET", 404),
        ("/jobs", "PUT", 405),
    ],
)
def test_what_is_not_there_is_refused_as_json(daemon, path, method, status):
    refused, error = refusal(daemon, path, method=method)
    assert refused == status
    assert error["message"].startswith("there is no ")


def test_all_but_health_wants_the_token(daemon):
    def status(path, *header):
        curl = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", *header, daemon.url + path]
        return subprocess.run(curl, capture_output=True, text=True, check=True).stdout

    assert status("/health") == "200"
    for path in ("/jobs", "/jobs/x", "/pipelines", "/jobs/x/log"):
        assert status(path) == "401"
        assert status(path, "-H", "Authorization: Bearer wrong") == "401"
    assert status("/jobs", "-H", f"Authorization: Bearer {daemon.token}") == "200"


def test_pipelines_are_described(daemon):
    (png2y4m,) = [p for p in daemon.ask("/pipelines") if p["name"] == "png2y4m"]
    assert "frames" in {parameter["name"] for parameter in png2y4m["parameters"]}
    assert daemon.ask("/pipelines/png2y4m") == png2y4m
    assert refusal(daemon, "/pipelines/nothing")[0] == 404


def test_explicit_actors_run_alone(daemon, s3):
    put_film(s3, "some", [f"{n}\n" for n in range(1, 9)])
    body = order("some", workers=4) | {"actors": [1, 3]}
    del body["workers"]
    job = run_job(daemon, body)
    assert (job["state"], job["workers"]) == ("done", 2)
    assert job["result"] == {"keys": [f"some-y4m_02/{n:08d}.y4m" for n in (1, 3)]}
    assert [actor["actor"] for actor in daemon.ask(f"/jobs/{job['id']}/workers")] == [1, 3]
    assert "joining" in daemon.ask(f"/jobs/{job['id']}/log?actor=3")


# ---------------------------------------------------------------- starting and stopping


def test_the_first_start_makes_the_home(daemon):
    assert set(daemon.ports) == {"worker", "relay", "control", "local"}
    assert stat.S_IMODE((daemon.home / "token").stat().st_mode) == 0o600
    assert stat.S_IMODE(daemon.home.stat().st_mode) == 0o700
    assert json.loads((daemon.home / "ports.json").read_text()) == daemon.ports


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_clean_stop_in_the_middle_of_a_job_leaves_nothing_behind(own_daemon, s3, how):
    put_film(s3, "stopped", ["slow\n"] * 6)
    own_daemon.ask("/jobs", order("stopped", workers=3))
    wait_until(lambda: len(sleepers(own_daemon.home)) == 3)
    assert own_daemon.process.stop(how) in (0, -how)  # twistd ends itself by the same signal
    assert not sleepers(own_daemon.home)
    assert not processes(str(own_daemon.home))
    assert not (own_daemon.home / "ports.json").exists()
    log = own_daemon.process.log.read_text()
    assert "Traceback" not in log, log


def test_a_killed_daemon_leaves_its_engine_which_the_next_one_finds(own_daemon, s3, tmp_path):
    engine = own_daemon.ports["local"]
    own_daemon.process.kill()
    again = Daemon(tmp_path, s3.env, own_daemon.conf.read_text())
    try:
        assert again.ports["local"] == engine
        put_film(s3, "again", ["x\n", "y\n"])
        assert run_job(again, order("again", workers=1))["state"] == "done"
    finally:
        again.stop()
    wait_until(lambda: not processes(str(tmp_path)))  # the engine is no child of this daemon


@pytest.mark.parametrize("how", ["removed", "moved"])
def test_a_home_that_is_gone_ends_the_daemon_and_its_engine_at_once(own_daemon, how):
    home = own_daemon.home
    if how == "removed":
        shutil.rmtree(home)
    else:
        home.rename(home.with_name("elsewhere"))
    wait_until(lambda: not own_daemon.process.runs)
    assert own_daemon.process.stop() == 1
    log = own_daemon.process.log.read_text()
    # A file in it may be missed before the folder is.
    assert re.search(rf"mu exits: {re.escape(str(home))}\S* was removed or replaced while mu", log)
    wait_until(lambda: not processes(str(home)), 10)


def test_no_job_is_accepted_once_the_journal_is_gone(own_daemon, s3, tmp_path):
    journal = own_daemon.home / "journal.db"
    journal.unlink()
    with pytest.raises((OSError, http.client.HTTPException)):
        own_daemon.ask("/jobs", {"pipeline": "hello", "engine": "external"})
    assert own_daemon.process.stop() == 1
    log = own_daemon.process.log.read_text()
    assert f"mu exits: {journal} was removed or replaced while mu was running" in log
    again = Daemon(tmp_path, s3.env, own_daemon.conf.read_text())
    assert again.ask("/jobs") == []
    again.stop()


def test_a_port_in_use_is_one_line_and_an_exit_status(daemon, tmp_path):
    taken = daemon.ports["control"]
    tried = run_twistd(tmp_path, free_ports_conf(control=f"port = {taken}"))
    assert tried.returncode == 1
    (line,) = [line for line in tried.stdout.splitlines() if line.startswith("mu: ")]
    assert f"[control] host = 127.0.0.1, port = {taken}: cannot listen there" in line
    assert "Traceback" not in tried.stdout


def test_an_engine_that_cannot_start_is_one_sentence_and_an_exit_status(daemon, tmp_path):
    taken = daemon.ports["local"]
    tried = run_twistd(tmp_path, free_ports_conf(local=f"port = {taken}"))
    assert tried.returncode != 0
    assert f"cannot listen on 127.0.0.1:{taken}" in tried.stdout
    assert tried.stdout.count("Traceback") == tried.stdout.count("#debug] Traceback")
    wait_until(lambda: not processes(str(tmp_path)))


def run_twistd(folder, conf):
    (folder / "mu.conf").write_text(conf)
    twistd = [os.path.join(os.path.dirname(sys.executable), "twistd"), "-n", "--pidfile="]
    return subprocess.run(
        [*twistd, "mu", "--config", "mu.conf"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
