"""hello: each worker echoes a text, so that launching, TLS and the way back are seen to work."""

from collections.abc import Sequence
from typing import Any

from mu.events import Finish
from mu.parameters import Parameter, Params
from mu.plugins import Pipeline
from mu.states import CommandListState
from mu.states.context import Context, JobFacts


class Greet(CommandListState):
    def __init__(self, prevState: Any, actorNum: int = 0) -> None:
        echo = f"echo:{self.job.params.text} from actor {self.actorNum}"
        self.commandlist = [echo] * self.job.params.rounds + ["quit:"]
        super().__init__(prevState, actorNum)


class Hello(Pipeline):
    name = "hello"
    description = "Have each worker echo a text: a check that workers start and find the way back."
    parameters = (
        Parameter("text", str, "what to say", "hello"),
        Parameter("rounds", int, "how often", 1, minimum=1, maximum=100_000),
    )

    def plan(self, params: Params) -> list[dict[str, Any]]:
        return [{} for _ in range(params.workers)]

    def begin(self, worker: Context) -> Greet:
        return Greet(worker, worker.actor)

    def finish(self, job: JobFacts, outcomes: Sequence[Finish]) -> dict[str, int]:
        return {"said_hello": sum(outcome.error is None for outcome in outcomes)}


hello = Hello()
