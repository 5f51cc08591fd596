"""Real counterparts for the worker's tests: a small coordinator, certificates, a job's machines.

The worker runs in a process of its own, from the checkout, as Lambda would run it.
"""

import atexit
import datetime
import ipaddress
import json
import os
import re
import select
import socket
import ssl
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from stage import Daemon

from kit.nursery import WORKER, Child, Nursery
from mu.messages import Hello
from mu.net.certificates import Identity
from mu.wire import WORKER_FRAME_LIMIT, Framer, frame

ROOT = Path(__file__).parents[2]
CHECKOUT = f"{ROOT / 'lambda'}:{ROOT}"
PATIENCE_S = 60.0
"""How long anything that is awaited may take: only failing tests ever wait so long."""

RUN_HANDLER = """
import importlib, json, sys
for name, value in json.loads(sys.argv[2]).items():
    module, _, constant = name.rpartition(".")
    setattr(importlib.import_module(module), constant, value)
import lambda_function
print(json.dumps(lambda_function.lambda_handler(json.loads(sys.argv[1]), None)))
"""


class Peer:
    """One end of a connection, on a socket that blocks: a coordinator's, a relay's, a relay peer's."""

    def __init__(self, sock: socket.socket, limit: int = WORKER_FRAME_LIMIT) -> None:
        sock.settimeout(PATIENCE_S)
        self.sock = sock
        self._framer = Framer(limit)
        self._heard: list[bytes] = []

    def say(self, *payloads: str | bytes) -> None:
        """Send frames, all in one write."""
        self.sock.sendall(
            b"".join(frame(p.encode() if isinstance(p, str) else p) for p in payloads)
        )

    def hear(self) -> bytes:
        """Return the next payload; b"" when the other end has closed the connection."""
        while not self._heard:
            try:
                chunk = self.sock.recv(65536)
            except ConnectionError:
                return b""
            if not chunk:
                return b""
            self._heard.extend(self._framer.feed(chunk))
        return self._heard.pop(0)

    @property
    def waiting(self) -> bool:
        """Whether a payload has come that was not heard yet."""
        return bool(self._heard)

    def ask(self, command: str | bytes) -> str:
        """Send a command; return the next reply, without its RE:<c>:."""
        self.say(command)
        return self.answer()

    def answer(self) -> str:
        while (heard := self.hear()).startswith((b"LOG:", b"ping:")):
            if heard.startswith(b"ping:"):
                self.say(heard.replace(b"ping", b"pong", 1))
        return re.sub(r"^RE:\d+:", "", heard.decode("utf-8", "surrogateescape"))

    def close(self) -> None:
        self.sock.close()

    def hello(self) -> Hello:
        return Hello.parse(self.hear())

    def cut(self) -> None:
        """Lose the connection, with all that is under way: the worker gets a reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def welcome(self, actor: str = "0") -> "Peer":
        """Hear the hello and welcome the worker."""
        assert self.hello().session
        self.say(f"welcome:{actor}:1:0")
        return self


def dial(daemon: Daemon, identity: Identity | None = None) -> socket.socket:
    """Connect to the worker port with this identity; None: without TLS."""
    line = socket.create_connection(("127.0.0.1", daemon.ports["worker"]), 10)
    if identity is None:
        return line
    context = ssl.create_default_context(cafile=str(daemon.home / "ca.pem"))
    context.check_hostname = False
    pem = daemon.home.parent / "worker.pem"
    pem.write_text(identity.certificate + identity.key)
    context.load_cert_chain(pem)
    return context.wrap_socket(line)


@cache
def nursery() -> Nursery:
    """Return the process that forks workers of the checkout; it ends when pytest does."""
    made = Nursery(CHECKOUT, WORKER)
    atexit.register(made.close)
    return made


class RunningWorker:
    """A worker's process. `limits` sets constants of its modules, as mu_worker.link.ASK_S."""

    def __init__(
        self,
        event: Mapping[str, object],
        home: Path,
        path: str,
        extra: Mapping[str, str],
        limits: Mapping[str, float],
    ) -> None:
        arguments = [RUN_HANDLER, json.dumps(dict(event)), json.dumps(dict(limits))]
        environ = {"PATH": os.environ["PATH"], "PYTHONPATH": path, **extra}
        self.process: subprocess.Popen[bytes] | Child
        if path == CHECKOUT:
            self.process = nursery().start(arguments, environ, home)
        else:
            self.process = subprocess.Popen(
                [sys.executable, "-c", *arguments],
                env=environ,
                cwd=home,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
            )
        self.stderr = ""

    def noted(self, words: str) -> None:
        """Return once a line of its log holds `words`; nothing before that line counts again."""
        assert self.process.stderr is not None
        line = ""
        while words not in line:
            ready, _, _ = select.select([self.process.stderr], [], [], PATIENCE_S)
            assert ready, f"no {words!r} came: {self.stderr}"
            line = self.process.stderr.readline().decode()
            assert line, f"it ended without {words!r}: {self.stderr}"
            self.stderr += line

    def ending(self) -> dict[str, object]:
        """Wait until it has ended; return what its handler returned."""
        out, err = self.process.communicate(timeout=PATIENCE_S)
        self.stderr += err.decode()
        assert self.process.returncode == 0, self.stderr
        ending = json.loads(out)
        assert isinstance(ending, dict)
        return ending


