"""Workers that come through HAProxy keep all rules of those that come to the daemon's own port."""

import os
import ssl
import stat

import pytest
from kit.cli import inside as mu
from kit.cli import refusal
from kit.film import wait_until
from kit.haproxy import behind_haproxy, start_haproxy
from kit.machine import kib
from kit.workers import Peer, dial
from stage import Daemon, StageError, free_ports_conf

from mu.config import read_config
from mu.doctor import coordinator
from mu.net.certificates import Authority, Facts, Identity

ASKED = b"echo:well from actor 0"
CONF = free_ports_conf(
    worker="hold_s = 0.5\nheartbeat_s = 1\nsilence_s = 2",
    local="enabled = no",
    jobs="retry_pause_s = 0.1",
)


@pytest.fixture(scope="module")
def behind(tmp_path_factory):
    daemon = Daemon(tmp_path_factory.mktemp("behind"), conf=behind_haproxy(CONF))
    haproxy = start_haproxy(daemon)
    yield daemon
    daemon.stop()
    haproxy.stop()


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    daemon = Daemon(tmp_path_factory.mktemp("alone"), conf=CONF)
    yield daemon
    daemon.stop()


@pytest.fixture(params=["own port", "haproxy"])
def either(request):
    return request.getfixturevalue("behind" if request.param == "haproxy" else "alone")


def order(daemon, **more):
    """Order a job whose workers are these tests; return it and the identity of its workers."""
    ordered = {"pipeline": "hello", "engine": "external", "params": {"text": "well", "rounds": 3}}
    job = daemon.ask("/jobs", ordered | more)
    return job, Identity(job["event"]["srvcrt"], job["event"]["srvkey"])


def greet(daemon, identity, session, received="0:00000000", sent=0):
    peer = Peer(dial(daemon, identity))
    peer.say(f"OK:HELLO(session={session:032x},launch=,received={received},sent={sent})")
    return peer


def play(peer, *numbers):
    for number in numbers:
        assert peer.hear() == ASKED
        peer.say(f"RE:{number}:OK:ECHO(well from actor 0)")


def hear(peer):
    while (heard := peer.hear()).startswith(b"ack:"):
        pass
    return heard


def haproxys_log(daemon):
    return (daemon.conf.parent / "haproxy.log").read_text()


def test_a_worker_plays_to_the_end(either):
    job, identity = order(either)
    peer = greet(either, identity, 1)
    assert peer.hear().startswith(b"welcome:")
    play(peer, 1, 2, 3)
    assert hear(peer) == b"quit:"
    peer.close()
    assert either.wait(job["id"])["state"] == "done"


def test_the_log_and_the_page_name_the_workers_own_address(behind):
    _, identity = order(behind)
    line = dial(behind, identity)
    line.sendall(b"no frame at all")
    port = line.getsockname()[1]
    wait_until(lambda: f"127.0.0.1:{port} refused: " in behind.process.log.read_text())


def test_a_newer_connection_supersedes_the_older_whose_frames_are_dropped(either):
    job, identity = order(either)
    older = greet(either, identity, 2)
    assert older.hear().startswith(b"welcome:")
    assert older.hear() == ASKED
    newer = greet(either, identity, 2)
    assert newer.hear().startswith(b"welcome:")
    try:
        older.say("RE:1:OK:ECHO(well from actor 0)")
        while older.hear():
            pass
    except OSError:
        pass  # it is closed
    play(newer, 1, 2, 3)
    assert hear(newer) == b"quit:"
    newer.close()
    job = either.wait(job["id"])
    assert job["state"] == "done"
    assert either.ask(f"/jobs/{job['id']}/workers")[0]["attempt"] == 1


def test_a_worker_that_comes_back_too_late_is_fenced_off(either):
    job, identity = order(either, retries=1)
    first = greet(either, identity, 3)
    assert first.hear().startswith(b"welcome:")
    first.cut()
    either.wait(job["id"], until=lambda _: either.ask(f"/jobs/{job['id']}/workers")[0]["failures"])
    late = greet(either, identity, 3)
    assert late.hear() == b"quit:"
    second = greet(either, identity, 4)
    assert second.hear().startswith(b"welcome:")
    late.say("RE:1:OK:ECHO(well from actor 0)")
    play(second, 1, 2, 3)
    assert hear(second) == b"quit:"
    second.close()
    assert either.wait(job["id"])["state"] == "done"


def test_a_worker_that_does_not_read_is_paused_and_lost_in_time(either):
    text = "x" * 50_000
    params = {"text": text, "rounds": 100_000}
    job, identity = order(either, params=params, retries=0)
    replies = [f"RE:{number}:OK:ECHO()" for number in range(1, 200_000)]
    before = kib(either)
    peer = greet(either, identity, 9)
    peer.sock.settimeout(1)
    with pytest.raises(OSError):  # noqa: PT011  no more is read, or it was given up already
        peer.say(*replies)
    assert kib(either) - before < 60 * 1024
    peer.close()
    assert either.wait(job["id"])["state"] == "failed"


def test_a_certificate_of_one_job_does_not_speak_for_another(either):
    job, identity = order(either)
    _, other = order(either)
    peer = greet(either, identity, 5)
    assert peer.hear().startswith(b"welcome:")
    thief = greet(either, other, 5)  # the session's name alone is no proof
    assert thief.hear().startswith(b"welcome:")  # to its own job, from the beginning
    play(peer, 1, 2, 3)
    assert hear(peer) == b"quit:"
    peer.close()
    thief.close()
    assert either.wait(job["id"])["state"] == "done"


