"""Jobs and the book that keeps them."""

import sys

import pytest
from kit import parts
from kit.journal import HeldJournal
from kit.parts import Port, Reactor, make_job, new_job
from twisted.internet.base import DelayedCall

from mu.jobs.book import JobBook
from mu.journal.allowance import JobAllowance
from mu.journal.records import Counted, Planned
from mu.messages import Hello
from mu.states import MachineState, TerminalState


class Person:
    """A worker's connection that keeps what it was told."""

    peer = "here"

    def __init__(self):
        self.told = []

    def adopt(self, session):
        self.told.append(session.part.actor_number)

    def write(self, data):
        pass

    def read_on(self):
        pass

    def goodbye(self):
        self.told.append("quit")

    def supersede(self, reason):
        self.told.append(reason)

    def wait(self):
        self.told.append("wait")

    def dismiss(self, reason):
        self.told.append(reason)


def ended(job):
    job.stop("cancelled", "enough")
    assert job.ended
    return job


def test_workers_get_actors_in_the_order_in_which_they_come():
    job = make_job(MachineState, workers=3)
    people = [Person() for _ in range(4)]
    for person in people:
        job.join(Hello(), person)
    assert [person.told for person in people] == [
        [0],
        [1],
        [2],
        ["job j1 has no actor without a worker"],
    ]
    assert job.dismissed == 1


def test_a_job_fails_with_a_sentence_for_each_different_error_of_its_actors():
    job = make_job(MachineState, workers=8, ends=False, engine="made up")
    for launch in job.launches:
        job.answered(launch, "accepted")
    job.clock.advance(121)  # type: ignore[attr-defined]
    job.check("no worker connected")
    assert job.failures() == (
        "8 of 8 actors failed: actors 0, 1, 2, 3, 4 and 3 more: no worker connected"
    )


def test_a_stopped_job_ends_once_and_dismisses_who_comes_later():
    job = make_job(TerminalState)
    job.stop("failed", "out of time")
    job.stop("cancelled", "again")
    late = Person()
    job.join(Hello(), late)
    assert (job.state, job.error) == ("failed", "out of time")
    assert late.told == ["job j1 has ended"]


def test_the_end_of_a_job_takes_one_commit_however_many_workers_it_dismissed():
    job = make_job(MachineState)
    job.ledger = journal = HeldJournal()
    seat = Seat()
    job.join(Hello("aa"), seat)
    job.join(Hello("bb"), Person())
    job.count("throttled")
    journal.sync()
    seat.session.give_up("its worker is gone")
    journal.sync()  # the actor's end
    assert (job.counts["failed"], job.state) == (1, "running")
    journal.sync()  # the job's
    assert job.state == "done"
    assert (job.dismissed, job.launches.counts) == (1, {"throttled": 1})


def test_the_book_forgets_the_oldest_jobs_that_ended_and_no_other():
    book = JobBook(keep=2)
    running = make_job(TerminalState, job_id="running")
    book.add(running)
    for n in range(4):
        book.add(ended(make_job(TerminalState, job_id=f"old{n}")))
    assert [job.id for job in book.all()] == ["running", "old2", "old3"]
    assert book.get("old0") is None


def test_a_worker_of_an_unknown_job_is_dismissed():
    book, person = JobBook(), Person()
    book.join("nothing", Hello(), person)
    assert person.told == ["job nothing is not known"]


# ---------------------------------------------------------------- many actors


def calls(action):
    """Return how many functions an action calls."""
    count = 0

    def counted(frame, event, arg):
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(counted)
    try:
        action()
    finally:
        sys.setprofile(before)
    return count


class Silent(Reactor):
    """A clock that calls nobody; task.Clock sorts all calls for each new one."""

    def callLater(self, delay, callable, *args, **kw):
        due = self.seconds() + delay
        return DelayedCall(due, callable, args, kw, lambda _: None, lambda _: None, self.seconds)


class Seat(Person):
    """A worker's connection whose session can be asked for."""

    def adopt(self, session):
        self.session = session


