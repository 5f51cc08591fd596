"""For authors of pipelines: try one without a network.

    from mu.testing import FakeWorker, run, talk

    assert talk(Greet, "OK:HELLO") == [Send("echo:hi")]
    job = run(my_pipeline, {"bucket": "b"}, FakeWorker({"run:": "OK:RETVAL(1):OUTPUT(no):COMMAND()"}))
    assert job.actors[0].error

`talk` is a dialogue: answers in, effects out. `run` plays a whole job, its plan and finish
included, against a worker that answers as a real one would.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mu.events import Answered, Effect, Elapsed, Entered, Event, Finish, Informed, Send, SetTimer
from mu.machine import Machine
from mu.messages import HELLO, Command, parse_info
from mu.parameters import Params, read_fields
from mu.states.context import JobFacts
from mu.states.script import ScriptWorker, first_state

ENOUGH = 1_000_000
"""A fake worker that was given so many commands is in a loop."""


def machine(
    first: Any, params: Any = None, actor: int = 0, given: Mapping[str, Any] | None = None
) -> Machine:
    """Return a machine whose first state is of the class `first`, or what `first(worker)` gives."""
    worker = ScriptWorker(JobFacts("j1", params or {}), actor, given)
    begin = (lambda worker: first(worker, worker.actor)) if isinstance(first, type) else first
    return Machine(worker, first_state(begin))


def talk(first: Any, *answers: str | Event, **about: Any) -> list[Effect]:
    """Return all effects of a machine that is told these answers, one second apart.

    `about` may have `params`, `actor` and `given` (the actor's input).
    """
    return effects_of(machine(first, **about), *answers)


def effects_of(driven: Machine, *answers: str | Event) -> list[Effect]:
    """Enter the machine, tell it the answers, and return all effects."""
    effects = driven.receive(Entered(0.0))
    for at, answer in enumerate(answers, 1):
        effects += driven.receive(event(answer, float(at)) if isinstance(answer, str) else answer)
    return effects


def event(text: str, at: float, command: int = 0) -> Event:
    """Return the event of a reply: Informed for an INFO, else Answered."""
    info = parse_info(text)
    return Informed(at, *info, command) if info else Answered(at, text, command)


# ---------------------------------------------------------------- a worker, and whole jobs

Answers = Mapping[str, str | list[str] | Callable[[str], str | list[str]]]


class FakeWorker:
    """Answers each command at once, as a worker would that succeeds at everything.

    `answers` says otherwise for commands that begin with a key: a reply, a list of them, or a
    function of the command that returns either. The longest key counts.
    """

    def __init__(self, answers: Answers | None = None) -> None:
        self._answers = dict(answers or {})
        self._variables: dict[str, str] = {}

    def answer(self, command: str) -> list[str]:
        """Return the replies to a command."""
        keys = [key for key in self._answers if command.startswith(key)]
        if keys:
            answer = self._answers[max(keys, key=len)]
            told = answer(command) if callable(answer) else answer
            return [told] if isinstance(told, str) else list(told)
        return self._succeed(Command(command))

    def _succeed(self, command: Command) -> list[str]:
        name, argument = command.name, command.argument
        key, _, value = argument.partition(":")
        match name:
            case "set" | "seti":
                self._variables[key] = value
                return [f"OK:{name.upper()}({key})"]
            case "get":
                return [f"OK:GET({self._variables.get(argument, '')})"]
            case "geti":
                value = self._variables.get(argument, "0")
                return [f"INFO:{argument}:{value}", f"OK:GETI({argument})"]
            case "run":
                last = f"OK:RETVAL(0):OUTPUT():COMMAND({argument})"
                return self._slow(f"OK:RUNNING({argument})", last)
            case "retrieve":
                return self._slow("OK:RETRIEVING(bucket/key->file)", "OK:RETRIEVE(bucket/key)")
            case "upload":
                return self._slow("OK:UPLOADING(file->bucket/key)", "OK:UPLOAD(bucket/key)")
            case "echo" | "connect":
                return [f"OK:{name.upper()}({argument})"]
            case "close_connect" | "dump_vals":
                return [f"OK:{name.upper()}"]
            case "quit":
                return []
        return [f"FAIL(no such command '{command.text}')"]

    def _slow(self, started: str, ended: str) -> list[str]:
        on = {"nonblock", "bg_silent"} & {
            name for name, value in self._variables.items() if value not in ("0", "")
        }
        return [started, ended] if on == {"nonblock"} else [ended]


@dataclass(slots=True)
class Played:
    """One actor's course."""

    commands: list[str] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    effects: list[list[Effect]] = field(default_factory=list)
    """For each event."""
    finish: Finish | None = None
    """How it ended; None: it waits for something that never comes."""


@dataclass(frozen=True, slots=True)
class PlayedJob:
    actors: list[Played]
    result: Any


def play(driven: Machine, worker: FakeWorker | None = None) -> Played:
    """Drive a machine to its end with a fake worker; its timers elapse when all else is done."""
    worker = worker or FakeWorker()
    played = Played()
    at, number = 0.0, 0
    coming: list[Event] = [Entered(at), Answered(at, HELLO)]
    timers: dict[str, float] = {}
    while played.finish is None and (coming or timers):
        if not coming:
            name = min(timers, key=lambda name: timers[name])
            at = max(at, timers.pop(name))
            coming.append(Elapsed(at, name))
        happened = coming.pop(0)
        effects = driven.receive(happened)
        played.events.append(happened)
        played.effects.append(effects)
        for effect in effects:
            match effect:
                case Send(command=command):
                    number += 1
                    at += 1.0
                    played.commands.append(command)
                    coming += [event(text, at, number) for text in worker.answer(command)]
                case SetTimer(timer=name, seconds=seconds):
                    timers[name] = at + seconds
                case Finish():
                    played.finish = effect
                case _:
                    timers.pop(effect.timer, None)
        if number > ENOUGH:
            raise OverflowError(f"over {ENOUGH} commands, and no end")
    return played


def run(
    pipeline: Any, params: Mapping[str, Any] | None = None, worker: Any = None, workers: int = 1
) -> PlayedJob:
    """Play a job of the pipeline: plan, each actor with a fake worker of its own, finish.

    `worker` is a FakeWorker's answers, or a function that returns a FakeWorker for an actor.
    """
    given = Params(read_fields(pipeline.parameters, params or {}), workers=workers)
    inputs = pipeline.plan(given)
    facts = JobFacts("j1", given, len(inputs), "127.0.0.1:13337", "uniq")
    actors = []
    for number, one in enumerate(inputs):
        driven = Machine(ScriptWorker(facts, number, one), first_state(pipeline.begin))
        fake = worker(number) if callable(worker) else FakeWorker(worker)
        actors.append(play(driven, fake))
    outcomes = [actor.finish or Finish("it waits for ever") for actor in actors]
    return PlayedJob(actors, pipeline.finish(facts, outcomes))
