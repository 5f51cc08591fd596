"""A job that is followed by its events, over lost connections, and by polling."""

import json

import pytest
from kit.cli import answering, http
from kit.parts import OneState, make_spec, recorded_job
from twisted.internet.task import Clock

from mu.cli import following
from mu.cli.following import follow
from mu.client.errors import DaemonUnreachable, RequestRefused
from mu.journal.records import Assigned, AttemptEnded, NobodyCame, Planned
from mu.page.feed import Feed, event
from mu.states import MachineState

ACTORS = 6


class Still(MachineState):
    """Waits."""

    expect = "OK:ECHO"


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(following, "RETRY_S", 0.01)
    monkeypatch.setattr(following, "POLL_S", 0.01)


@pytest.fixture
def job():
    job = recorded_job(make_spec(Still, pipeline=OneState(Still), workers=ACTORS, retries=1))
    job.record(Planned([{} for _ in range(ACTORS)], list(range(ACTORS))))
    return job


def stream(*events):
    """Return a response that ends as if the connection were lost: nobody knows its length."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nretry: 1000\n\n:\n\n"
    return head + b"".join(events)


def told(job):
    return json.loads(json.dumps(job.describe()))


def last_change(version):
    """Return the event that says that the job has ended."""
    told = {"at": 5.0, "job": {"state": "done", "finished": 5.0}, "actors": []}
    return event("changes", f"e.{version}", json.dumps(told).encode())


def test_what_events_tell_is_the_overview_of_the_daemon(job):
    feed = Feed(job, "e", Clock())
    begun = feed.message(None), feed.version
    job.record(NobodyCame(1.0, 4, "no worker"))
    for actor in range(4):
        job.record(Assigned(2.0 + actor, actor, 1, f"s{actor}", ""))
    job.record(AttemptEnded(9.0, 1, 1, "no", None, "Still", "", True))
    job.record(Assigned(10.0, 1, 2, "s9", ""))
    job.record(AttemptEnded(11.0, 1, 2, "no again", None, "Still", "", True))
    job.actors[1].show_end()
    feed.look()
    changes = feed.message(begun[1])
    with answering(stream(begun[0], changes)) as client:
        seen = []

        def see_all():
            for followed in follow(client, told(job), 0.0):
                seen.append(json.loads(json.dumps(followed.overview())))

        with pytest.raises(DaemonUnreachable, match="closed the connection"):
            see_all()
    assert seen[-1] == json.loads(json.dumps(job.overview()))
    assert (seen[-1]["retried"], seen[-1]["failed"][0]["actor"]) == (1, 1)
    assert sum(group["actors"] for group in seen[-1]["groups"]) == ACTORS - 1


def test_a_lost_connection_is_followed_by_another_that_goes_on_after_the_last_event(job):
    feed = Feed(job, "e", Clock())
    first, version = feed.message(None), feed.version
    with answering(stream(first), b"", stream(last_change(version + 1))) as client:
        asked = []
        events = client.events
        client.events = lambda job_id, last_id: asked.append(last_id) or events(job_id, last_id)
        steps = [one.job for one in follow(client, told(job), 10.0)]
    assert asked == ["", f"e.{version}", f"e.{version}"]
    assert steps[-1] == told(job) | {"state": "done", "finished": 5.0}


@pytest.mark.parametrize(
    "refused",
    [
        http("404 Not Found", '{"error": {"message": "there is no GET /jobs/x/events"}}'),
        http("503 Service Unavailable", '{"error": {"message": "there are 100 viewers"}}'),
    ],
)
def test_a_daemon_that_sends_no_events_is_polled(job, refused):
    before = json.dumps(job.overview())
    after = json.dumps(job.overview() | {"job": told(job) | {"finished": 5.0}})
    with answering(refused, http("200 OK", before), http("200 OK", after)) as client:
        steps = [one.job["finished"] for one in follow(client, told(job), 10.0)]
    assert steps == [None, None, 5.0]


def test_a_daemon_that_was_never_there_is_not_waited_for(job):
    with answering(b"") as client, pytest.raises(DaemonUnreachable, match="was lost"):
        list(follow(client, told(job), 100.0))


def test_a_token_that_no_longer_counts_ends_it(job):
    feed = Feed(job, "e", Clock())
    refused = http("401 Unauthorized", "{}")
    with (
        answering(stream(feed.message(None)), refused) as client,
        pytest.raises(RequestRefused, match="not yours"),
    ):
        list(follow(client, told(job), 100.0))
