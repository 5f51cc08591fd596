"""The events of a job: the size of what has changed, and nothing kept for slow viewers."""

import json

import pytest
from kit.parts import OneState, make_spec, recorded_job
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs, formatEvent
from twisted.web.http_headers import Headers

from mu.jobs.book import PastJob
from mu.journal.records import Assigned, AttemptEnded, Planned
from mu.page.feed import COLUMNS, MOST_MESSAGES, QUIET_S, TICK_S, Feed, Feeds
from mu.states import MachineState


class Patient(MachineState):
    """Waits."""

    expect = "OK:ECHO"


class Request:
    """As much of a request as a viewer uses."""

    def __init__(self, last=None):
        self.transport = StringTransport()
        self.requestHeaders = Headers({"last-event-id": [last]} if last else {})
        self.headers = {}
        self.producer = None

    def getHeader(self, name):
        return self.requestHeaders.getRawHeaders(name, [None])[-1]

    def setHeader(self, name, value):
        self.headers[name] = value

    def registerProducer(self, producer, streaming):
        assert streaming
        self.producer = producer

    def unregisterProducer(self):
        self.producer = None

    def write(self, data):
        self.transport.write(data)

    def events(self):
        """Return what was sent since the last call: pairs of an id and (kind, told)."""
        text = self.transport.value().decode()
        self.transport.clear()
        found = []
        for part in text.split("\n\n"):
            lines = dict(line.split(": ", 1) for line in part.split("\n") if ": " in line)
            if "event" in lines:
                found.append((lines["id"], lines["event"], json.loads(lines["data"])))
        return found


def job_of(actors):
    job = recorded_job(make_spec(Patient, pipeline=OneState(Patient), workers=actors))
    job.record(Planned([{} for _ in range(actors)], list(range(actors))))
    return job


@pytest.fixture
def clock():
    return Clock()


def watch(feeds, job, last=None, **how):
    request = Request(last)
    watching = feeds.watch(job, request, **how)
    watching.addErrback(lambda failure: None)
    return request, watching


def rows(told):
    return {row[0]: dict(zip(COLUMNS, row, strict=True)) for row in told["actors"]}


def begin(job, actor):
    job.record(Assigned(10.0, actor, 1, f"s{actor}", ""))


def test_viewers_see_how_many_actors_of_a_stage_are_to_go(clock):
    job, feeds = recorded_job(make_spec(Patient, workers=3)), Feeds(clock)
    stages = [["encode", [0, 1]]]
    job.record(Planned([{}] * 3, [0, 1, 2], after=[[[0, 1], [2]]], stages=stages))
    request, _ = watch(feeds, job)
    ((_, _, told),) = request.events()
    assert rows(told)[2]["waits_for"] == "stage encode"
    assert told["job"]["gates"] == {"stage encode": "stage encode: 2 of 2 to go"}
    begin(job, 0)
    job.record(AttemptEnded(12.0, 0, 1, None, None, "", "", True))
    clock.advance(TICK_S)
    ((_, _, told),) = request.events()
    assert told["job"]["gates"] == {"stage encode": "stage encode: 1 of 2 to go"}
    assert 2 not in rows(told), "its row is the same"


def test_a_viewer_gets_a_snapshot_and_then_only_what_changes(clock):
    job, feeds = job_of(100), Feeds(clock)
    request, _ = watch(feeds, job)
    ((_, kind, told),) = request.events()
    assert (kind, told["job"]["id"], told["columns"]) == ("snapshot", job.id, list(COLUMNS))
    assert len(told["actors"]) == 100
    assert told["job"]["awaited"] == "a worker"
    clock.advance(TICK_S)
    assert request.events() == []
    begin(job, 7)
    begin(job, 8)
    clock.advance(TICK_S)
    ((_, kind, told),) = request.events()
    assert kind == "changes"
    assert rows(told).keys() == {7, 8}
    assert rows(told)[7]["state"] == "running"
    assert told["job"]["counts"]["running"] == 2
    assert "params" not in told["job"]


def test_changes_are_coalesced_to_one_event_for_each_tick(clock):
    job, feeds = job_of(10), Feeds(clock)
    request, _ = watch(feeds, job)
    request.events()
    for actor in range(10):
        begin(job, actor)
        clock.advance(TICK_S / 20)
    clock.advance(TICK_S / 2)
    ((_, _, told),) = request.events()
    assert len(told["actors"]) == 10


def test_messages_for_viewers_that_claim_to_have_seen_any_version_do_not_pile_up(clock):
    job = job_of(3 * MOST_MESSAGES)
    for actor in range(len(job.actors)):
        begin(job, actor)
    feed = Feed(job, "epoch", clock)
    sent = [feed.message(seen) for seen in range(feed.version)]
    assert len(sent) > 2 * MOST_MESSAGES
    assert len(feed._messages) <= MOST_MESSAGES
    assert feed.message(0) == sent[0]


def test_a_fault_in_one_jobs_events_stops_no_others(clock):
    good, bad, feeds = job_of(1), job_of(1), Feeds(clock)
    bad.id = "bad"
    (request, watching), (_, ending) = watch(feeds, good), watch(feeds, bad)
    request.events()
    bad.describe = lambda: 1 / 0
    begin(good, 0)
    with capturedLogs() as logs:
        clock.advance(TICK_S)
    assert [formatEvent(event) for event in logs] == ["a fault in mu: the events of job bad stop"]
    assert (watching.called, ending.called) == (False, True)
    assert [kind for _, kind, _ in request.events()] == ["changes"]


