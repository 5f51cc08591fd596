"""linpack: a benchmark program, run twice side by side on each worker.

That tells how much of a processor a worker has, beyond what one program uses. The program is the
packaged command, whatever that is; its outputs are the job's result.
"""

from collections.abc import Sequence
from statistics import median
from typing import Any

from mu.events import Finish
from mu.parameters import Parameter, Params
from mu.plugins import Pipeline
from mu.states import ScriptWorker
from mu.states.context import JobFacts


async def run_all(worker: ScriptWorker) -> list[dict[str, Any]]:
    """Run the program so many times at once; return how each run went."""
    await worker.seti("nonblock", 1)
    return await worker.together(*(run_one(worker) for _ in range(worker.job.params.copies)))


async def run_one(worker: ScriptWorker) -> dict[str, Any]:
    begun = worker.now
    ran = await worker.run(worker.job.params.command)
    kept = ran.output[-worker.job.params.output_chars :]
    return {"actor": worker.actor, "seconds": round(worker.now - begun, 3), "output": kept}


class Linpack(Pipeline):
    name = "linpack"
    description = "Run a benchmark program twice side by side on each worker, and keep its outputs."
    parameters = (
        Parameter("command", str, "the program; empty: the packaged command", ""),
        Parameter("copies", int, "runs side by side on a worker", 2, minimum=1, maximum=64),
        Parameter("output_chars", int, "kept of the end of each output", 4000, 1, 65536),
    )

    def plan(self, params: Params) -> list[dict[str, Any]]:
        return [{} for _ in range(params.workers)]

    def begin(self, worker: ScriptWorker) -> Any:
        return run_all(worker)

    def finish(self, job: JobFacts, outcomes: Sequence[Finish]) -> dict[str, Any]:
        """Return all runs, and the seconds they took from command to answer."""
        runs = [one for outcome in outcomes if not outcome.error for one in outcome.result]
        seconds = [one["seconds"] for one in runs]
        if not seconds:
            return {"runs": []}
        told = {"fastest": min(seconds), "median": median(seconds), "slowest": max(seconds)}
        return {"runs": runs, "seconds": told}


linpack = Linpack()
