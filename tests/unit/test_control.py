"""The control port in memory."""

import json
import re

import pytest
from kit.parts import OneState, make_job, make_spec, recorded_job
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from mu.access import Access
from mu.config import Config, ControlSection
from mu.control import Control
from mu.home import Tokens
from mu.jobs.book import JobBook, PastJob
from mu.journal.records import Planned
from mu.net.host_headers import AllowedHosts
from mu.net.web import BoundedSite, TextResource
from mu.output.files import OutputLimits
from mu.output.keeper import OutputKeeper
from mu.output.pieces import Piece
from mu.page.feed import Feeds
from mu.page.files import read_files
from mu.registry import Registry
from mu.states import TerminalState


class Done(TerminalState):
    """At once."""


@pytest.fixture
def book():
    return JobBook()


@pytest.fixture
def keeper(tmp_path):
    return OutputKeeper(tmp_path / "logs", OutputLimits(), Clock(), at_once, at_once)


def at_once(call, *args):
    return maybeDeferred(call, *args)


@pytest.fixture
def control(book, keeper):
    config, clock = Config(control=ControlSection(max_viewers=1)), Clock()
    access = Access(config.control, Tokens("t0ken", "reader"), "key", clock.seconds)
    registry, feeds = Registry({}, {}, []), Feeds(clock)
    return Control(
        config,
        access,
        book,
        registry,
        None,
        keeper.read,
        maybeDeferred,
        set(),
        None,
        None,
        None,
        feeds,
        read_files(),
        clock,
        None,
    )


@pytest.fixture
def send(control):
    """Return the status, the headers and the body of the response to a request."""
    site = BoundedSite(TextResource(control.app.resource()), 1000, AllowedHosts())

    def send(path, bearer="t0ken", method="GET", body=b"", **headers):
        transport = StringTransport()
        protocol = site.buildProtocol(None)
        protocol.makeConnection(transport)
        lines = [f"{method} {path} HTTP/1.0", "Host: localhost", f"Content-Length: {len(body)}"]
        lines += [f"Authorization: Bearer {bearer}"] if bearer else []
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        protocol.dataReceived("\r\n".join([*lines, "", ""]).encode() + body)
        head, _, answer = transport.value().partition(b"\r\n\r\n")
        status, *given = head.decode().split("\r\n")
        return int(status.split()[1]), dict(line.split(": ", 1) for line in given), answer

    return send


@pytest.fixture
def ask(send):
    """Return the status and the body of the response to a GET."""

    def ask(path):
        status, _, body = send(path)
        return status, body

    return ask


def printed(keeper, job, actor, text, source="", attempt=1):
    keeper.write(job, actor, Piece(0.0, attempt, 1, source, text))


def test_a_log_is_kept_after_the_end_of_its_job_unless_newer_ones_take_its_place(book, keeper, ask):
    ended, silent = (make_job(Done, workers=1, job_id=name) for name in ("old", "silent"))
    for job in (ended, silent):
        book.add(job)
    printed(keeper, "old", 0, b"printed")
    assert ask("/jobs/old/log?actor=0") == (200, b"printed")
    for job in (ended, silent):
        job.stop("cancelled", "by request")
        keeper.end(job.id)
    past = PastJob(json.dumps(ended.describe()), "{}", lambda _: json.dumps(ended.workers()))
    for one in (ended, past):
        book.add(one)
        assert ask("/jobs/old/log?actor=0") == (200, b"printed")
        assert ask("/jobs/old/log") == (200, b"== actor 0 ==\nprinted\n")
        assert ask("/jobs/old/log?actor=0&after=4") == (200, b"ted")
    assert ask("/jobs/silent/log?actor=0") == (200, b"")
    keeper.forget(["old"])
    for path in ("/jobs/old/log", "/jobs/old/log?actor=0"):
        status, body = ask(path)
        assert status == 404
        assert json.loads(body)["error"]["message"].startswith("no log of job old is kept: ")


def test_a_log_of_an_earlier_daemons_job_is_found_by_input(book, keeper, ask):
    job = make_job(Done, workers=3)
    book.add(PastJob(json.dumps(job.describe()), "{}", lambda _: json.dumps(job.workers())))
    for actor, source in enumerate(("a", "b", "a")):
        printed(keeper, "j1", actor, b"%d\n" % actor, source)
    keeper.end("j1")
    assert ask("/jobs/j1/log?key=b") == (200, b"1\n")
    assert ask("/jobs/j1/log?key=a") == (200, b"== actor 0 ==\n0\n\n== actor 2 ==\n2\n\n")
    status, body = ask("/jobs/j1/log?key=x")
    assert (status, json.loads(body)["error"]["field"]) == (404, "key")


