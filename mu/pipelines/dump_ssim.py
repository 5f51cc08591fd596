"""dump_ssim: compare both the first and the last output of an xcenc job with the original.

The job was one with `upload_states`. An actor reports on a chunk: on first_<q>, decoded by itself,
then on out_<q>, decoded from the state of the chunk before.
"""

from collections.abc import Sequence

from mu.parameters import Params
from mu.pipelines.judging import VPX, XC, check, judge, plan_chunks, reports, shared
from mu.plugins import ActorInput, Outcome, Pipeline
from mu.states import JobFacts, Script, ScriptWorker


class DumpSsim(Pipeline):
    name = "dump_ssim"
    description = "Compare the first and the last output of an xcenc job with the original chunks."
    parameters = shared("sintel-1k-y4m_06", 0)

    def check(self, params: Params) -> None:
        check(params, params.offset + params.workers)

    def plan(self, params: Params) -> list[ActorInput]:
        return plan_chunks(params, (VPX, XC))

    def inputs(self, given: ActorInput) -> list[str]:
        return list(given["files"].values())

    def begin(self, worker: ScriptWorker) -> Script:
        return judge(worker)

    def finish(self, job: JobFacts, outcomes: Sequence[Outcome]) -> dict[str, object]:
        return reports(job, outcomes)


dump_ssim = DumpSsim()
