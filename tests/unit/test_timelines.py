"""Timelines of the journal's jobs: read in a thread, or a sentence why there is none."""

import gzip
import json

import pytest
from kit.journal import HeldJournal
from kit.parts import make_job
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.task import Clock

from mu.jobs.timelines import AT_ONCE, KEPT_S, MOST_KEPT, NoTimeline, Timelines
from mu.journal.ledger import NoJournal
from mu.journal.records import Assigned, Ordered, Planned
from mu.states import TerminalState


def read(ledger, job, after=None, most=None, commands=False):
    """Return a Deferred of a timeline's JSON, made without a thread."""
    timelines = Timelines(ledger, Clock(), maybeDeferred)
    return Deferred.fromCoroutine(timelines.read(job, after, most, commands))


def test_a_timeline_has_what_was_recorded_up_to_the_request():
    job, ledger = make_job(TerminalState, job_id="j1"), HeldJournal()
    ledger.record("j1", Ordered(1.0, "u", {}, "", "d"))
    ledger.record("j1", Planned([{}, {}], [0, 1]))
    told = read(ledger, job)
    assert not told.called, "it waits for the disk"
    ledger.sync()
    timeline = json.loads(told.result)
    assert [one["states"] for one in timeline["actors"]] == [[[0, "waiting"]]] * 2
    assert not timeline["ended"]


def test_few_timelines_are_made_at_once_even_if_their_clients_go():
    ledger = HeldJournal()
    jobs = [make_job(TerminalState, job_id=f"j{number}") for number in range(AT_ONCE + 2)]
    for job in jobs:
        ledger.record(job.id, Ordered(1.0, "u", {}, "", "d"))
    ledger.sync()
    running = []

    def in_thread(call):
        running.append((Deferred(), call))
        return running[-1][0]

    timelines = Timelines(ledger, Clock(), in_thread)
    asked = [Deferred.fromCoroutine(timelines.read(job, None, None, False)) for job in jobs]
    for one in asked:
        one.addErrback(lambda failure: failure.trap(CancelledError))
    assert len(running) == AT_ONCE
    asked[0].cancel()
    asked[AT_ONCE].cancel()
    assert len(running) == AT_ONCE, "its thread still works"
    for made, call in running:
        made.callback(call())
    assert len(running) == AT_ONCE + 1
    assert json.loads(asked[-1].result)["id"] == jobs[-1].id


class CountingJournal(HeldJournal):
    """A journal that notes how many records were read."""

    read = 0

    def groups(self, job, after=0):
        found = super().groups(job, after)
        self.read += len(found)
        return found


def test_the_next_timeline_of_a_running_job_reads_only_what_came_since():
    job, ledger, clock = make_job(TerminalState, job_id="j1"), CountingJournal(), Clock()
    timelines = Timelines(ledger, clock, maybeDeferred)

    def told(after, most):
        ledger.sync()
        answer = Deferred.fromCoroutine(timelines.read(job, after, most, False)).result
        return [one["states"] for one in json.loads(answer)["actors"]]

    ledger.record("j1", Ordered(1.0, "u", {}, "", "d"))
    ledger.record("j1", Planned([{}] * 3, [0, 1, 2]))
    assert told(None, None) == [[[0, "waiting"]]] * 3
    ledger.record("j1", Assigned(3.0, 1, 1, "s", ""))
    assert told(0, 1) == told(None, None)[1:2] == [[[0, "waiting"], [2.0, "idle"]]]
    assert ledger.read == 3
    clock.advance(KEPT_S)
    assert len(told(None, None)) == 3
    assert ledger.read == 6, "it was forgotten"
    for number in range(MOST_KEPT):
        other = make_job(TerminalState, job_id=f"k{number}")
        ledger.record(other.id, Ordered(1.0, "u", {}, "", "d"))
        ledger.sync()
        Deferred.fromCoroutine(timelines.read(other, None, None, False))
    told(None, None)
    assert ledger.read == 9 + MOST_KEPT, "so it was for others"


def test_two_requests_for_a_running_job_do_not_read_it_at_the_same_time():
    job, ledger = make_job(TerminalState, job_id="j1"), CountingJournal()
    ledger.record("j1", Ordered(1.0, "u", {}, "", "d"))
    ledger.sync()
    running = []

    def in_thread(call):
        running.append((Deferred(), call))
        return running[-1][0]

    timelines = Timelines(ledger, Clock(), in_thread)
    asked = [Deferred.fromCoroutine(timelines.read(job, None, None, False)) for _ in range(3)]
    asked[1].addErrback(lambda failure: failure.trap(CancelledError))
    asked[1].cancel()
    assert len(running) == 1
    running[0][0].callback(running[0][1]())
    assert len(running) == 2
    running[1][0].callback(running[1][1]())
    assert asked[0].result == asked[2].result
    assert ledger.read == 1


def test_a_packed_timeline_is_the_same():
    job, ledger = make_job(TerminalState, job_id="j1"), HeldJournal()
    ledger.record("j1", Ordered(1.0, "u", {}, "", "d"))
    ledger.sync()
    timelines = Timelines(ledger, Clock(), maybeDeferred)
    plain, packed = (
        Deferred.fromCoroutine(timelines.read(job, None, None, True, packed)).result
        for packed in (False, True)
    )
    assert gzip.decompress(packed) == plain


def refusal(ledger):
    told = read(ledger, make_job(TerminalState, job_id="j1"))
    failure = []
    told.addErrback(failure.append)
    assert failure[0].check(NoTimeline)
    return failure[0].getErrorMessage()


def test_without_a_journal_a_sentence_says_so():
    says = refusal(NoJournal())
    assert says.startswith("job j1 has no timeline: it is drawn from the journal")
    assert "[journal] enabled = no" in says


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([], "the records of job j1 are no longer in the journal (see keep_days"),
        (['["gone"]'], "the records of job j1 are damaged: '[\"gone\"]' is not a record"),
    ],
)
def test_records_that_are_gone_or_damaged_are_said_to_be_so(lines, why):
    ledger = HeldJournal([("j1", line) for line in lines])
    assert why in refusal(ledger)
