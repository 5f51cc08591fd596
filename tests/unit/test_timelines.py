"""Timelines of the journal's jobs: read in a thread, or a sentence why there is none."""

import json

import pytest
from kit.journal import HeldJournal
from kit.parts import make_job
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.task import Clock

from mu.jobs.timelines import AT_ONCE, NoTimeline, Timelines
from mu.journal.ledger import NoJournal
from mu.journal.records import Ordered, Planned
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
    job, ledger = make_job(TerminalState, job_id="j1"), HeldJournal()
    ledger.record("j1", Ordered(1.0, "u", {}, "", "d"))
    ledger.sync()
    running = []

    def in_thread(call):
        running.append((Deferred(), call))
        return running[-1][0]

    timelines = Timelines(ledger, Clock(), in_thread)
    asked = [
        Deferred.fromCoroutine(timelines.read(job, None, None, False)) for _ in range(AT_ONCE + 2)
    ]
    for one in asked:
        one.addErrback(lambda failure: failure.trap(CancelledError))
    assert len(running) == AT_ONCE
    asked[0].cancel()
    asked[AT_ONCE].cancel()
    assert len(running) == AT_ONCE, "its thread still works"
    for made, call in running:
        made.callback(call())
    assert len(running) == AT_ONCE + 1
    assert json.loads(asked[-1].result)["id"] == "j1"


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
