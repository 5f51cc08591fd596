"""A real daemon and bad input: it reports each error and keeps serving everyone else."""

import json
import os
import re
import ssl
import time
import urllib.request

import pytest
from kit.film import order, put_film, wait_until
from kit.haproxy import behind_haproxy, start_haproxy
from kit.machine import kib
from kit.workers import Peer, dial
from stage import START_S, Daemon, StageError, free_ports_conf

from mu.functions.bundle import bundle
from mu.net.certificates import Authority, Identity
from mu.wire import frame

WELL = b"echo:well from actor 0", b"quit:"


@pytest.fixture(scope="module")
def hasty(tmp_path_factory, s3, joiner):
    """A daemon that waits two seconds for a hello, and a function whose command is missing."""
    folder = tmp_path_factory.mktemp("hasty")
    running = Daemon(folder, s3.env, free_ports_conf(worker="hello_s = 4"))
    running.create_function("png2y4m", joiner)
    nothing = bundle(folder / "nothing.zip", command="./no-such-program ##INFILE##").path
    running.create_function("nothing", nothing)
    running.create_function("hello", nothing)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def fronted(tmp_path_factory):
    """The same behind HAProxy, for external workers."""
    folder = tmp_path_factory.mktemp("fronted")
    conf = free_ports_conf(worker="hello_s = 2", local="enabled = no")
    running = Daemon(folder, conf=behind_haproxy(conf))
    haproxy = start_haproxy(running)
    yield running
    running.stop()
    haproxy.stop()


@pytest.fixture(params=["own port", "haproxy"])
def either(request):
    return request.getfixturevalue("fronted" if request.param == "haproxy" else "hasty")


def goes_on(daemon):
    """Whether the daemon still drives a worker."""
    params = {"text": "well", "rounds": 1}
    job = daemon.ask("/jobs", {"pipeline": "hello", "engine": "external", "params": params})
    identity = Identity(job["event"]["srvcrt"], job["event"]["srvkey"])
    with dial(daemon, identity) as line:
        peer = Peer(line)
        peer.say("OK:HELLO")
        heard = peer.hear()
        peer.say("OK:ECHO(well from actor 0)")
        return heard, peer.hear()


def run_job(daemon, body):
    return daemon.wait(daemon.ask("/jobs", body)["id"])


def files(daemon):
    return len(os.listdir(f"/proc/{daemon.process.pid}/fd"))


def test_five_hundred_silent_connections_are_closed_in_time_and_disturb_no_job(hasty):
    run_job(hasty, {"pipeline": "hello", "workers": 1})
    before_kib, before_files = kib(hasty), files(hasty)
    lines = [dial(hasty) for _ in range(500)]
    assert run_job(hasty, {"pipeline": "hello", "workers": 2})["state"] == "done"
    wait_until(lambda: files(hasty) <= before_files + 5)
    assert kib(hasty) - before_kib < 100 * 1024
    for line in lines:
        line.close()
    assert "refused: it did not say hello within" in hasty.process.log.read_text()


@pytest.mark.parametrize(
    "garbage",
    [os.urandom(2**20), b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"\0" * 70_000],
    ids=["random", "http", "half a TLS record"],
)
def test_garbage_at_the_worker_port_ends_only_its_connection(either, garbage):
    with dial(either) as line:
        line.settimeout(10)
        try:
            line.sendall(garbage)
            while line.recv(65536):
                pass
        except OSError:
            pass  # the daemon closed it while we were writing
    assert goes_on(either) == WELL


@pytest.mark.parametrize(
    ("said", "says"),
    [
        (os.urandom(2**20), "12 decimal digits and a space"),
        (b"999999999999 ", "got 999999999999"),
        (b"-00000000001 ", "12 decimal digits and a space"),
        (frame(b"GOOD DAY"), "must begin with OK:HELLO"),
        (frame(b"OK:HELLO")[:-1], "it did not say hello within"),
    ],
    ids=["random", "terabyte", "negative", "no hello", "half a hello"],
)
def test_garbage_from_a_certified_worker_ends_only_its_connection(either, said, says):
    authority = Authority.at_home(either.home)
    with dial(either, authority.mint_job("somejob", 600)) as line:
        line.settimeout(10)
        try:
            line.sendall(said)
            while line.recv(65536):
                pass
        except OSError:
            pass  # the daemon closed it while we were writing
    wait_until(lambda: says in either.process.log.read_text())
    assert goes_on(either) == WELL


