"""The Lambda engine over TLS and through a proxy: all of it here, on the loopback."""

import base64
import os
import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.internet import reactor, ssl
from twisted.internet.address import IPv4Address
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from mu.aws.trouble import AwsTrouble
from mu.engines.connections import Timeouts
from mu.engines.lambda_api import CREDENTIALS_S, LambdaEngine
from mu.engines.routes import Route, aws_route
from mu.engines.signing import Credentials
from mu.invocations import Accepted, Invocation, Refused, Unreached

HOST = "lambda.test"
KEYS = Credentials("AKID", "secret")
INVOCATION = Invocation("l1", "f", "eu-west-1", b"{}")


def certificate(host):
    """Return a key and a self-signed certificate for a host, as one PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    text = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    return text + made.public_bytes(pem)


def port_of(listening):
    """Return the number of a listening port."""
    address = listening.getHost()
    assert isinstance(address, IPv4Address)
    return address.port


class Always202(Resource):
    isLeaf = True

    def __init__(self):
        super().__init__()
        self.asked = []

    def render_POST(self, request):
        self.asked.append(request.content.read())
        request.setResponseCode(202)
        return b""


class Proxy(Protocol):
    """Connects every host to one port of this machine, or answers with the factory's status."""

    def connectionMade(self):
        self.head, self.other, self.early = b"", None, []

    def dataReceived(self, data):
        if self.other is not None:
            self.other.transport.write(data)
            return
        self.head += data
        if b"\r\n\r\n" not in self.head:
            return
        self.factory.heads.append(self.head.decode())
        status = self.factory.status
        if status == "say nothing":
            return
        if not status.startswith("200"):
            self.transport.write(f"HTTP/1.1 {status}\r\n\r\n".encode())
            self.transport.loseConnection()
            return
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.factory.port)
        endpoint.connect(Factory.forProtocol(lambda: Beyond(self)))

    def connectionLost(self, reason=connectionDone):
        if self.other is not None:
            self.other.transport.loseConnection()


class ProxyFactory(Factory):
    protocol = Proxy
    noisy = False
    status = "200"

    def __init__(self, port):
        self.port, self.heads = port, []


