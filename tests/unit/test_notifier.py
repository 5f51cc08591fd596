"""Notifications in memory: when attempts are made, and what is signed."""

import base64
from dataclasses import replace

import pytest
from kit.parts import make_job
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.web.client import URI

from mu.config import NotifySection
from mu.jobs.book import JobBook
from mu.journal.ledger import Notification
from mu.notifier import Notifier, ProxiedEndpoints, signature
from mu.states import TerminalState
from mu.totals import Totals

OPTIONS = NotifySection(secret=base64.b64encode(bytes(24)).decode(), pause_s=1, longest_pause_s=4)
ONE = Notification("j1", "https://example.org/secret-path?x=1", 0.0)


class Done(TerminalState):
    """At once."""


class Response:
    def __init__(self, code):
        self.code = code

    def deliverBody(self, protocol):
        pass


class Receivers:
    """An agent whose answers are the test's; a status, an exception, or None for no answer."""

    def __init__(self, clock, answers=(), always=500):
        self.clock, self.answers, self.always = clock, list(answers), always
        self.asked: list[float] = []
        self.headers: list[dict] = []

    def request(self, method, url, headers, body):
        assert (method, url) == (b"POST", ONE.url.encode())
        self.asked.append(self.clock.seconds())
        self.headers.append(dict(headers.getAllRawHeaders()))
        answer = self.answers.pop(0) if self.answers else self.always
        if answer is None:
            return Deferred()
        return fail(answer) if isinstance(answer, Exception) else succeed(Response(answer))


class Desk:
    """A notifier with one job, and what it has told the journal."""

    def __init__(self, *answers, options=OPTIONS, job=True, always=500):
        self.clock, self.totals, self.options = Clock(), Totals(), options
        book = JobBook()
        if job:
            book.add(make_job(Done))
        self.agent = Receivers(self.clock, answers, always)
        self.done: list[str] = []
        self.notifier = Notifier(lambda: self.options, book, self.totals, self.clock, self.agent)
        self.notifier.notify(ONE, self)

    def notified(self, job):
        self.done.append(job)

    def pass_time(self, seconds):
        self.clock.pump([1] * seconds)


def test_the_signature_is_that_of_standard_webhooks():
    """The example of its specification."""
    signed = signature(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
    )
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_pauses_double_up_to_the_longest_and_the_id_stays():
    desk = Desk(500, ConnectionRefusedError(), 404, 301, 410, 200)
    desk.pass_time(30)
    assert desk.agent.asked == [0, 1, 3, 7, 11, 15]
    assert {headers[b"Webhook-Id"][0] for headers in desk.agent.headers} == {b"j1.ended"}
    assert [headers[b"Webhook-Timestamp"] for headers in desk.agent.headers][:2] == [[b"0"], [b"1"]]
    assert desk.done == ["j1"]
    assert desk.totals.notifications == {"delivered": 1, "failed": 5}
    assert desk.notifier.pending == 0


def test_a_receiver_that_does_not_answer_counts_as_failed():
    desk = Desk(None, 200, options=replace(OPTIONS, timeout_s=5))
    desk.pass_time(4)
    assert (desk.agent.asked, desk.notifier.pending) == ([0], 1)
    desk.pass_time(2)
    assert (desk.agent.asked, desk.done) == ([0, 6], ["j1"])


def test_it_is_given_up_some_time_after_the_end_of_the_job_also_over_restarts():
    desk = Desk(options=replace(OPTIONS, give_up_s=8))
    desk.pass_time(60)
    assert desk.agent.asked == [0, 1, 3, 7]
    assert desk.done == ["j1"]
    assert desk.totals.notifications == {"failed": 4, "given_up": 1}


def test_a_job_that_was_pruned_is_not_told_and_no_request_is_made():
    desk = Desk(job=False)
    assert (desk.agent.asked, desk.done) == ([], ["j1"])
    assert desk.totals.notifications["given_up"] == 1


def test_without_a_secret_it_waits_until_a_reload_brings_one():
    desk = Desk(options=replace(OPTIONS, secret="none"), always=200)
    desk.pass_time(2)
    assert desk.agent.asked == []
    desk.options = OPTIONS
    desk.pass_time(4)
    assert desk.done == ["j1"]


@pytest.mark.parametrize("answer", [None, 500])
def test_what_is_not_delivered_at_a_stop_stays_in_the_journal(answer):
    desk = Desk(answer)
    desk.notifier.stop()
    desk.notifier.notify(ONE, desk)  # a job that ends because the daemon stops
    desk.pass_time(30)
    assert (desk.agent.asked, desk.done, desk.notifier.pending) == ([0], [], 0)
    assert desk.clock.getDelayedCalls() == []


def test_a_notification_is_under_way_only_once():
    desk = Desk(None)
    desk.notifier.notify(ONE, desk)
    assert desk.agent.asked == [0]


@pytest.mark.parametrize(
    ("url", "port"),
    [
        (b"https://example.org/", 3128),
        (b"https://10.0.0.1:8443/", 8443),
        (b"http://127.0.0.1:8000/", 8000),
    ],
)
def test_requests_go_through_the_proxy_of_the_environment(monkeypatch, url, port):
    monkeypatch.setenv("HTTPS_PROXY", "http://10.0.0.9:3128")
    monkeypatch.setenv("HTTP_PROXY", "http://10.0.0.9:3128")
    monkeypatch.setenv("NO_PROXY", "10.0.0.1")
    reactor = MemoryReactorClock()
    ProxiedEndpoints(reactor, 5).endpointForURI(URI.fromBytes(url)).connect(Factory())
    assert reactor.tcpClients[0][1] == port