def test_a_worker_that_does_not_read_is_paused_and_costs_no_memory(hasty):
    text = "x" * 50_000
    params = {"text": text, "rounds": 100_000}
    order = {"pipeline": "hello", "engine": "external", "params": params, "retries": 0}
    job = hasty.ask("/jobs", order)
    event = job["event"]
    before = kib(hasty)
    with dial(hasty, Identity(event["srvcrt"], event["srvkey"])) as line:
        line.sendall(frame(b"OK:HELLO"))
        line.settimeout(2)
        with pytest.raises(TimeoutError):  # the daemon has stopped reading
            line.sendall(frame(b"OK:ECHO()") * 1_000_000)
        assert kib(hasty) - before < 60 * 1024
        assert goes_on(hasty) == WELL
    assert hasty.wait(job["id"])["state"] == "failed"


def is_closed(line):
    """Whether the other end closes a connection within half a second."""
    line.settimeout(0.5)
    try:
        return line.recv(1) == b""
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False


def test_of_silent_connections_over_the_limit_the_oldest_are_closed(tmp_path):
    conf = free_ports_conf(worker="max_connections = 5", local="enabled = no")
    daemon = Daemon(tmp_path, conf=conf)
    try:
        lines = [dial(daemon) for _ in range(30)]
        assert [is_closed(line) for line in lines] == [True] * 25 + [False] * 5
        log = daemon.process.log.read_text()
        assert log.count(" refused: ") <= 2  # the rest is summed up
        assert "Traceback" not in log
    finally:
        daemon.stop()


def test_a_second_daemon_with_the_same_home_is_refused_and_the_first_keeps_running(hasty, tmp_path):
    conf = free_ports_conf(mu=f"home = {hasty.home}")
    with pytest.raises(StageError, match="another daemon runs there"):
        Daemon(tmp_path, conf=conf)
    assert json.loads((hasty.home / "ports.json").read_text()) == hasty.ports
    assert run_job(hasty, {"pipeline": "hello", "workers": 1})["state"] == "done"


def test_a_worker_with_a_certificate_from_another_ca_is_refused_and_logged(hasty):
    stranger = Authority.new().mint_job("somejob", 600)
    with pytest.raises(ssl.SSLError):
        dial(hasty, stranger).recv(1)
    wait_until(lambda: "certificate verify failed" in hasty.process.log.read_text())


# ---------------------------------------------------------------- jobs that must fail


def test_a_missing_command_fails_its_actor_with_the_shells_error(hasty, s3):
    put_film(s3, "lost", ["a", "b"])
    job = run_job(hasty, order("lost", workers=1, function="nothing"))
    assert job["state"] == "failed"
    assert "RETVAL(127)" in job["error"]
    assert "no-such-program: not found" in job["error"]


def test_the_error_for_a_missing_bucket_names_it(hasty):
    body = order("plain", workers=1)
    body["params"]["bucket"] = "nowhere"
    job = run_job(hasty, body)
    assert job["state"] == "failed"
    assert "NoSuchBucket" in job["error"]
    # The frames are retrieved side by side: any of them may be the first to fail.
    assert re.search(r"nowhere/plain-png16/0000000\d\.png", job["error"])


def test_a_full_disk_in_a_worker_fails_its_actor_with_the_programs_error(hasty, s3):
    put_film(s3, "full", ["full", "b"])
    job = run_job(hasty, order("full", workers=1))
    assert job["state"] == "failed"
    assert "RETVAL(28)" in job["error"]
    assert "No space left on device" in job["error"]


def test_of_a_hundred_megabytes_of_output_the_beginning_and_the_end_are_kept(hasty, s3):
    put_film(s3, "loud", ["loud", "b"])
    before = kib(hasty)
    job = run_job(hasty, order("loud", workers=1))
    assert (job["state"], job["error"]) == ("done", None)
    log = hasty.ask(f"/jobs/{job['id']}/log?actor=0")
    assert len(log) <= 2**20
    assert log.startswith("joining ")
    assert " bytes cut ...]\n" in log
    assert kib(hasty) - before < 60 * 1024


