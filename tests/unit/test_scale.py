"""What an event costs does not grow with the number of actors."""

import gc
import json
import sys
from functools import partial

import pytest
from kit.parts import new_job
from kit.states import Two, hello

from mu.jobs.book import JobBook, PastJob
from mu.jobs.spares import Spares
from mu.journal.records import Planned
from mu.plugins import Pipeline
from mu.states import CommandListState

FEW, MANY = 100, 10_000


class Linked(Pipeline):
    """Each actor needs the state of the one before it."""

    name, description, uses_relay = "linked", "For tests.", True

    def neighbour(self, params, actor):
        return actor - 1 if actor else None

    def begin(self, worker):
        return Passing(worker, worker.actor)


class Passing(CommandListState):
    commandlist = (("OK:HELLO", "run:x"), ("OK:RETVAL", "quit:"))


def operations(call):
    """Return how many bytecode instructions a call executes, in all that it calls."""
    count = 0

    def trace(frame, event, arg):
        nonlocal count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    gc.disable()  # it would also run what other tests have left behind
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
        gc.enable()
    return count


class Line:
    """The connection of a worker, which hears nothing."""

    peer = "here"

    def __init__(self, session=""):
        self.hello = hello(session)
        self.session = None

    def adopt(self, session):
        self.session = session

    def write(self, data):
        pass

    wait = read_on = goodbye = lambda self: None
    supersede = dismiss = lambda self, reason: None


class Course:
    """A job of so many actors, of which twenty have a worker."""

    def __init__(self, actors, pipeline=None, **spec):
        given = {} if pipeline is None else {"pipeline": pipeline}
        self.job = new_job(Two, actors, ends=False, **given, **spec)
        self.job.record(Planned([{} for _ in range(actors)], list(range(actors))))
        self.job.begin()
        self.lines = [self.join(f"{n:04x}") for n in range(20)]

    def join(self, session):
        line = Line(session)
        self.job.join(line.hello, line)
        return line


def join(course):
    course.join("ffff")


def reply(course):
    course.lines[3].session.receive(b"RE:1:OK:ECHO(1)")


def done(course):
    course.lines[4].session.receive(b"RE:1:OK:ECHO(1)")
    course.lines[4].session.receive(b"RE:2:OK:ECHO(2)")


def fail(course):
    course.lines[5].session.receive(b"RE:1:FAIL(no)")


def lose(course):
    line = course.lines[6]
    line.session.detach(line, "it was lost")
    course.job.leave(line, line.hello)


def advance(course):
    course.job.advance()


EVENTS = [join, reply, done, fail, lose, advance]


@pytest.mark.parametrize("pipeline", [None, Linked()], ids=["plain", "linked"])
def test_an_event_costs_no_more_among_many_actors_than_among_few(pipeline):
    few, many = (Course(actors, pipeline, retries=0, tolerate=50) for actors in (FEW, MANY))
    for event in EVENTS:
        usual, now = (operations(partial(event, course)) for course in (few, many))
        assert now < 1.1 * usual + 100, event.__name__


def test_a_spare_that_comes_back_costs_no_more_among_many_than_among_few():
    costs = []
    for count in FEW, MANY:
        spares = Spares()
        for number in range(count):
            spares.add(Line(), hello(f"{number:04x}"))
        again = hello("0007")
        costs.append(operations(lambda spares=spares, again=again: spares.replace(again)))
        assert len(spares) == count - 1
    assert costs[1] == costs[0]


def test_a_job_costs_no_more_among_many_that_ended_than_among_few():
    costs = []
    for ended in FEW, MANY:
        book = JobBook(keep=MANY + 1)
        for number in range(ended):
            told = {
                "id": str(number),
                "pipeline": "one",
                "workers": 1,
                "state": "done",
                "created": 0,
            }
            book.add(PastJob(json.dumps(told), '{"key":"k"}', str))
        job = new_job(Two, key="mine")
        costs.append(operations(lambda book=book, job=job: (book.add(job), book.with_key("mine"))))
    assert costs[1] == costs[0]
