"""dump_ssim7: compare the output of an xcenc7 job with the original chunks.

The job was one with `upload_states`. An actor decodes a chunk from the state of the chunk before,
unless it begins with a key frame.
"""

from collections.abc import Sequence

from mu.parameters import Params
from mu.pipelines.judging import XC, check, judge, plan_chunks, reports, shared
from mu.plugins import ActorInput, Outcome, Pipeline
from mu.states import JobFacts, Script, ScriptWorker


class DumpSsim7(Pipeline):
    name = "dump_ssim7"
    description = "Compare the output of an xcenc7 job with the original chunks."
    parameters = shared("sintel-1k-y4m_06", 16)

    def check(self, params: Params) -> None:
        check(params, params.offset + params.workers)

    def plan(self, params: Params) -> list[ActorInput]:
        return plan_chunks(params, (XC,))

    def inputs(self, given: ActorInput) -> list[str]:
        return list(given["files"].values())

    def begin(self, worker: ScriptWorker) -> Script:
        return judge(worker)

    def finish(self, job: JobFacts, outcomes: Sequence[Outcome]) -> dict[str, object]:
        return reports(job, outcomes)


dump_ssim7 = DumpSsim7()
