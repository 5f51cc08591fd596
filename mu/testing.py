"""For authors of pipelines: test a pipeline without a network.

`talk` is a dialogue: replies in, effects out.

>>> from mu.events import Finish, Send
>>> from mu.states import OnePassState
>>> from mu.testing import FakeWorker, run, talk
>>> class Greet(OnePassState):
...     expect = "OK:HELLO"
...     command = "echo:hi"
>>> assert talk(Greet, "OK:HELLO") == [Send("echo:hi"), Finish()]

`run` plays a whole job, including its plan and finish, with a worker that replies as a real one
would. Its commands succeed unless you give other replies.

>>> from mu.pipelines.vpxenc import vpxenc
>>> job = run(vpxenc, {"bucket": "b"}, FakeWorker({"retrieve:": "FAIL(no such key)"}))
>>> job.actors[0].commands[0]
'seti:nonblock:0'
>>> job.actors[0].finish.error
"Encode (encoding): the worker answered 'FAIL(no such key)'"
"""

import copy
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mu.events import Answered, Effect, Elapsed, Entered, Event, Finish, Informed, Send, SetTimer
from mu.jobs.plan import arrange
from mu.jobs.stages import Results, Stages
from mu.machine import Machine
from mu.messages import HELLO, Command, parse_info
from mu.parameters import Params, read_fields
from mu.plugins import JobFailed, Outcome, Pipeline
from mu.states.base import MachineState
from mu.states.context import JobFacts, Progress, State
from mu.states.script import Script, ScriptWorker, first_state
from mu.states.spelling import misspelt, package_of

__all__ = [
    "FakeWorker",
    "PlayedActor",
    "PlayedJob",
    "effects_of",
    "event",
    "machine",
    "play",
    "run",
    "talk",
]

COMMAND_LIMIT = 1_000_000
"""The most commands for a fake worker. A machine that sends more is in an endless loop."""

FirstState = type[MachineState] | Callable[[ScriptWorker], State | Script]
"""The class of the first state, or a function like Pipeline.begin."""


def machine(
    first: FirstState,
    params: Mapping[str, object] | None = None,
    actor: int = 0,
    given: Mapping[str, object] | None = None,
) -> Machine:
    """Return a machine that begins with `first`; `given` is the actor's input."""
    worker = ScriptWorker(JobFacts("j1", Params(params or {})), actor, given)
    if isinstance(first, type):
        _warn(misspelt(first.__module__))
        return Machine(worker, lambda worker: first(worker, worker.actor))
    return Machine(worker, first_state(first))


def talk(
    first: FirstState,
    *answers: str | Event,
    params: Mapping[str, object] | None = None,
    actor: int = 0,
    given: Mapping[str, object] | None = None,
    numbered: bool = False,
) -> list[Effect]:
    """Return all effects of a machine that gets these replies, one second apart.

    `numbered`: its worker numbers its replies. Those that are texts here still have no number.
    """
    return effects_of(machine(first, params, actor, given), *answers, numbered=numbered)


def effects_of(driven: Machine, *answers: str | Event, numbered: bool = False) -> list[Effect]:
    """Enter the machine, give it the replies, and return all effects."""
    effects = driven.receive(Entered(0.0, numbered))
    for at, answer in enumerate(answers, 1):
        effects += driven.receive(event(answer, float(at)) if isinstance(answer, str) else answer)
    return effects


def event(text: str, at: float, command: int = 0) -> Event:
    """Return the event of a reply: Informed for an INFO, otherwise Answered."""
    info = parse_info(text)
    return Informed(at, *info, command) if info else Answered(at, text, command)


# ---------------------------------------------------------------- a worker, and whole jobs

Answers = Mapping[str, str | list[str] | Callable[[str], str | list[str]]]


class FakeWorker:
    """Replies to each command at once, as a worker whose commands all succeed.

    `answers` has other replies for commands that begin with a key: a reply, a list of replies, or
    a function of the command that returns either. The longest matching key is used.
    """

    def __init__(self, answers: Answers | None = None, numbered: bool = True) -> None:
        """`numbered=False`: as a worker of the original mu, which does not number its replies."""
        self.numbered = numbered
        self._answers = dict(answers or {})
        self._variables: dict[str, str] = {}

    def answer(self, command: str) -> list[str]:
        """Return the replies to a command."""
        keys = [key for key in self._answers if command.startswith(key)]
        if keys:
            answer = self._answers[max(keys, key=len)]
            replies = answer(command) if callable(answer) else answer
            return [replies] if isinstance(replies, str) else list(replies)
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
            case "get_blob":
                return ["OK:GET_BLOB(0)"]
            case "put_blob":
                return [f"OK:PUT_BLOB({'0' * 64}:0)"]
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
class PlayedActor:
    """The events of an actor's machine, and its effects."""

    commands: list[str] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    effects: list[list[Effect]] = field(default_factory=list)
    """The effects of each event."""
    finish: Finish | None = None
    """How it ended; None: it waits for something that never happens."""
    progress: list[Progress] = field(default_factory=list)
    """What it told users of its progress, as it changed."""


