"""The Lambda engine against a real HTTP server on the loopback, with scripted responses."""

import socket
import threading
import time
from urllib.parse import unquote

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.task import deferLater
from twisted.internet.tcp import Client
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from mu.engines.connections import Timeouts
from mu.engines.lambda_api import LambdaEngine
from mu.engines.routes import Route
from mu.engines.signing import Credentials
from mu.invocations import (
    Accepted,
    ConcurrencyLimit,
    Invocation,
    Refused,
    Size,
    Throttled,
    Unknown,
    Unreached,
)

KEYS = Credentials("AKID", "secret", "session token")
INVOCATION = Invocation("l1", "my function", "eu-west-1", b'{"mode": 1}')


class Lambda(Resource):
    """Gives each request the next response of the script; records the requests."""

    isLeaf = True

    def __init__(self):
        super().__init__()
        self.script, self.asked = [], []

    def render_POST(self, request):
        self.asked.append((request, request.content.read()))
        status, headers, body = self.script.pop(0) if self.script else (202, {}, b"")
        if status == "hang up":
            request.transport.abortConnection()
            return NOT_DONE_YET
        if status == "headers only":
            request.setResponseCode(202)
            request.write(b"{")
            return NOT_DONE_YET
        if status == "say nothing":
            return NOT_DONE_YET
        request.setResponseCode(status)
        for name, value in headers.items():
            request.setHeader(name, value)
        return body

    render_GET = render_POST


