"""The notify_url of an order: a real daemon and a small web server, over restarts and real TLS."""

import base64
import json
import queue
import ssl
import textwrap
import threading
import time
import urllib.error
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from kit.cli import inside as mu
from stage import Daemon, free_ports_conf

from mu.net.certificates import Authority

SECRET = base64.b64encode(bytes(range(32))).decode()


class Receiver(ThreadingHTTPServer):
    """Keeps what is sent to it; answers with the next of `answers`, or with 204."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: list[int] = []
        self.came: queue.Queue = queue.Queue()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self):
        return f"127.0.0.1:{self.server_address[1]}"

    def next(self):
        """Return the status, path, headers and body of the next request."""
        return self.came.get(timeout=120)

    def handle_error(self, request, client_address):
        pass  # a client that does not trust the certificate


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status = self.server.answers.pop(0) if self.server.answers else 204
        self.send_response(status)
        if status == 302:
            self.send_header("Location", f"http://{self.server.address}/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()
        self.server.came.put((status, self.path, self.headers, body))

    def log_message(self, *args):
        pass


@pytest.fixture
def receiver():
    server = Receiver()
    yield server
    server.shutdown()
    server.server_close()


def conf(pause_s=0.2):
    conf = free_ports_conf(local="enabled = no", launch="engine = external")
    return f"{conf}[notify]\nsecret = {SECRET}\npause_s = {pause_s}\nlongest_pause_s = {pause_s}\n"


def ended_job(daemon, url):
    """Return a job that was cancelled."""
    order = {"pipeline": "hello", "workers": 2, "notify_url": url}
    job = daemon.ask("/jobs", order)
    return daemon.ask(f"/jobs/{job['id']}", method="DELETE")


def receivers_check():
    """Return is_genuine of docs/control.md."""
    page = (Path(__file__).parents[2] / "docs" / "control.md").read_text()
    begin, end = (
        page.index("    import base64, hashlib"),
        page.index("The URL is kept in the journal"),
    )
    defined: dict = {}
    exec(textwrap.dedent(page[begin:end]), defined)
    return defined["is_genuine"]


def until(said, daemon):
    """Wait for a line in the daemon's log."""
    end = time.monotonic() + 60
    while said not in daemon.process.log.read_text():
        assert time.monotonic() < end, daemon.process.last_words()
        time.sleep(0.02)


def test_a_notification_survives_failures_and_the_kill_of_the_daemon(tmp_path, receiver):
    receiver.answers = [500, 302, 404]
    daemon = Daemon(tmp_path, conf=conf(pause_s=0.2))
    job = ended_job(daemon, f"http://{receiver.address}/hook?token=a+b")
    came = [receiver.next() for _ in range(3)]
    until("it answered 302, and redirects are not followed", daemon)
    assert receiver.next()[0] == 204
    until("was notified of its end", daemon)

    receiver.answers = [503]
    daemon.process.stop()
    daemon = Daemon(tmp_path, conf=conf(pause_s=300))
    second = ended_job(daemon, f"http://{receiver.address}/hook?token=a+b")
    failed = receiver.next()
    until("it answered 503", daemon)
    daemon.process.kill()
    daemon = Daemon(tmp_path, conf=conf(pause_s=300))
    delivered = receiver.next()
    until("was notified of its end", daemon)
    told = daemon.ask("/metrics")
    daemon.stop()

    is_genuine = receivers_check()
    for one, (_, path, headers, body) in [(job, one) for one in came] + [(second, delivered)]:
        assert path == "/hook?token=a+b"
        assert headers["Content-Type"] == "application/json"
        assert headers["webhook-id"] == f"{one['id']}.ended"
        assert is_genuine(SECRET, headers, body)
        assert not is_genuine(SECRET, headers, body + b" ")
        assert not is_genuine(base64.b64encode(bytes(32)).decode(), headers, body)
        assert json.loads(body) == one
    assert (failed[0], failed[3]) == (503, delivered[3])
    assert 'mu_notifications_total{outcome="delivered"} 1.0' in told
    assert "mu_notifications_waiting 0.0" in told
    assert "token=a" not in daemon.process.log.read_text()

    again = Daemon(tmp_path, conf=conf())  # nothing is left to tell
    assert "mu_notifications_waiting 0.0" in again.ask("/metrics")
    again.stop()
    assert receiver.came.empty()


def test_the_certificate_of_a_receiver_is_checked(tmp_path, receiver):
    authority = Authority.new()
    identity = authority.mint_server("127.0.0.1")
    (tmp_path / "server.pem").write_text(identity.certificate + identity.key)
    (tmp_path / "ca.pem").write_text(authority.pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    receiver.socket = context.wrap_socket(receiver.socket, server_side=True)
    daemon = Daemon(tmp_path, conf=conf())
    job = ended_job(daemon, f"https://{receiver.address}/")
    until("certificate verify failed", daemon)
    daemon.stop()
    assert receiver.came.empty()
    daemon = Daemon(tmp_path, {"SSL_CERT_FILE": str(tmp_path / "ca.pem")}, conf())
    assert json.loads(receiver.next()[3])["id"] == job["id"]
    daemon.stop()


def test_mu_launch_takes_the_url_and_an_order_without_a_secret_is_refused(tmp_path, receiver):
    daemon = Daemon(tmp_path, conf=conf())
    url = f"http://{receiver.address}/"
    words = ["--home", daemon.home, "launch", "hello", "--notify", url, "--json"]
    job = json.loads(mu(*words).stdout)
    daemon.ask(f"/jobs/{job['id']}", method="DELETE")
    assert receiver.next()[2]["webhook-id"] == f"{job['id']}.ended"
    daemon.conf.write_text(daemon.conf.read_text().replace(SECRET, "none"))
    daemon.process.stop()
    daemon = Daemon(tmp_path, conf=daemon.conf.read_text())
    with pytest.raises(urllib.error.HTTPError) as refused:
        daemon.ask("/jobs", {"pipeline": "hello", "notify_url": url})
    daemon.stop()
    error = json.loads(refused.value.msg)["error"]
    assert (refused.value.code, error["field"]) == (400, "notify_url")
    assert error["message"].startswith("notify_url needs [notify] secret in mu.conf")
