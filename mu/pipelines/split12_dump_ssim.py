"""split12_dump_ssim: like split_dump_ssim, for both outputs of xcenc with chunks of 12 frames.

Actor n compares one half, 6 frames, of chunk n // 2: of first_<q>, then of out_<q>, both decoded from
the state of the chunk before.
"""

from collections.abc import Sequence

from mu.parameters import Params
from mu.pipelines.judging import VPX, XC, check, judge, plan_halves, reports, shared
from mu.plugins import ActorInput, Outcome, Pipeline
from mu.states import JobFacts, Script, ScriptWorker

FRAMES = 6
"""Frames per half."""


class Split12DumpSsim(Pipeline):
    name = "split12_dump_ssim"
    description = "Compare both outputs of an xcenc job with the original, in halves of 6 frames."
    parameters = shared("sintel-1k-y4m_12", 8)

    def check(self, params: Params) -> None:
        check(params, 2 * (params.offset + params.workers))

    def plan(self, params: Params) -> list[ActorInput]:
        return plan_halves(params, (VPX, XC))

    def inputs(self, given: ActorInput) -> list[str]:
        return list(given["files"].values())

    def begin(self, worker: ScriptWorker) -> Script:
        return judge(worker, FRAMES)

    def finish(self, job: JobFacts, outcomes: Sequence[Outcome]) -> dict[str, object]:
        return reports(job, outcomes)


split12_dump_ssim = Split12DumpSsim()
