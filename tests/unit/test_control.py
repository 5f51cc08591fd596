"""The control port in memory."""

import json

import pytest
from kit.parts import make_job
from twisted.internet.testing import StringTransport

from mu.config import Config
from mu.control import Control
from mu.home import Tokens
from mu.jobs.book import JobBook
from mu.net.host_headers import AllowedHosts
from mu.net.web import BoundedSite, TextResource
from mu.registry import Registry
from mu.states import TerminalState


class Done(TerminalState):
    """At once."""


@pytest.fixture
def book():
    return JobBook(output_bytes=10)


@pytest.fixture
def ask(book):
    """Return the status and the body of the response to a GET."""
    control = Control(
        Config(), Tokens("t0ken", "reader"), book, Registry({}, {}, []), None, set(), None, None
    )
    site = BoundedSite(TextResource(control.app.resource()), 1000, AllowedHosts())

    def ask(path):
        transport = StringTransport()
        protocol = site.buildProtocol(None)
        protocol.makeConnection(transport)
        protocol.dataReceived(
            b"GET %b HTTP/1.0\r\nHost: localhost\r\nAuthorization: Bearer t0ken\r\n\r\n"
            % path.encode()
        )
        head, _, body = transport.value().partition(b"\r\n\r\n")
        return int(head.split()[1]), body

    return ask


def test_output_that_was_dropped_after_the_end_of_its_job_is_told_to_be_so(book, ask):
    ended, silent = (make_job(Done, workers=1, job_id=name) for name in ("old", "silent"))
    for job in (ended, silent):
        book.add(job)
    ended.actors[0].output.write(b"printed")
    assert ask("/jobs/old/log?actor=0") == (200, b"printed")
    for job in (ended, silent):
        job.stop("cancelled", "by request")
        assert job.ended
    ended.actors[0].output.drop()
    for path in ("/jobs/old/log", "/jobs/old/log?actor=0", "/jobs/old/log?actor=0&after=3"):
        status, body = ask(path)
        assert status == 404
        assert json.loads(body)["error"]["message"].startswith(
            "the output of job old was dropped: that of newer jobs has taken its place"
        )
    assert ask("/jobs/old/log?actor=0&after=7") == (200, b""), "a follower has read it all"
    assert ask("/jobs/silent/log?actor=0") == (200, b"")