def overdue(actors):
    job = make_job(MachineState, actors, ends=False, engine="made up", retries=0)
    for launch in list(job.launches):
        job.answered(launch, "accepted")
    job.clock.advance(121)  # type: ignore[attr-defined]
    return job, lambda: job.check("no worker connected")


def seated(actors, **spec):
    job = make_job(MachineState, actors, ends=False, engine="made up", **spec)
    seats = [Seat() for _ in range(actors)]
    for number, (seat, launch) in enumerate(zip(seats, list(job.launches), strict=True)):
        job.join(Hello(f"{number:x}", launch), seat)
    return job, seats


def stopped(actors):
    job, _ = seated(actors)
    return job, lambda: job.stop("failed", "enough")


def failing(actors):
    job, seats = seated(actors, retries=0)
    return job, lambda: [seat.session.give_up("its worker is gone") for seat in seats]


def failing_and_retried(actors):
    job, seats = seated(actors, retries=1)

    def fail():
        for seat in seats:
            seat.session.give_up("its worker is gone")
        job.clock.advance(601)
        job.check("no worker connected")

    return job, fail


@pytest.mark.parametrize(
    ("scene", "actors"),
    [(overdue, 5000), (stopped, 1000), (failing, 1000), (failing_and_retried, 1000)],
)
def test_thousands_of_actors_that_fail_at_once_take_linear_work_and_no_deep_stack(
    scene, actors, monkeypatch
):
    monkeypatch.setattr(parts, "Reactor", Silent)
    few, act = scene(actors // 10)
    work = calls(act)
    assert few.counts["failed"] == actors // 10
    many, act = scene(actors)
    assert calls(act) < 11 * work
    assert many.counts["failed"] == actors


def test_a_worker_that_would_fill_the_disk_fails_its_actor_and_no_other():
    job = new_job(MachineState, workers=2)
    job.allowance = JobAllowance(2**20, 2000)
    job.ledger = journal = HeldJournal()
    job.record(Planned([{}, {}], [0, 1]))
    job.begin()
    port = Port(job)
    hostile, good = (port.join(hello=Hello(name)) for name in ("aa", "bb"))
    journal.sync()
    for _ in range(3):
        hostile.say(b"RE:0:INFO:k:" + b"x" * 900)
    journal.sync()
    assert hostile.heard[-1] == b"quit:"
    assert [actor.state for actor in job.actors] == ["failed", "running"]
    assert "more than 2000 bytes in the journal (max_attempt_bytes" in job.actors[0].error
    good.say(b"RE:0:INFO:k:1")
    assert good.open
    assert sum(map(len, journal.lines("j1"))) < 4000


def test_a_job_that_has_used_up_its_place_in_the_journal_ends_at_once():
    job = new_job(MachineState, workers=2)
    job.allowance = JobAllowance(2000, 2**20)
    job.ledger = journal = HeldJournal()
    job.record(Planned([{}, {}], [0, 1]))
    job.begin()
    port = Port(job)
    hostile, other = (port.join(hello=Hello(name)) for name in ("aa", "bb"))
    journal.sync()
    for _ in range(3):
        hostile.say(b"RE:0:INFO:k:" + b"x" * 900)
    journal.sync()
    journal.sync()
    assert [line.heard[-1] for line in (hostile, other)] == [b"quit:"] * 2
    assert (job.stopped.state, job.stopped.reason) == (
        "failed",
        "the replies of this job's workers take more than 2000 bytes in the journal"
        " (max_job_bytes in mu.conf)",
    )
    assert [actor.tried for actor in job.actors] == [1, 1]


def test_any_number_of_surplus_workers_by_hand_adds_one_record_a_second():
    job = make_job(MachineState)
    job.ledger = journal = HeldJournal()
    port = Port(job)
    port.join(hello=Hello("aa"))
    journal.sync()
    before = len(journal.records)
    for number in range(50):
        line = port.join(hello=Hello(f"b{number}"))
        journal.sync()
        assert line.heard == [b"quit:"]
    assert len(journal.records) == before
    job.keep_records()
    assert [type(record) for record in journal.records[before:]] == [Counted]
    assert (journal.records[-1].dismissed, job.dismissed) == (50, 50)
