"""hello: each worker echoes a text, so that launching, TLS and the way back are seen to work."""

from collections.abc import Sequence
from typing import Any

from zope.interface import implementer

from mu.events import Finish
from mu.interfaces import IPipeline
from mu.machine import JobFacts, Worker
from mu.parameters import Parameter, Params
from mu.states import OnePassState


class Leave(OnePassState):
    expect = "OK:ECHO"
    command = "quit:"


class Greet(OnePassState):
    expect = "OK:HELLO"
    nextState = Leave

    def __init__(self, prevState: Any, actorNum: int = 0) -> None:
        super().__init__(prevState, actorNum)
        self.command = f"echo:{self.job.params.text} from actor {self.actorNum}"


@implementer(IPipeline)
class Hello:
    name = "hello"
    description = "Have each worker echo a text: a check that workers start and find the way back."
    parameters = (Parameter("text", str, "what to say", "hello"),)

    def plan(self, params: Params) -> list[dict[str, Any]]:
        return [{} for _ in range(params.workers)]

    def begin(self, worker: Worker) -> Greet:
        return Greet(worker, worker.actor)

    def finish(self, job: JobFacts, outcomes: Sequence[Finish]) -> dict[str, int]:
        return {"said_hello": sum(outcome.error is None for outcome in outcomes)}


hello = Hello()