class Coordinator:
    """Listens, starts workers with `event` and takes their connections."""

    def __init__(
        self,
        home: Path,
        context: ssl.SSLContext | None = None,
        event: Mapping[str, object] | None = None,
    ) -> None:
        self._home = home
        self._context = context
        self._event = event or {}
        self.port = 0
        self.listen()
        self._workers: list[RunningWorker] = []
        self._peers: list[Peer] = []

    def start(
        self,
        event: Mapping[str, object] | None = None,
        environ: Mapping[str, str] | None = None,
        path: str = CHECKOUT,
        limits: Mapping[str, float] | None = None,
    ) -> RunningWorker:
        whole = {"mode": 1, "addr": "127.0.0.1", "port": self.port, **self._event, **(event or {})}
        environ = {"LAMBDA_TASK_ROOT": str(self._home), **(environ or {})}
        worker = RunningWorker(whole, self._home, path, environ, limits or {})
        self._workers.append(worker)
        return worker

    def listen(self) -> None:
        """Open the port, the same as before where there was one."""
        self.listener = socket.create_server(("127.0.0.1", self.port))
        self.listener.settimeout(PATIENCE_S)
        self.port = self.listener.getsockname()[1]

    def accept(self) -> Peer:
        sock, _ = self.listener.accept()
        sock.settimeout(PATIENCE_S)
        if self._context is not None:
            sock = self._context.wrap_socket(sock, server_side=True)
        self._peers.append(Peer(sock))
        return self._peers[-1]

    def converse(self, event: Mapping[str, object] | None = None, **more: object) -> Peer:
        """Start a worker and welcome it as actor 0."""
        self.start(event, **more)
        return self.accept().welcome()

    def close(self) -> None:
        for peer in self._peers:
            peer.sock.close()
        self.listener.close()
        for worker in self._workers:  # without a coordinator they end by themselves, and tidy up
            if worker.process.stdout and not worker.process.stdout.closed:
                worker.process.communicate(timeout=PATIENCE_S)


@contextmanager
def coordinator(
    home: Path,
    context: ssl.SSLContext | None = None,
    event: Mapping[str, object] | None = None,
) -> Iterator[Coordinator]:
    """A coordinator whose workers' bundle is the folder `home`."""
    running = Coordinator(home, context, event)
    try:
        yield running
    finally:
        running.close()


# ---------------------------------------------------------------- processes


class Token:
    """Tells whether a program lives, without asking for its pid: it holds one end of a FIFO."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "token"
        os.mkfifo(self.path)
        self._reader = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)

    def wait_gone(self) -> None:
        """Return once nobody has the FIFO open for writing any more."""
        poll = select.poll()
        poll.register(self._reader, select.POLLIN)
        while True:
            assert poll.poll(PATIENCE_S * 1000), "the program is still there"
            if not os.read(self._reader, 4096):
                os.close(self._reader)
                return


# ---------------------------------------------------------------- certificates


@dataclass(frozen=True, slots=True)
class Papers:
    """PEM texts of one certificate authority, and of a server and a worker that it vouches for."""

    ca: str
    server: str
    server_key: str
    worker: str
    worker_key: str

    def server_context(self, folder: Path) -> ssl.SSLContext:
        path = folder / "server.pem"
        path.write_text(self.server + self.server_key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=self.ca)
        context.load_cert_chain(path)
        return context

    def event(self) -> dict[str, object]:
        return {"cacert": self.ca, "srvcrt": self.worker, "srvkey": self.worker_key}


def make_papers(kind: str = "ec") -> Papers:
    """Make them; `kind` is ec, or rsa as the original's were."""
    ca_key = _key(kind)
    ca = _certificate("test CA", ca_key, None, None)
    server_key, worker_key = _key(kind), _key(kind)
    server = _certificate("mu.test", server_key, ca, ca_key)
    worker = _certificate("worker", worker_key, ca, ca_key)
    return Papers(_pem(ca), _pem(server), _key_pem(server_key), _pem(worker), _key_pem(worker_key))


_Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def _key(kind: str) -> _Key:
    if kind == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return ec.generate_private_key(ec.SECP256R1())


def _certificate(
    name: str, key: _Key, issuer: x509.Certificate | None, issuer_key: _Key | None
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=10))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    if issuer is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(issuer_key or key, hashes.SHA256())


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: _Key) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    ).decode()


def bare(pem: str) -> str:
    """Return the base64 bodies as the original sent them, a chain's with a space between."""
    bodies = re.findall(r"-----BEGIN [^-]+-----([^-]+)-----END", pem)
    return " ".join("".join(body.split()) for body in bodies)
