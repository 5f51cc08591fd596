"""The properties P1 to P9 of the exhaustive model of the session rules, checked on the code.

P10 is that of stages: an actor begins with the results of those before it, or fails with them.

All but P4 (every job ends) are checked whenever something is written, received or shown.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kit.journal import HeldJournal
from kit.model.session_ends import Body, Breach
from kit.parts import OneState, recorded_job
from mu.events import Answered, CancelTimer, Elapsed, Entered, Informed, Send, SetTimer
from mu.jobs.job import Job
from mu.jobs.recovery import recover
from mu.jobs.spec import JobSpec
from mu.journal.records import Assigned, AttemptEnded, Happened, NobodyCame, Skipped
from mu.journal.replay import Diverged, step
from mu.machine import Machine
from mu.plugins import Staged
from mu.states.context import JobFacts
from mu.states.script import ScriptWorker, first_state


@dataclass(frozen=True, slots=True)
class Mix:
    """How often each thing may go wrong in a schedule."""

    cuts: int = 0
    crashes: int = 0
    kills: int = 0
    waits: int = 0
    """Waits long enough for living workers to be given up."""
    twins: int = 0
    """Workers that have the launch id of another."""
    infos: int = 2
    fails: int = 0
    """Commands that the worker answers with FAIL."""
    stops: int = 0
    """Clean restarts of the coordinator."""
    cancels: int = 0
    actors: int = 1
    spares: int = 0
    retries: int = 100
    on_failure: str = "finish"
    stragglers: float = 0.0
    tolerate: int = 0
    after: tuple[tuple[int, ...], ...] = ()
    """For each actor, those that it waits for; empty: no actor waits."""
    ahead_s: float = 0.0
    journal: bool = True
    diverges: bool = False
    """Whether machines may diverge: that costs an attempt, and nothing else."""

    @property
    def loses_workers(self) -> bool:
        return bool(self.kills or self.waits)


class OfMix(OneState):
    """A pipeline whose actors begin with one state class, and wait for others as the mix says."""

    def __init__(self, first: Any, mix: Mix) -> None:
        super().__init__(first)
        self._after = mix.after

    def plan(self, params: Any) -> Any:
        return [Staged({}, after) for after in self._after] or super().plan(params)


@dataclass(slots=True)
class Course:
    """An attempt according to the journal, replayed as it is written."""

    worker: str
    machine: Machine
    commands: list[str] = field(default_factory=list)
    entered: bool = False
    heard: int = -1
    """Replies received; the first is the hello, which does not count."""
    timers: dict[str, float] = field(default_factory=dict)
    """The earliest time at which each may elapse."""
    end: AttemptEnded | None = None


class Properties:
    """Everything seen of one job, and whether it violates a property."""

    def __init__(self, mix: Mix, begin: Callable[..., Any], bodies: Mapping[str, Body]) -> None:
        self.breach: Breach | None = None
        """The first one. It is not raised at once, because mu would treat it as a fault of its own."""
        self._mix = mix
        self._pipeline = OneState(begin)
        self._ends: dict[int, Any] = {}  # results of the actors that have ended; None: it failed
        self._spent: Counter[int] = Counter()
        self._bodies = bodies
        self._courses: dict[tuple[int, int], Course] = {}
        self._players: dict[tuple[int, int], str] = {}  # who was welcomed to an attempt
        self._shown: dict[Any, Any] = {}

    def accuse(self, words: str) -> None:
        self.breach = self.breach or Breach(words)

    # ------------------------------------------------ what is written

    def see_crash(self, disk: HeldJournal) -> None:
        """Forget what the disk lost."""
        self._courses.clear()
        self._ends.clear()
        self._spent.clear()
        for record in disk.records:
            self.see_record(record)

    def see_record(self, record: Any) -> None:
        """Check a record that is written, or read again after a crash."""
        try:
            self._check_record(record)
        except Breach as error:
            self.breach = self.breach or error

    def _check_record(self, record: Any) -> None:
        match record:
            case Assigned(actor=actor, attempt=attempt, session=session):
                if any(course.worker == session for course in self._courses.values()):
                    raise Breach(f"P3 worker {session} has a second attempt")
                self._courses[actor, attempt] = Course(session, self._machine(actor))
            case Happened(actor=actor, attempt=attempt):
                self._see_event(self._courses[actor, attempt], record)
            case AttemptEnded(actor=actor, attempt=attempt, error=error):
                course = self._courses[actor, attempt]
                if course.end is not None:
                    raise Breach(f"P3 attempt {attempt} ends again: {course.end}, {record}")
                course.end = record
                self._see_loss(error)
                self._see_end(actor, error, record.result, record.charged)
            case NobodyCame(actor=actor, error=error):
                self._see_loss(error)
                self._see_end(actor, error)
            case Skipped(actor=actor):
                self._see_skip(actor)

    def _awaited(self, actor: int) -> tuple[int, ...]:
        """Return the actors that this one waits for."""
        return self._mix.after[actor] if self._mix.after else ()

    @property
    def _excess(self) -> bool:
        """Whether more actors have failed than are tolerated."""
        return list(self._ends.values()).count(None) > self._mix.tolerate

    def _see_end(
        self, actor: int, error: str | None, result: Any = None, charged: bool = True
    ) -> None:
        """Note the end of an attempt, and whether it is that of its actor."""
        if actor in self._ends:
            return
        self._spent[actor] += charged and error is not None
        runs = any(of == actor and not one.end for (of, _), one in self._courses.items())
        if error is None or (not runs and self._spent[actor] > self._mix.retries):
            self._ends[actor] = result

    def _see_skip(self, actor: int) -> None:
        failed = [one for one in self._awaited(actor) if self._ends.get(one, 0) is None]
        if actor in self._ends or any(of == actor for of, _ in self._courses):
            raise Breach(f"P10 actor {actor} had begun, and is failed without an attempt")
        if not (failed and self._excess):
            raise Breach(f"P10 actor {actor} is failed, but nothing before it was: {self._ends}")
        self._ends[actor] = None

    def _machine(self, actor: int) -> Machine:
        """Return the machine of an attempt that begins now."""
        early = [one for one in self._awaited(actor) if one not in self._ends]
        if early:
            raise Breach(f"P10 actor {actor} begins, and {early} have not ended")
        before = {one: self._ends[one] for one in self._awaited(actor)}
        first = not any(of == actor for of, _ in self._courses)
        if first and None in before.values() and self._excess:
            raise Breach(f"P10 actor {actor} begins, though others failed: {before}")
        worker = ScriptWorker(JobFacts("", {}), actor, {}, before or None)
        return Machine(worker, first_state(self._pipeline.begin))

    def _see_event(self, course: Course, record: Happened) -> None:
        if course.end is not None:
            raise Breach(f"P3 {record} came after the end: {course.end}")
        try:
            event, effects = step(course.machine, record)
        except Diverged as error:
            raise Breach(f"P7 what was written cannot be replayed: {error}") from error
        body = self._bodies[course.worker]
        match event:
            case Entered():
                if course.entered:
                    raise Breach(f"worker {body.name}'s machine begins again")
                course.entered = True
            case Answered(text=text, command=number):
                self._see_reply(course, body, (number, text))
            case Informed(key=key, value=value, command=number):
                self._see_reply(course, body, (number, f"INFO:{key}:{value}"))
            case Elapsed(timer=timer, at=at):
                if course.timers.pop(timer, math.inf) > at:
                    raise Breach(f"{event} came too early, or again, or was cancelled")
        for effect in effects:
            match effect:
                case Send(command=command):
                    course.commands.append(command)
                    self._compare(course, body, len(course.commands) - 1)
                case SetTimer(timer=timer, seconds=seconds):
                    course.timers[timer] = event.at + seconds
                case CancelTimer(timer=timer):
                    course.timers.pop(timer, None)

    def _see_reply(self, course: Course, body: Body, heard: tuple[int, str]) -> None:
        course.heard += 1
        if course.heard == 0:
            return  # the hello
        said = body.said[course.heard - 1 : course.heard]
        if said != [heard]:
            raise Breach(f"P2 {heard} was heard; worker {body.name} said {said}")

    # ------------------------------------------------ what workers receive

    def see_command(self, body: Body) -> None:
        """A worker received a command."""
        place = len(body.received) - 1
        text = body.received[place]
        if text.split(":")[1] != str(place + 1):
            raise Breach(f"P1 worker {body.name} received {text} as its command {place + 1}")
        for course in self._courses.values():
            if course.worker == body.name:
                self._compare(course, body, place)

    def _compare(self, course: Course, body: Body, place: int) -> None:
        """Compare a command, if both the worker and the journal have it."""
        if self._mix.diverges:
            return
        if place < len(body.received) and place < len(course.commands):
            received, command = body.received[place], course.commands[place]
            if received != command:
                raise Breach(
                    f"P7 worker {body.name} received {received}, and the machine says {command}"
                )

    def see_welcome(self, body: Body) -> None:
        session = body.session
        if session.actor is not None:
            part = session.actor, session.attempt
            if self._players.setdefault(part, body.name) != body.name:
                raise Breach(f"P3 attempt {part} has workers {self._players[part]} and {body.name}")

    # ------------------------------------------------ what is lost, and what is shown

    def _see_loss(self, error: str | None) -> None:
        words = ["another attempt at its actor finished first"]
        if self._mix.loses_workers:
            words += [
                "did not come back",
                "took longer than",
                "no worker connected",
                "did not accept",
            ]
        if self._mix.diverges:
            words.append("its worker received")
        if self._mix.fails:
            words.append("FAIL(it)")
        if self._mix.cancels:
            words.append("cancelled by request")
        if error is not None and not any(known in error for known in words):
            raise Breach(f"P8 an attempt was lost: {error}")

    def look(self, job: Any, resuming: bool) -> None:
        """What users were shown must not change."""
        if self.breach is not None:
            raise self.breach
        if job is None:
            raise Breach("P5 the job is gone")
        if job.ended:
            shown = ("state", "result", "error", "inputs")
            self._show("job", {key: job.describe()[key] for key in shown})
        if isinstance(job, Job):
            for actor in job.actors:
                if actor.state in ("done", "failed"):
                    self._show(
                        actor.number, (actor.state, actor.result, actor.error, actor.tally())
                    )
                elif actor.number in self._shown and not (
                    actor.outcome and actor.outcome.result == self._shown[actor.number][1]
                ):
                    raise Breach(f"P5 actor {actor.number} was shown to have ended, and has not")
            stops = self._mix.on_failure == "stop" and not resuming
            if stops and job.counts["failed"] and job.active:
                raise Breach("an actor has failed, and the job goes on")
        if "job" in self._shown and not job.ended:
            raise Breach("P5 the job was shown to have ended, and has not")

    def _show(self, what: Any, how: Any) -> None:
        if self._shown.setdefault(what, how) != how:
            raise Breach(f"P5 {what} was shown as {self._shown[what]}, and is {how}")

    def look_back(self, job: Any, disk: HeldJournal, spec: JobSpec) -> None:
        """At the end: the winning attempts replay, and their workers received just those commands."""
        again = recorded_job(spec, job.id)
        recover(again, disk.records[1:], 0.0)
        result = job.describe()["result"]
        for actor in again.actors:
            if actor.outcome is None:
                if again.stopped is not None:
                    continue  # it was stopped before that actor had a worker
                raise Breach(f"P5 actor {actor.number} has not ended, by the journal")
            if result and actor.outcome.result != result[actor.number]:
                raise Breach(f"P5 actor {actor.number} has another result, by the journal")
            courses = [course for (of, _), course in self._courses.items() if of == actor.number]
            winners = [course for course in courses if course.end and not course.end.error]
            if len(winners) != (actor.outcome.error is None):
                raise Breach(f"P5 actor {actor.number} is done by {len(winners)} attempts")
            for course in winners:
                self._compare_all(course, self._bodies[course.worker].received)

    @staticmethod
    def _compare_all(course: Course, received: list[str]) -> None:
        """Everything was received, except for a quit that may have been lost."""
        commands = course.commands
        quits = bool(commands) and commands[-1].startswith("quit:")
        if received not in (commands, commands[:-1] if quits else commands):
            raise Breach(f"P7 {received} was received, and the machine says {commands}")
