"""split_dump_ssim: like dump_ssim7, for chunks of 24 frames, with two actors for each.

Actor n compares one half, 12 frames, of chunk n // 2; both decode all of it. The number of its report
is n plus twice the offset, as if the chunks had 12 frames.
"""

from collections.abc import Sequence

from mu.parameters import Params
from mu.pipelines.judging import XC, check, judge, plan_halves, reports, shared
from mu.plugins import ActorInput, Outcome, Pipeline
from mu.states import JobFacts, Script, ScriptWorker

FRAMES = 12
"""Frames per half."""


class SplitDumpSsim(Pipeline):
    name = "split_dump_ssim"
    description = "Compare the output of an xcenc7 job with the original, in halves of 12 frames."
    parameters = shared("sintel-1k-y4m_24", 16)

    def check(self, params: Params) -> None:
        check(params, 2 * (params.offset + params.workers))

    def plan(self, params: Params) -> list[ActorInput]:
        return plan_halves(params, (XC,))

    def inputs(self, given: ActorInput) -> list[str]:
        return list(given["files"].values())

    def begin(self, worker: ScriptWorker) -> Script:
        return judge(worker, FRAMES)

    def finish(self, job: JobFacts, outcomes: Sequence[Outcome]) -> dict[str, object]:
        return reports(job, outcomes)


split_dump_ssim = SplitDumpSsim()