def test_one_attempt_is_shown_and_lines_with_their_times(book, keeper, ask):
    book.add(make_job(Done, workers=1))
    printed(keeper, "j1", 0, b"first\n")
    printed(keeper, "j1", 0, b"second\n", attempt=2)
    assert ask("/jobs/j1/log?actor=0&attempt=2") == (200, b"second\n")
    assert ask("/jobs/j1/log?actor=0&attempt=1&times=1") == (
        200,
        b"1970-01-01T00:00:00.000Z first\n",
    )
    assert told(ask("/jobs/j1/log?actor=0&attempt=x"))[1]["error"]["field"] == "attempt"


def told(answer):
    status, body = answer
    return status, json.loads(body)


def test_jobs_are_listed_by_name_and_state(book, ask):
    names = [("a", "nightly"), ("b", ""), ("c", "nightly"), ("d", "über nacht")]
    jobs = [make_job(Done, job_id=job_id, name=name) for job_id, name in names]
    for job in jobs:
        book.add(job)
    jobs[2].stop("cancelled", "by request")

    def ids(arguments):
        return [job["id"] for job in told(ask(f"/jobs?{arguments}"))[1]]

    assert ids("name=nightly") == ["a", "c"]
    assert ids("name=nightly&limit=1") == ["a"]
    assert ids("name=nightly&after=a") == ["c"]
    assert ids("state=cancelled") == ["c"]
    assert ids("state=launching&name=nightly") == []
    assert ids("name=") == ["b"]
    assert ids("name=%C3%BCber%20nacht") == ["d"]
    status, refused = told(ask("/jobs?state=lost"))
    assert status == 400
    assert refused["error"]["message"] == (
        "state must be one of launching, running, done, failed, cancelled, got 'lost'"
    )


def keyed_job(*keys):
    """Return a job whose actors have those keys."""
    pipeline = OneState(Done)
    pipeline.inputs = lambda given: given["keys"]
    job = recorded_job(make_spec(Done, pipeline=pipeline))
    sizes = [len(some) for some in keys]
    job.record(Planned([{"keys": some} for some in keys], list(range(len(keys))), sizes=sizes))
    return job


def test_output_and_actors_are_found_by_input(book, keeper, ask):
    book.add(keyed_job(["a", "b/c d"], ["e"]))
    printed(keeper, "j1", 0, b"1\n", "a")
    printed(keeper, "j1", 0, b"2\n", "b/c d")
    printed(keeper, "j1", 1, b"3\n", "e")
    assert ask("/jobs/j1/log?key=b/c%20d") == (200, b"2\n")
    assert ask("/jobs/j1/log?key=b/c%20d&actor=0&after=2") == (200, b"2\n")
    assert ask("/jobs/j1/log?names=1") == (
        200,
        b"== actor 0 ==\na: 1\nb/c d: 2\n\n== actor 1 ==\n3\n\n",
    )
    assert ask("/jobs/j1/log?actor=0") == (200, b"1\n2\n")
    assert [row["actor"] for row in told(ask("/jobs/j1/workers?key=e"))[1]] == [1]
    for path, says in (
        ("log?key=x", "job j1 has no input 'x'"),
        ("workers?key=x", "job j1 has no input 'x'"),
        ("log?key=a&actor=1", "actor 1 has no input 'a'"),
        ("log?actor=7", "job j1 has no actor 7"),
    ):
        status, refused = told(ask(f"/jobs/j1/{path}"))
        assert (status, refused["error"]["message"]) == (404, says)


def test_an_unambiguous_end_or_part_of_an_input_finds_it(book, keeper, ask):
    job = keyed_job(["in/1.txt", "in/11.txt"], ["1.txt.gz", "b", "ab"])
    book.add(job)
    for actor, name in ((0, "in/1.txt"), (0, "in/11.txt"), (1, "1.txt.gz"), (1, "b"), (1, "ab")):
        printed(keeper, "j1", actor, f"{name}\n".encode(), name)

    def found(part):
        status, text = ask(f"/jobs/j1/log?key={part}")
        return text.decode() if status == 200 else json.loads(text)["error"]["message"]

    assert found("/1.txt") == "in/1.txt\n"
    assert found("b") == "b\n", "the whole name comes first"
    assert found("11") == "in/11.txt\n"
    assert found("gz") == "1.txt.gz\n"
    assert found("1.txt") == "job j1 has 2 inputs with '1.txt': in/1.txt, in/11.txt"
    assert found("") == "job j1 has no input ''"
    assert [row["actor"] for row in told(ask("/jobs/j1/workers?key=11.t"))[1]] == [0]