def test_viewers_can_be_dropped_and_come_back(clock):
    job, feeds = job_of(2), Feeds(clock)
    request, watching = watch(feeds, job)
    ((last, _, _),) = request.events()
    request.producer.pauseProducing()
    feeds.drop()
    assert watching.called
    assert request.producer is None
    assert len(feeds) == 0
    clock.advance(TICK_S)
    assert request.events() == []
    again, _ = watch(feeds, job, last)
    begin(job, 1)
    clock.advance(TICK_S)
    assert again.events()[-1][1] == "changes"


def test_a_slow_viewer_gets_the_latest_once_it_has_read_what_it_had(clock):
    job, feeds = job_of(10), Feeds(clock)
    request, _ = watch(feeds, job)
    request.events()
    request.producer.pauseProducing()
    for actor in range(3):
        begin(job, actor)
        clock.advance(TICK_S)
    job.record(AttemptEnded(20.0, 0, 1, None, None, "", "", False))
    clock.advance(TICK_S)
    assert request.events() == []
    request.producer.resumeProducing()
    clock.advance(TICK_S)
    ((_, _, told),) = request.events()
    assert sorted(rows(told)) == [0, 1, 2]


def test_a_viewer_that_comes_back_gets_what_it_missed(clock):
    job, feeds = job_of(10), Feeds(clock)
    request, watching = watch(feeds, job)
    ((last, _, _),) = request.events()
    watching.cancel()
    assert len(feeds) == 0
    begin(job, 3)
    request, _ = watch(feeds, job, last)
    ((_, kind, told),) = request.events()
    assert (kind, list(rows(told))) == ("changes", [3])


@pytest.mark.parametrize("last", ["0.5", "x", "ffffffff.99", f"{'9' * 400}", ".", "a.b"])
def test_an_unknown_event_id_is_answered_with_a_snapshot(clock, last):
    request, _ = watch(Feeds(clock), job_of(1), last)
    ((_, kind, _),) = request.events()
    assert kind == "snapshot"


def test_viewers_who_have_seen_the_same_get_the_same_bytes(clock):
    job, feeds = job_of(10), Feeds(clock)
    requests = [watch(feeds, job)[0] for _ in range(5)]
    begin(job, 3)
    clock.advance(TICK_S)
    assert len({request.transport.value() for request in requests}) == 1


def test_the_events_of_a_job_end_with_it(clock):
    job, feeds = job_of(1), Feeds(clock)
    request, watching = watch(feeds, job)
    request.events()
    job.stop("cancelled", "by request")
    job.end("cancelled", "by request")
    clock.advance(TICK_S)
    (_, _, told), (_, kind, _) = request.events()
    assert (told["job"]["state"], rows(told)[0]["state"], kind) == ("cancelled", "cancelled", "end")
    assert watching.called
    assert len(feeds) == 0
    assert clock.getDelayedCalls() == []
    request, watching = watch(feeds, job)
    assert [kind for _, kind, _ in request.events()] == ["snapshot", "end"]
    assert watching.called


def test_a_job_of_before_the_restart_is_a_snapshot(clock):
    row = {"actor": 0, "state": "failed", "label": "A", "attempt": 1, "since": 2.0}
    row |= {"last_reply": "", "error": "no", "result": None}
    told = {"id": "j0", "pipeline": "hello", "workers": 1, "state": "failed", "created": 1.0}
    job = PastJob(json.dumps(told), "{}", lambda job_id: json.dumps([row]))
    request, watching = watch(Feeds(clock), job)
    (_, kind, snapshot), (_, last, _) = request.events()
    assert (kind, last) == ("snapshot", "end")
    assert rows(snapshot)[0]["error"] == "no"
    assert rows(snapshot)[0]["failed"] == 1
    assert watching.called


def test_a_viewer_that_never_reads_loses_its_connection(clock):
    job, feeds = job_of(1), Feeds(clock)
    request, _ = watch(feeds, job, slow_s=60.0)
    request.producer.pauseProducing()
    clock.pump([TICK_S] * int(59 / TICK_S))
    request.producer.resumeProducing()
    request.producer.pauseProducing()
    clock.pump([TICK_S] * int(59 / TICK_S))
    assert not request.transport.disconnecting, "it has read something"
    clock.pump([TICK_S] * int(1 / TICK_S))
    assert request.transport.disconnecting


def test_events_end_with_the_session_that_may_see_them(clock):
    job, feeds = job_of(1), Feeds(clock)
    _, watching = watch(feeds, job, until=10.0)
    _, longer = watch(feeds, job)
    clock.pump([TICK_S] * int(9.9 / TICK_S))
    assert not watching.called
    clock.advance(TICK_S)
    clock.advance(TICK_S)
    assert watching.called
    assert (len(feeds), longer.called) == (1, False)


def test_a_silent_connection_gets_a_comment(clock):
    job, feeds = job_of(1), Feeds(clock)
    request, _ = watch(feeds, job)
    request.transport.clear()
    clock.pump([TICK_S] * int(QUIET_S / TICK_S))
    assert request.transport.value() == b":\n\n"


def test_inputs_are_counted_as_they_change():
    job = job_of(3)
    assert job.tally() == (3, 0, 0)
    begin(job, 1)
    job.record(AttemptEnded(20.0, 1, 1, None, None, "", "", False))
    job.show_ends()
    assert job.tally() == (3, 1, 0)
    assert job.tally() == tuple(
        map(sum, zip(*(actor.tally() for actor in job.actors), strict=True))
    )
