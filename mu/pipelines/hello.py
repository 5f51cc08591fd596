"""hello: each worker echoes a text, which shows that launching, TLS and replies work."""

from collections.abc import Sequence

from mu.parameters import Parameter
from mu.plugins import Outcome, Pipeline
from mu.states import CommandListState, Context, JobFacts, Previous


class Greet(CommandListState):
    def __init__(self, prevState: Previous, actorNum: int = 0) -> None:
        echo = f"echo:{self.job.params.text} from actor {self.actorNum}"
        self.commandlist = [echo] * self.job.params.rounds + ["quit:"]
        super().__init__(prevState, actorNum)


class HelloPipeline(Pipeline):
    name = "hello"
    description = "Have each worker echo a text, to check that workers start and connect."
    parameters = (
        Parameter("text", str, "the text to echo", "hello"),
        Parameter("rounds", int, "how many times to echo it", 1, minimum=1, maximum=100_000),
    )

    def begin(self, worker: Context) -> Greet:
        return Greet(worker, worker.actor)

    def finish(self, job: JobFacts, outcomes: Sequence[Outcome]) -> dict[str, int]:
        return {"said_hello": sum(outcome.error is None for outcome in outcomes)}


hello = HelloPipeline()
