"""linpack: run a benchmark program twice at the same time on each worker.

The result shows how much processor time a worker has beyond what one program can use. The program
is the packaged command; its outputs are the job's result.
"""

from collections.abc import Sequence
from statistics import median

from mu.parameters import Parameter, Params
from mu.pipelines.mending import may_mend
from mu.pipelines.texts import check_command, readable
from mu.plugins import Outcome, Pipeline
from mu.states import JobFacts, Script, ScriptWorker


async def run_all(worker: ScriptWorker) -> list[dict[str, object]]:
    """Run all copies of the program at once; return what `run_one` returns for each."""
    await worker.seti("nonblock", 1)
    return await worker.together(*(run_one(worker) for _ in range(worker.job.params.copies)))


async def run_one(worker: ScriptWorker) -> dict[str, object]:
    begun = worker.now
    ran = await worker.run(worker.job.params.command)
    kept = readable(ran.output[-worker.job.params.output_chars :])
    return {"actor": worker.actor, "seconds": round(worker.now - begun, 3), "output": kept}


class Linpack(Pipeline):
    name = "linpack"
    may_mend = staticmethod(may_mend)
    description = "Run a benchmark program twice at once on each worker, and keep its outputs."
    parameters = (
        Parameter("command", str, "the program; empty: the packaged command", ""),
        Parameter("copies", int, "simultaneous runs on each worker", 2, minimum=1, maximum=64),
        Parameter(
            "output_chars", int, "characters to keep of the end of each output", 4000, 1, 65536
        ),
    )

    def check(self, params: Params) -> None:
        if params.command:
            check_command("params.command", params.command)

    def begin(self, worker: ScriptWorker) -> Script:
        return run_all(worker)

    def finish(self, job: JobFacts, outcomes: Sequence[Outcome]) -> dict[str, object]:
        """Return all runs, and statistics of their durations from command to reply."""
        runs = [one for outcome in outcomes if not outcome.error for one in outcome.result]
        seconds = [one["seconds"] for one in runs]
        if not seconds:
            return {"runs": []}
        statistics = {"fastest": min(seconds), "median": median(seconds), "slowest": max(seconds)}
        return {"runs": runs, "seconds": statistics}


linpack = Linpack()