def test_an_overview_is_of_one_moment(book, ask):
    job = make_job(Done, 3)
    book.add(job)
    seen = told(ask("/jobs/j1/overview"))[1]
    assert seen["job"] == told(ask("/jobs/j1"))[1]
    assert [(group["actors"], group["waits_for"]) for group in seen["groups"]] == [(3, "a worker")]
    job.stop("cancelled", "by request")
    past = PastJob(json.dumps(job.describe()), "{}", lambda _: json.dumps(job.workers()))
    assert past.overview() == json.loads(json.dumps(job.overview()))


# ---------------------------------------------------------------- the page


def test_the_files_of_the_page_need_no_token_and_run_no_inline_script(send):
    status, headers, page = send("/", bearer="")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
    assert "unsafe" not in policy
    used = re.findall(rb'(?:src|href)="(page/[^"]+)"', page)
    assert used
    assert b"<script>" not in page
    assert b"://" not in page
    for name in used:
        assert send(f"/{name.decode()}", bearer="")[0] == 200
    assert send("/page/absent.js")[0] == 404
    assert send("/page/..%2Fcontrol.py")[0] == 404
    status, _, body = send("/", bearer="", If_None_Match=headers["ETag"])
    assert (status, body) == (304, b"")


def test_no_file_of_the_page_makes_markup_of_a_text_or_loads_anything_from_elsewhere():
    for name, file in read_files().items():
        text = file.content.decode()
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert word not in text, name
        found = set(re.findall(r"https?://[^\s\"'`)]+", text))
        assert found <= {"http://www.w3.org/2000/svg"}, name


def code(send, bearer, read_only=False):
    body = json.dumps({"read_only": read_only}).encode()
    status, _, told = send("/codes", bearer, "POST", body)
    assert status == 201
    assert json.loads(told)["valid_s"] == 60
    return json.loads(told)["code"]


def enter(send, given):
    status, _, told = send("/sessions", "", "POST", json.dumps({"code": given}).encode())
    return status, json.loads(told)


def test_a_browser_gets_a_session_for_a_code_and_no_more_rights_than_the_token_had(send):
    cases = ("t0ken", False, False), ("t0ken", True, True), ("reader", False, True)
    for bearer, asked, read_only in cases:
        status, told = enter(send, code(send, bearer, asked))
        assert (status, told["read_only"]) == (201, read_only)
        assert send("/jobs", told["session"])[0] == 200
        assert send("/jobs/absent", told["session"], "DELETE")[0] == (403 if read_only else 404)
        assert send("/codes", told["session"], "POST", b"{}")[0] == 401


def test_a_code_that_is_wrong_or_was_used_opens_nothing(send):
    given = code(send, "t0ken")
    assert enter(send, given)[0] == 201
    for one in (given, "", "ä", "x" * 100):
        status, told = enter(send, one)
        assert (status, told["error"]["field"]) == (403, "code")
    assert send("/sessions", "", "POST", b'{"code": 5}')[0] == 400
    assert send("/codes", "", "POST", b"{}")[0] == 401


def test_requests_of_other_pages_are_refused(send):
    assert send("/jobs", Origin="http://localhost")[0] == 200
    for origin in ("http://evil.example", "null", "http://localhost:8080"):
        status, _, body = send("/jobs", Origin=origin)
        assert status == 403
        assert json.loads(body)["error"]["message"] == (
            f"Origin must be the page's own, or one of [control] hosts, got {origin!r}"
        )


def test_viewers_beyond_max_viewers_are_refused(book, send):
    book.add(make_job(Done, job_id="j1"))
    status, headers, body = send("/jobs/j1/events")
    assert (status, headers["Content-Type"]) == (200, "text/event-stream")
    assert b"event: snapshot" in body
    status, _, body = send("/jobs/j1/events")
    assert status == 503
    assert b"[control] max_viewers is 1" in body
    assert send("/jobs/j1/events", bearer="")[0] == 401


def test_a_new_token_ends_the_events_of_those_who_had_the_old_one(book, control, send):
    book.add(make_job(Done, job_id="j1"))
    send("/jobs/j1/events")
    control.reload(Config(control=ControlSection(max_viewers=1)), Tokens("t0ken", "reader"))
    assert send("/jobs/j1/events")[0] == 503, "no token changed"
    control.reload(Config(control=ControlSection(max_viewers=1)), Tokens("other", "reader"))
    assert send("/jobs/j1/events")[0] == 401
    assert send("/jobs/j1/events", "other")[0] == 200