@dataclass(frozen=True, slots=True)
class PlayedJob:
    """The actors of a job, its result, and why `finish` failed it, if it did."""

    actors: list[PlayedActor]
    result: Any
    error: str | None = None


def play(driven: Machine, worker: FakeWorker | None = None) -> PlayedActor:
    """Drive a machine to its end with a fake worker. Timers elapse when nothing else happens."""
    worker = worker or FakeWorker()
    played = PlayedActor()
    at, number = 0.0, 0
    coming: list[Event] = [Entered(at, worker.numbered), Answered(at, HELLO)]
    timers: dict[str, float] = {}
    while played.finish is None and (coming or timers):
        if not coming:
            name = min(timers, key=lambda name: timers[name])
            at = max(at, timers.pop(name))
            coming.append(Elapsed(at, name))
        happened = coming.pop(0)
        effects = driven.receive(happened)
        progress = driven.worker.progressed
        if progress is not None and played.progress[-1:] != [progress]:
            played.progress.append(progress)
        played.events.append(happened)
        played.effects.append(effects)
        for effect in effects:
            match effect:
                case Send(command=command):
                    number += 1
                    at += 1.0
                    played.commands.append(command)
                    answers = worker.answer(command)
                    coming += [event(text, at, number * worker.numbered) for text in answers]
                case SetTimer(timer=name, seconds=seconds):
                    timers[name] = at + seconds
                case Finish():
                    played.finish = effect
                case _:
                    timers.pop(effect.timer, None)
        if number > COMMAND_LIMIT:
            raise OverflowError(f"over {COMMAND_LIMIT} commands without an end")
    return played


def run(
    pipeline: Pipeline,
    params: Mapping[str, object] | None = None,
    worker: FakeWorker | Answers | Callable[[int], FakeWorker] | None = None,
    workers: int = 1,
) -> PlayedJob:
    """Play a job of the pipeline: plan, each actor with its own fake worker, finish.

    An actor that waits for others is played after them, whether they fail or not.

    `worker` is a FakeWorker, which is copied for each actor, or its answers, or a function that
    returns the FakeWorker for an actor.
    """
    _warn(misspelt(package_of(pipeline)))
    checked = Params(read_fields(pipeline.parameters, params or {}), workers=workers)
    arranged = arrange(pipeline.plan(checked))
    inputs, stages = arranged.inputs, Stages(arranged.after)
    facts = JobFacts("j1", checked, len(inputs), "127.0.0.1:13337", "uniq")
    played: dict[int, PlayedActor] = {}
    ends: dict[int, Finish | None] = {}
    turns = [number for number in range(len(inputs)) if not stages.gate(number)]
    for number in turns:  # it grows
        gate = stages.gate(number)
        before = None if gate is None else Results(gate, ends.get)
        context = ScriptWorker(facts, number, inputs[number], before)
        context.may_mend = pipeline.may_mend
        actor = play(Machine(context, first_state(pipeline.begin)), _fake(worker, number))
        played[number] = actor
        ends[number] = actor.finish or Finish("it waits for something that never happens")
        turns += stages.end(number, failed=False)
    outcomes = [
        Outcome(ended.error, ended.result, number, inputs[number])
        for number, ended in sorted(ends.items())
        if ended is not None
    ]
    actors = [played[number] for number in range(len(inputs))]
    try:
        return PlayedJob(actors, pipeline.finish(facts, outcomes))
    except JobFailed as failed:
        return PlayedJob(actors, failed.result, str(failed))


def _warn(sentences: list[str]) -> None:
    for said in sentences:
        warnings.warn(said, stacklevel=3)


def _fake(
    worker: FakeWorker | Answers | Callable[[int], FakeWorker] | None, actor: int
) -> FakeWorker:
    if isinstance(worker, FakeWorker):
        return copy.deepcopy(worker)
    return worker(actor) if callable(worker) else FakeWorker(worker)