def test_an_unreachable_engine_fails_the_job(tmp_path):
    env = {"AWS_ENDPOINT_URL_LAMBDA": "http://127.0.0.1:1"}
    env |= {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    daemon = Daemon(tmp_path, env, free_ports_conf(local="enabled = no", launch="outage_s = 1"))
    try:
        job = run_job(daemon, {"pipeline": "hello", "engine": "lambda", "workers": 3})
    finally:
        daemon.stop()
    assert job["state"] == "failed"
    assert "cannot reach the lambda engine at http://127.0.0.1:1:" in job["error"]
    assert re.search(
        r"Connection refused; check that it is running .* \(for [12] s\)", job["error"]
    )


@pytest.mark.parametrize(
    ("env", "says"),
    [
        ({}, "there are no AWS credentials: set AWS_ACCESS_KEY_ID"),
        (
            {"AWS_PROFILE": "nobody"},
            "there is no profile 'nobody' in ~/.aws/config or ~/.aws/credentials",
        ),
    ],
)
def test_without_aws_credentials_the_error_says_what_to_set(tmp_path, monkeypatch, env, says):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    env |= {"AWS_EC2_METADATA_DISABLED": "true", "HOME": str(tmp_path)}
    daemon = Daemon(tmp_path, env, free_ports_conf(local="enabled = no"))
    try:
        job = run_job(daemon, {"pipeline": "hello", "engine": "lambda"})
    finally:
        daemon.stop()
    assert job["state"] == "failed"
    assert says in job["error"]


# ---------------------------------------------------------------- configuration


@pytest.mark.parametrize(
    ("conf", "says"),
    [
        ("[mu]\nhome = /proc/mu\n", "[mu] home = /proc/mu: cannot use it: "),
        ("[worker]\nprot = 1\n", "unknown option 'prot' in [worker]; the options are host, port,"),
        ("[worker]\nport = 70000\n", "[worker] port must be between 0 and 65535, got 70000"),
        (
            "[control]\nport = 0\n[worker]\nhost = 203.0.113.1\n",
            "[worker] host = 203.0.113.1, port = ",
        ),
        ("[wroker]\n", "unknown section [wroker]"),
    ],
)
def test_an_invalid_configuration_is_a_one_line_error_and_a_failure(tmp_path, conf, says):
    begun = time.monotonic()
    if "[mu]" not in conf:
        conf = f"[mu]\nhome = {tmp_path}/home\n{conf}"
    with pytest.raises(Exception, match="no ports.json") as failed:
        Daemon(tmp_path, conf=conf)
    words = [line for line in str(failed.value).splitlines() if line.startswith("mu: ")]
    assert len(words) == 1
    assert says in words[0]
    assert "Traceback" not in str(failed.value)
    assert time.monotonic() - begun < START_S, "it has ended by itself"


# ---------------------------------------------------------------- the home


def test_a_token_that_ends_in_a_line_break_lets_its_clients_in(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    (home / "token").write_text("\ufeffof-my-own\r\n")
    (home / "token").chmod(0o644)
    daemon = Daemon(tmp_path, conf=free_ports_conf(local="enabled = no"))
    try:
        request = urllib.request.Request(f"{daemon.url}/jobs")
        request.add_header("Authorization", "Bearer of-my-own")
        with urllib.request.urlopen(request, timeout=120) as answer:
            assert answer.read() == b"[]\n"
        assert (home / "token").stat().st_mode & 0o777 == 0o600
        assert f"other users could use {home}/token (its mode was 644, and is" in daemon_log(daemon)
    finally:
        daemon.stop()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        (
            "token",
            b"",
            "the token in {home}/token is empty: delete the file; mu then creates a new one",
        ),
        (
            "ca.key",
            b"any",
            "{home}/ca.key is there and ca.pem is missing: restore ca.pem, or make a",
        ),
        (
            "ca.pem",
            b"any",
            "{home}/ca.pem is there and ca.key is missing: restore ca.key, or make a",
        ),
    ],
)
def test_a_home_that_cannot_be_used_is_left_as_it_is_and_said(tmp_path, name, content, says):
    home = tmp_path / "home"
    home.mkdir()
    (home / name).write_bytes(content)
    with pytest.raises(StageError, match=r"no ports\.json") as failed:
        Daemon(tmp_path)
    words = [line for line in str(failed.value).splitlines() if line.startswith("mu: ")]
    assert len(words) == 1
    assert says.format(home=home) in words[0]
    assert "Traceback" not in str(failed.value)
    assert (home / name).read_bytes() == content


def daemon_log(daemon):
    return daemon.process.log.read_text()
