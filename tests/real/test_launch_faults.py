"""Jobs with fault injection in the local engine: they end well, or say why not."""

import stat
import sys
import textwrap
import zipfile

import pytest
from kit.faults import workers_of
from kit.film import wait_until
from kit.local import COLD
from stage import Daemon, free_ports_conf

WORKERS = 10


def hello(workers, **more):
    return {"pipeline": "hello", "function": "png2y4m", "workers": workers, **more}


def conf(faults, launch="hello_timeout_s = 6", **more):
    return free_ports_conf(
        local=f"faults = {faults}",
        launch=launch,
        jobs="retry_pause_s = 0.1",
        mu="on_stop = cancel",
        **more,
    )


@pytest.fixture
def start(tmp_path, joiner):
    """Start a daemon whose engine has these faults; at the end, none of its workers is running."""
    started = []

    def start(faults, **more):
        daemon = Daemon(tmp_path, {"PYTHONPATH": str(COLD)}, conf(faults, **more))
        started.append(daemon)
        daemon.create_function("png2y4m", joiner)
        return daemon

    yield start
    for daemon in started:
        wait_until(lambda daemon=daemon: workers_of(daemon) == [])
        daemon.stop()


@pytest.mark.parametrize(
    ("faults", "shows"),
    [
        pytest.param("throttle=0.3 seed=1", "throttled", marks=pytest.mark.soak),
        pytest.param("error=0.3 seed=2", "throttled", marks=pytest.mark.soak),
        pytest.param("cut=0.2 seed=3", "unknown", marks=pytest.mark.soak),
        ("duplicate=0.3 seed=4", ""),
        pytest.param("late=0.3:1 seed=5", "", marks=pytest.mark.soak),
        pytest.param("lose=0.1 seed=6", "", marks=pytest.mark.soak),
        ("throttle=0.2 error=0.1 cut=0.1 duplicate=0.1 lose=0.1 late=0.2:1 seed=7", "throttled"),
    ],
)
def test_a_job_succeeds_in_spite_of_faults(start, faults, shows):
    daemon = start(faults)
    job = daemon.wait(daemon.ask("/jobs", hello(WORKERS, retries=6))["id"])
    assert (job["state"], job["error"]) == ("done", None)
    assert job["counts"]["done"] == WORKERS
    assert not shows or job["launches"][shows] > 0
    if "duplicate" in faults:
        assert job["dismissed"] > 0


def test_a_job_waits_for_a_function_that_is_not_ready(start):
    daemon = start("inactive=2")
    body = {"pipeline": "hello", "function": "png2y4m", "workers": 2}
    job = daemon.wait(daemon.ask("/jobs", body)["id"])
    assert (job["state"], job["error"]) == ("done", None)
    assert job["launches"]["throttled"] > 1


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("answer=InvalidZipFileException:1", "InvalidZipFileException: "),
        ("skew=-900", "this machine's clock is 900 s behind AWS's (InvalidSignatureException: "),
    ],
)
def test_what_cannot_succeed_fails_soon_and_with_the_reason(tmp_path, s3, joiner, fault, says):
    daemon = Daemon(tmp_path, s3.env, conf("none"))
    daemon.create_function("png2y4m", joiner)
    daemon.stop()
    daemon = Daemon(tmp_path, s3.env, conf(fault))
    try:
        job = daemon.ask("/jobs", {"pipeline": "hello", "function": "png2y4m"})
        job = daemon.wait(job["id"])
        assert job["state"] == "failed"
        assert f"engine local refused to launch: {says}" in job["error"]
    finally:
        daemon.stop()


def test_a_region_that_denies_every_call_fails_the_job_with_its_message(start):
    daemon = start("refuse=eu-west-1")
    body = hello(8, regions=["us-east-1", "eu-west-1"])
    job = daemon.wait(daemon.ask("/jobs", body)["id"])
    assert job["state"] == "failed"
    assert "engine local refused to launch: AccessDeniedException: " in job["error"]
    assert "in eu-west-1" in job["error"]
    assert "lambda:InvokeFunction" in job["error"]


def test_credentials_that_expire_during_a_job_are_looked_up_again(start, s3, tmp_path):
    """A program gives the daemon keys that work for a few calls, as an instance role would."""
    keys = tmp_path / "keys.py"
    keys.write_text(
        textwrap.dedent("""
            import fcntl, json, pathlib
            count = open(pathlib.Path(__file__).with_name("count"), "a+")
            fcntl.flock(count, fcntl.LOCK_EX)
            count.write("x")
            number = count.tell()
            key = json.loads(pathlib.Path(HOME, "local", "key").read_text())
            print(json.dumps({
                "Version": 1, "AccessKeyId": key["access_key"], "SecretAccessKey": key["secret_key"],
                "SessionToken": f"t{number}", "Expiration": "2099-01-01T00:00:00Z",
            }))
        """).replace("HOME", repr(str(tmp_path / "home")))
    )
    config = tmp_path / "aws.conf"
    config.write_text(f"[profile roles]\ncredential_process = {sys.executable} {keys}\n")
    first = start("expire=4")
    env = {**s3.env, "AWS_CONFIG_FILE": str(config), "AWS_PROFILE": "roles"}
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        env.pop(name, None)
    env["AWS_ENDPOINT_URL_LAMBDA"] = f"http://127.0.0.1:{first.ports['local']}"
    folder = tmp_path / "second"
    second = Daemon(folder, env, free_ports_conf(local="enabled = no", mu="on_stop = cancel"))
    try:
        job = second.wait(second.ask("/jobs", hello(WORKERS, engine="lambda"))["id"])
        assert (job["state"], job["error"]) == ("done", None)
        assert len((tmp_path / "count").read_text()) >= 3
    finally:
        second.stop()


def test_a_function_that_raises_at_import_fails_the_job_with_its_error(start, tmp_path):
    daemon = start("none")
    broken = tmp_path / "broken.zip"
    with zipfile.ZipFile(broken, "w") as zipped:
        info = zipfile.ZipInfo("lambda_function.py")
        info.external_attr = (stat.S_IFREG | 0o644) << 16
        zipped.writestr(info, "raise RuntimeError('spoilt')")
    daemon.create_function("spoilt", broken)
    body = {"pipeline": "hello", "function": "spoilt", "retries": 0}
    job = daemon.wait(daemon.ask("/jobs", body)["id"])
    assert job["state"] == "failed"
    assert "actor 0: its worker did not connect: it ended: spoilt" in job["error"]
    (row,) = daemon.ask(f"/jobs/{job['id']}/workers")
    assert len(row["failures"]) == 1