class Beyond(Protocol):
    def __init__(self, near):
        self.near = near

    def connectionMade(self):
        self.near.other = self
        self.near.transport.write(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n")

    def dataReceived(self, data):
        self.near.transport.write(data)

    def connectionLost(self, reason=connectionDone):
        self.near.transport.loseConnection()


class ProxyTests(TestCase):
    def new_file(self, content):
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        path = Path(folder) / "file"
        path.write_bytes(content)
        return str(path)

    def setUp(self):
        pem = certificate(HOST)
        path = self.new_file(pem)
        self.api = Always202()
        options = ssl.PrivateCertificate.loadPEM(pem).options()
        server = reactor.listenTCP(
            0, TLSMemoryBIOFactory(options, False, Site(self.api)), interface="127.0.0.1"
        )
        self.addCleanup(server.stopListening)
        self.proxy = ProxyFactory(port_of(server))
        port = reactor.listenTCP(0, self.proxy, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.proxy_port = port_of(port)
        for name in [*os.environ]:
            if name.startswith("AWS_") or name.lower().endswith("_proxy"):
                self.patch_environment(name, None)
        self.patch_environment("AWS_CA_BUNDLE", path)
        self.patch_environment("AWS_ENDPOINT_URL_LAMBDA", f"https://{HOST}")

    def patch_environment(self, name, value):
        old = os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value

        def restore():
            os.environ.pop(name, None)
            if old is not None:
                os.environ[name] = old

        self.addCleanup(restore)

    def use_proxy(self, login=""):
        self.patch_environment("HTTPS_PROXY", f"http://{login}127.0.0.1:{self.proxy_port}")

    def make_engine(self, find_route=aws_route, credentials=lambda expired: KEYS, **timeouts):
        times = Timeouts(**{"timeout_s": 5.0, "first_byte_s": 5.0, **timeouts})
        engine = LambdaEngine("lambda", reactor, find_route, credentials, times)
        self.addCleanup(engine.stop)
        return engine

    async def test_a_launch_goes_through_the_proxy_to_the_endpoint_of_the_environment(self):
        self.use_proxy("me:s%40crét@")
        engine = self.make_engine()
        for _ in range(3):
            assert await engine.launch(INVOCATION) == Accepted()
        assert self.api.asked == [b"{}"] * 3
        (head,) = self.proxy.heads  # the connection is reused
        assert head.startswith(f"CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n")
        login = base64.b64encode("me:s@crét".encode()).decode()
        assert f"Proxy-Authorization: Basic {login}\r\n" in head

    async def test_a_proxy_that_refuses_is_named(self):
        self.use_proxy("me:secret@")
        for status, says in (
            ("407 Proxy Authentication Required", "to CONNECT, it wants a user and a password"),
            ("403 Forbidden", "the proxy answered 'HTTP/1.1 403 Forbidden' to CONNECT"),
        ):
            self.proxy.status = status
            answer = await self.make_engine().launch(INVOCATION)
            assert isinstance(answer, Unreached)
            assert says in answer.reason
            assert f"at https://{HOST} through the proxy http://127.0.0.1:" in answer.reason
            assert "secret" not in answer.reason

    async def test_a_silent_proxy_is_given_up(self):
        self.use_proxy()
        self.proxy.status = "say nothing"
        answer = await self.make_engine(timeout_s=0.2).launch(INVOCATION)
        assert isinstance(answer, Unreached)
        assert "gave no answer within 0.2 s" in answer.reason
        await deferLater(reactor, 0.05)  # the connection to the proxy is closed, too

    async def test_a_certificate_that_is_not_trusted_is_no_launch(self):
        self.use_proxy()
        other = self.new_file(certificate(HOST))
        self.patch_environment("AWS_CA_BUNDLE", other)
        answer = await self.make_engine().launch(INVOCATION)
        assert isinstance(answer, Unreached)
        assert "certificate verify failed" in answer.reason
        assert self.api.asked == []

    async def test_hosts_in_no_proxy_are_reached_directly(self):
        self.use_proxy()
        self.patch_environment("NO_PROXY", HOST)
        answer = await self.make_engine().launch(INVOCATION)
        assert isinstance(answer, Unreached)  # there is no such host
        assert "proxy" not in answer.reason
        assert self.proxy.heads == []


class CredentialTests(TestCase):
    """What happens when credentials cannot be found or refreshed."""

    def setUp(self):
        self.api = Always202()
        port = reactor.listenTCP(0, Site(self.api), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.route = Route(f"http://127.0.0.1:{port_of(port)}", "eu-west-1")
        self.found = [KEYS]

    def find(self, expired):
        found = self.found.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    def make_engine(self):
        engine = LambdaEngine("lambda", reactor, lambda region: self.route, self.find, Timeouts())
        self.addCleanup(engine.stop)
        return engine

    async def test_an_outage_is_waited_for_and_a_mistake_is_not(self):
        self.found = [AwsTrouble("no answer from STS", passing=True)]
        assert await self.make_engine().launch(INVOCATION) == Unreached("no answer from STS")
        self.found = [AwsTrouble("there is no profile 'p'", "set it")]
        assert await self.make_engine().launch(INVOCATION) == Refused(
            "there is no profile 'p': set it"
        )

    async def test_the_old_keys_are_used_while_a_refresh_fails_and_it_is_tried_again(self):
        self.found = [KEYS, AwsTrouble("no answer from STS", passing=True), Credentials("new", "k")]
        engine = self.make_engine()
        now = 1000.0
        self.patch(engine, "_reactor", Shifted(lambda: now))
        assert await engine.launch(INVOCATION) == Accepted()
        now += CREDENTIALS_S + 1
        assert await engine.launch(INVOCATION) == Accepted()
        assert len(self.found) == 1
        now += 2
        assert await engine.launch(INVOCATION) == Accepted()
        assert len(self.found) == 1
        now += 5
        assert await engine.launch(INVOCATION) == Accepted()
        assert self.found == []
        assert len(self.api.asked) == 4

    async def test_what_worked_before_is_waited_for(self):
        expired = AwsTrouble("the single sign-on of profile 'p' is not valid", "run aws sso login")
        self.found = [KEYS, expired, KEYS]
        engine = self.make_engine()
        assert await engine.launch(INVOCATION) == Accepted()
        self.patch(engine, "_credentials", None)  # as after AWS has rejected them
        assert await engine.launch(INVOCATION) == Unreached(str(expired))
        self.patch(engine, "_failed_at", 0.0)
        assert await engine.launch(INVOCATION) == Accepted()

    async def test_many_launches_share_one_failed_lookup(self):
        self.found = [AwsTrouble("no answer from STS", passing=True)]
        engine = self.make_engine()
        launches = [engine.launch(INVOCATION) for _ in range(20)]
        for launch in launches:
            assert await launch == Unreached("no answer from STS")


class Shifted:
    """The reactor, at another time."""

    def __init__(self, seconds):
        self.seconds = seconds

    def __getattr__(self, name):
        return getattr(reactor, name)