class LambdaEngineTests(TestCase):
    def setUp(self):
        self.api = Lambda()
        self.connections = []
        site = Site(self.api)
        made = site.buildProtocol
        site.buildProtocol = lambda addr: (
            self.connections.append(made(addr)) or self.connections[-1]
        )
        self.port = reactor.listenTCP(0, site, interface="127.0.0.1")
        self.addCleanup(self.port.stopListening)
        self.url = f"http://127.0.0.1:{self.port.getHost().port}"  # type: ignore[attr-defined]
        self.engine = self.make_engine()

    def make_engine(self, credentials=lambda expired: KEYS, url=None, **timeouts):
        times = Timeouts(**timeouts)
        engine = LambdaEngine(
            "aws", reactor, lambda region: Route(url or self.url, region), credentials, times
        )
        self.addCleanup(engine.stop)
        return engine

    async def answer(self, *script):
        self.api.script[:] = script
        return await self.engine.launch(INVOCATION)

    async def test_an_event_invocation_is_sent_and_accepted(self):
        assert await self.answer((202, {}, b"")) == Accepted()
        ((request, body),) = self.api.asked
        assert request.uri == b"/2015-03-31/functions/my%20function/invocations"
        assert request.getHeader("x-amz-invocation-type") == "Event"
        assert body == INVOCATION.payload

    async def test_the_signature_is_the_one_that_botocore_computes(self):
        await self.answer((202, {}, b""))
        ((request, body),) = self.api.asked
        given = request.getHeader("authorization")
        scope, signed, signature = (part.split("=", 1)[1] for part in given.split(", "))
        assert scope.startswith("AKID/")
        assert scope.endswith("/eu-west-1/lambda/aws4_request")
        assert request.getHeader("x-amz-security-token") == "session token"
        names = [name for name in signed.split(";") if name != "host"]
        again = AWSRequest(
            "POST",
            self.url + request.uri.decode(),
            headers={name: request.getHeader(name) for name in names},
            data=body,
        )
        again.context["timestamp"] = request.getHeader("x-amz-date")
        auth = SigV4Auth(KEYS, "lambda", "eu-west-1")
        to_sign = auth.string_to_sign(again, auth.canonical_request(again))
        assert signature == auth.signature(to_sign, again)

    async def test_throttling_has_a_reason_and_a_time_to_wait(self):
        headers = {"x-amzn-errortype": "TooManyRequestsException", "retry-after": "2"}
        body = b'{"Reason": "ConcurrentInvocationLimitExceeded", "message": "Rate exceeded"}'
        assert await self.answer((429, headers, body)) == Throttled(
            "ConcurrentInvocationLimitExceeded TooManyRequestsException: Rate exceeded", 2.0
        )
        assert (await self.answer((429, {}, b"{}"))).wait_s is None

    async def test_a_refusal_has_the_message_of_aws_and_a_remedy(self):
        headers = {"x-amzn-errortype": "ResourceNotFoundException:http://internal"}
        body = b'{"Message": "Function not found: arn:aws:x"}'
        assert await self.answer((404, headers, body)) == Refused(
            "ResourceNotFoundException: Function not found: arn:aws:x"
            " (deploy the function 'my function', or name another one)"
        )
        assert await self.answer((403, {}, b"<html>no</html>")) == Refused(
            "403: b'<html>no</html>' (grant your user or role lambda:InvokeFunction on"
            " function:my function in eu-west-1; mu doctor --policy daemon prints the policy)"
        )

    async def test_a_zip_that_cannot_be_unpacked_is_refused_although_it_is_a_502(self):
        headers = {"x-amzn-errortype": "InvalidZipFileException"}
        assert await self.answer((502, headers, b'{"Message": "no zip"}')) == Refused(
            "InvalidZipFileException: no zip (deploy the function again)"
        )

    async def test_a_function_that_is_not_ready_is_waited_for(self):
        for code in ("ResourceConflictException", "CodeArtifactUserPendingException"):
            answer = await self.answer((409, {"x-amzn-errortype": code}, b'{"message": "Pending"}'))
            assert isinstance(answer, Throttled)
            assert answer.reason.startswith(f"{code}: Pending (AWS is preparing the function")

    async def test_throttling_has_any_status(self):
        for status in (400, 429, 503):
            headers = {"x-amzn-errortype": "ThrottlingException"}
            answer = await self.answer((status, headers, b'{"message": "Rate exceeded"}'))
            assert answer == Throttled("ThrottlingException: Rate exceeded")

    async def test_a_wrong_clock_is_reported_with_its_difference(self):
        headers = {"x-amzn-errortype": "InvalidSignatureException"}
        body = b"""{"message": "Signature expired: 20261127T120000Z is now earlier than
            20261127T120501Z (20261127T121001Z - 5 min.)"}""".replace(b"\n           ", b"")
        answer = await self.answer((403, headers, body))
        assert isinstance(answer, Refused)
        assert answer.reason.startswith("this machine's clock is 601 s behind AWS's (InvalidSig")
        assert "timedatectl set-ntp true" in answer.reason

    async def test_a_missing_right_is_named_with_its_resource(self):
        headers = {"x-amzn-errortype": "AccessDeniedException"}
        resource = "arn:aws:lambda:eu-west-1:1:function:f"
        why = "because no identity-based policy allows the lambda:InvokeFunction action"
        said = (
            f"User: u is not authorized to perform: lambda:InvokeFunction on resource: {resource}"
        )
        answer = await self.answer((403, headers, f'{{"Message": "{said} {why}"}}'.encode()))
        assert isinstance(answer, Refused)
        assert f"(grant your user or role lambda:InvokeFunction on {resource};" in answer.reason

    async def test_a_lost_connection_leaves_the_outcome_unknown(self):
        assert isinstance(await self.answer(("hang up", {}, b"")), Unknown)
        assert len(self.api.asked) == 1  # it was new, so the engine does not repeat the request

    async def test_a_reused_connection_that_breaks_is_replaced_once(self):
        assert await self.answer((202, {}, b"")) == Accepted()
        assert await self.answer(("hang up", {}, b"")) == Accepted()
        assert [body for _, body in self.api.asked] == [INVOCATION.payload] * 3
        assert len(self.connections) == 2
        assert isinstance(await self.answer(*[("hang up", {}, b"")] * 2), Unknown)
        assert len(self.api.asked) == 5

    async def test_a_reused_connection_that_stays_silent_is_replaced_once(self):
        self.engine = self.make_engine(first_byte_s=0.7)
        assert await self.answer((202, {}, b"")) == Accepted()
        assert await self.answer(("say nothing", {}, b"")) == Accepted()
        assert len(self.api.asked) == 3
        answer = await self.answer(*[("say nothing", {}, b"")] * 2)
        assert isinstance(answer, Unknown)
        assert answer.reason.endswith("no answer within 0.7 s")

    async def test_a_reused_connection_that_broke_is_not_replaced_if_nothing_listens(self):
        assert await self.answer((202, {}, b"")) == Accepted()
        await self.port.stopListening()
        assert isinstance(await self.answer(("hang up", {}, b"")), Unreached)

    async def test_a_part_of_an_answer_is_not_repeated(self):
        self.engine = self.make_engine(timeout_s=1.5)
        assert await self.answer((202, {}, b"")) == Accepted()
        answer = await self.answer(("headers only", {}, b""))
        assert isinstance(answer, Unknown)
        assert answer.reason.endswith("no whole answer within 1.5 s")
        assert len(self.api.asked) == 2
        for request, _ in self.api.asked:
            if request.transport is not None:
                request.transport.abortConnection()

    async def test_idle_connections_are_closed(self):
        self.engine = self.make_engine(idle_s=0.2)
        await self.engine.launch(INVOCATION)
        await gatherResults([self.engine.launch(INVOCATION) for _ in range(3)])
        assert self.open_connections() == 3
        until = time.monotonic() + 60
        while self.open_connections() and time.monotonic() < until:
            await deferLater(reactor, 0.02)
        assert self.open_connections() == 0
        assert await self.engine.launch(INVOCATION) == Accepted()
        assert len(self.connections) == 4

    def open_connections(self):
        return len([one for one in reactor.getReaders() if isinstance(one, Client)])

    async def test_connections_have_keepalive(self):
        self.engine = self.make_engine(keepalive_s=17)
        assert await self.answer((202, {}, b"")) == Accepted()
        (client,) = [one for one in reactor.getReaders() if isinstance(one, Client)]
        handle = client.getHandle()
        assert handle.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 17

    async def test_a_timeout_leaves_the_outcome_unknown(self):
        self.engine = self.make_engine(timeout_s=0.3)
        answer = await self.answer(("say nothing", {}, b""))
        assert isinstance(answer, Unknown)
        for request, _ in self.api.asked:
            request.transport.abortConnection()

    async def test_a_response_that_never_ends_leaves_the_outcome_unknown(self):
        self.engine = self.make_engine(timeout_s=0.5)
        answer = await self.answer(("headers only", {}, b""))
        assert isinstance(answer, Unknown)
        for request, _ in self.api.asked:
            request.transport.abortConnection()

    async def test_an_engine_that_cannot_be_reached_is_named_with_its_address(self):
        answer = await self.make_engine(url="http://127.0.0.1:1").launch(INVOCATION)
        assert isinstance(answer, Unreached)
        assert "127.0.0.1:1" in answer.reason

    async def test_without_credentials_it_says_what_to_set(self):
        answer = await self.make_engine(credentials=lambda expired: None).launch(INVOCATION)
        assert isinstance(answer, Refused)
        assert "AWS_ACCESS_KEY_ID" in answer.reason

    async def test_keys_that_were_rotated_are_looked_up_again(self):
        keys = [KEYS, Credentials("AKID2", "secret")]
        self.engine = self.make_engine(credentials=lambda expired: keys.pop(0))
        assert await self.answer((202, {}, b"")) == Accepted()
        headers = {"x-amzn-errortype": "UnrecognizedClientException"}
        assert isinstance(await self.answer((403, headers, b"{}")), Throttled)
        assert await self.answer((202, {}, b"")) == Accepted()
        assert keys == []

    async def test_an_answer_from_something_else_is_no_fault_in_mu(self):
        for headers in ({"location": "http://{x}"}, {"retry-after": "\xb2"}, {"date": "0"}):
            assert isinstance(await self.answer((302, headers, b"")), Refused)

    async def test_credentials_that_are_gone_after_a_launch_are_waited_for(self):
        keys = [KEYS, None]
        self.engine = self.make_engine(credentials=lambda expired: keys.pop(0))
        assert await self.answer((202, {}, b"")) == Accepted()
        headers = {"x-amzn-errortype": "ExpiredTokenException"}
        assert isinstance(await self.answer((403, headers, b"{}")), Throttled)
        assert isinstance(await self.engine.launch(INVOCATION), Unreached)

    async def test_an_outage_while_the_size_is_asked_for_is_told_from_a_refusal(self):
        headers = {"x-amzn-errortype": "TooManyRequestsException"}
        assert isinstance(await self.size(429, headers, b"{}"), Unreached)
        assert isinstance(await self.size(503, {}, b""), Unreached)
        self.engine = self.make_engine(url="http://127.0.0.1:1")
        assert isinstance(await self.engine.size("f", "us-east-1"), Unreached)

    async def test_the_limit_is_the_functions_reserve_or_what_all_functions_share(self):
        for name in ("f", "f:live", "123456789012:f", "arn:aws:lambda:r:123456789012:function:f:1"):
            self.api.asked.clear()
            self.api.script[:] = [(200, {}, b'{"ReservedConcurrentExecutions": 7}')]
            limit = await self.engine.concurrency(name, "us-east-1")
            assert limit == ConcurrencyLimit(7, reserved=True)
            request, _ = self.api.asked[0]
            asked = unquote(request.uri.decode().split("/")[3])
            assert asked == name.removesuffix(":live").removesuffix(":1")
        account = b'{"AccountLimit": {"UnreservedConcurrentExecutions": 9}}'
        self.api.script[:] = [(200, {}, b"{}"), (200, {}, account)]
        assert await self.engine.concurrency("f", "us-east-1") == ConcurrencyLimit(9)
        self.api.script[:] = [(403, {}, b"{}"), (403, {}, b"{}")]
        assert await self.engine.concurrency("f", "us-east-1") is None

    async def test_expired_credentials_are_replaced_for_the_next_launch(self):
        keys = [KEYS, Credentials("AKID2", "secret")]
        expired = []

        def find(rejected):
            expired.append(rejected)
            return keys[len(expired) - 1]

        self.engine = self.make_engine(credentials=find)
        headers = {"x-amzn-errortype": "ExpiredTokenException"}
        assert isinstance(await self.answer((403, headers, b"{}")), Throttled)
        assert await self.answer((202, {}, b"")) == Accepted()
        assert expired == [None, KEYS]
        request, _ = self.api.asked[-1]
        assert "Credential=AKID2/" in request.getHeader("authorization")
        assert request.getHeader("x-amz-security-token") is None

    async def size(self, *response):
        self.api.script[:] = [response]
        return await self.engine.size("f", "us-east-1")

    async def test_the_size_of_a_function_is_its_memory_and_architecture(self):
        body = b'{"MemorySize": 512, "Architectures": ["arm64"]}'
        assert await self.size(200, {}, body) == Size(512, "arm64")
        assert await self.size(200, {}, b'{"MemorySize": 128}') == Size(128, "x86_64")
        request, _ = self.api.asked[0]
        assert request.uri == b"/2015-03-31/functions/f/configuration"

    async def test_a_functions_timeout_and_the_time_of_its_deployment_are_read_too(self):
        body = (
            b'{"MemorySize": 512, "Timeout": 900, "LastModified": "2026-11-27T10:00:00.000+0000"}'
        )
        assert await self.size(200, {}, body) == Size(
            512, "x86_64", 900, "2026-11-27T10:00:00.000+0000"
        )

    async def test_the_log_of_a_function_is_read_in_a_thread(self):
        asked = []

        def read_log(*which):
            asked.append((which, threading.current_thread()))
            return "its log says: no"

        assert await self.engine.log_of("f", "eu-west-1", 5.0) == "see the log of function 'f'"
        self.engine._read_log = read_log
        assert await self.engine.log_of("f", "eu-west-1", 5.0) == "its log says: no"
        ((which, thread),) = asked
        assert which == ("f", "eu-west-1", 5.0)
        assert thread is not threading.main_thread()

    async def test_an_unknown_size_has_a_reason(self):
        assert await self.size(404, {}, b'{"Message": "Function not found"}') == (
            "404: Function not found"
        )
        assert await self.size(200, {}, b"[]") == "KeyError: 'MemorySize'"
        assert await self.size(200, {}, b'{"MemorySize": "128"}') == (
            "MemorySize is not an integer: '128'"
        )

    async def test_connections_are_reused(self):
        for _ in range(5):
            await gatherResults([self.engine.launch(INVOCATION) for _ in range(4)])
        assert len(self.api.asked) == 20
        assert len(self.connections) <= 4