def test_a_worker_that_closes_its_half_is_lost(either):
    job, identity = order(either, retries=0)
    peer = greet(either, identity, 6)
    assert peer.hear().startswith(b"welcome:")
    peer.sock.shutdown(1)
    assert either.wait(job["id"])["state"] == "failed"
    peer.close()


def strangers(home):
    ours = Authority.at_home(home)
    return {
        "none": None,
        "of another CA": Authority.new().mint_job("somejob", 600),
        "expired": ours.mint_job("somejob", -60),
        "a server's": ours.mint_server("127.0.0.1"),
    }


@pytest.mark.parametrize("kind", ["none", "of another CA", "expired", "a server's"])
def test_without_a_workers_certificate_nothing_is_handed_over(behind, kind):
    before = behind.ask("/metrics")
    identity = strangers(behind.home)[kind]
    if identity is None:
        context = ssl.create_default_context(cafile=str(behind.home / "ca.pem"))
        context.check_hostname = False
        line = context.wrap_socket(dial(behind))
    else:
        line = dial(behind, identity)
    port = line.getsockname()[1]
    with line, pytest.raises(ssl.SSLError):
        line.recv(1)
    wait_until(lambda: f":{port} refused: error:" in haproxys_log(behind))
    assert accepted(behind.ask("/metrics")) == accepted(before)


def accepted(metrics):
    return [line for line in metrics.splitlines() if line.startswith("mu_connections_accepted")]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_no_session_is_resumed(behind, version):
    _, identity = order(behind)
    context = ssl.create_default_context(cafile=str(behind.home / "ca.pem"))
    context.check_hostname = False
    context.maximum_version = version
    with identity.files() as files:
        context.load_cert_chain(*files)
    session = None
    for name in (7, 8):
        plain = dial(behind)
        line = context.wrap_socket(plain, session=session)
        peer = Peer(line)
        peer.say("OK:HELLO")
        assert peer.hear() in (ASKED, b"quit:")
        assert not line.session_reused, name
        session = line.session
        line.close()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_old_versions_of_tls_are_refused(behind):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        context.wrap_socket(dial(behind))


def test_only_the_daemons_user_may_hand_workers_over(behind):
    for name in ("worker.sock", "haproxy.pem"):
        assert stat.S_IMODE(os.stat(behind.home / name).st_mode) == 0o600


def test_the_doctor_looks_through_haproxy(tmp_path):
    daemon = Daemon(tmp_path, conf=behind_haproxy(CONF))
    config = read_config(daemon.conf)

    def found():
        return coordinator.check_worker_port(daemon.home, config, aws=False)

    assert (found().level, "start HAProxy" in found().remedy) == ("fail", True)
    haproxy = start_haproxy(daemon)
    assert (found().level, "HAProxy hands workers over" in found().sentence) == ("ok", True)
    daemon.process.kill()
    assert (found().level, "does not hand workers over" in found().sentence) == ("fail", True)
    haproxy.stop()


def test_the_certificate_of_haproxy_lasts_as_long_as_its_ca(tmp_path):
    pem = tmp_path / "haproxy.pem"
    ours = Authority.new()
    assert ours.keep_server(pem, "192.0.2.1")
    assert not ours.keep_server(pem, "192.0.2.1")
    assert ours.keep_server(pem, "192.0.2.2")
    assert Facts.of(pem.read_text()).names == ("mu-coordinator", "192.0.2.2")
    assert Authority.new().keep_server(pem, "192.0.2.2")
    pem.write_text("no certificate")
    assert ours.keep_server(pem, "192.0.2.2")


def test_haproxy_is_set_up_for_the_configuration_that_is_there(tmp_path):
    assert "there is no" in refusal("init", tmp_path, "--haproxy")
    assert mu("init", tmp_path).exit_code == 0
    assert "must say haproxy = yes in [worker]" in refusal("init", tmp_path, "--haproxy")
    conf = tmp_path / "mu.conf"
    ours = "[mu]\nhome = its home\n[worker]\nhost = ::\nport = 4567\nhaproxy = yes\n"
    conf.write_text(ours)
    assert mu("init", tmp_path, "--haproxy", "--user", "root").exit_code == 0
    assert conf.read_text() == ours
    told = (tmp_path / "mu-haproxy.cfg").read_text()
    assert f"bind [::]:4567 v4v6 ssl crt '{tmp_path}/its home/haproxy.pem'" in told
    assert "\nUser=root\n" in (tmp_path / "mu-haproxy@.service").read_text()
    assert "will not overwrite" in refusal("init", tmp_path, "--haproxy")
    conf.write_text(ours.replace("its home", "~/.mu"))
    assert mu("init", tmp_path, "--haproxy", "--force", "--user", "daemon").exit_code == 0
    assert os.path.expanduser("~daemon/.mu/") in (tmp_path / "mu-haproxy.cfg").read_text()
    conf.write_text(ours.replace("4567", "0"))
    assert "needs a port" in refusal("init", tmp_path, "--haproxy", "--force")


def test_a_home_whose_socket_would_have_too_long_a_path_is_refused(tmp_path):
    with pytest.raises(StageError, match=r"\[worker\] haproxy = yes: cannot open the socket"):
        Daemon(
            tmp_path / ("long" * 30), conf=CONF.replace("port = 0", "port = 9\nhaproxy = yes", 1)
        )
