"""Jobs and the book that keeps them."""

import pytest
from kit.parts import make_job

from mu.jobs.actors import Tail
from mu.jobs.book import JobBook
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


def test_a_job_fails_with_a_sentence_for_the_first_actors_that_did():
    job = make_job(MachineState, workers=8, ends=False, engine="made up")
    for launch in job.launches:
        job.answered(launch, "accepted")
    job.clock.advance(121)  # type: ignore[attr-defined]
    job.check("nobody came")
    assert job.failures() == (
        "8 of 8 actors failed: "
        + "; ".join(f"actor {n}: nobody came" for n in range(5))
        + "; and 3 more"
    )


def test_a_stopped_job_ends_once_and_dismisses_who_comes_later():
    job = make_job(TerminalState)
    job.stop("failed", "out of time")
    job.stop("cancelled", "again")
    late = Person()
    job.join(Hello(), late)
    assert (job.state, job.error) == ("failed", "out of time")
    assert late.told == ["job j1 has ended"]


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


@pytest.mark.parametrize("pieces", [[b"abcdefgh"], [b"abcd", b"efgh"], [b"a"] * 3 + [b"defgh"]])
def test_a_tail_keeps_the_end_and_counts_the_rest(pieces):
    tail = Tail(4)
    for piece in pieces:
        tail.write(piece)
    assert bytes(tail) == b"efgh"
    assert tail.end == 8
    assert [tail.since(start) for start in (0, 4, 6, 8, 99)] == [b"efgh", b"efgh", b"gh", b"", b""]
