"""vpx_ssim: encode each chunk at several qualities, and compare each result with the original.

The report on a chunk has, for each quality, a line QUALITY:<q>, the sizes of the encoded frames, and
what dump_ssim says. The bundle has vpxenc or xc-enc, vpxdec, xc-framesize and dump_ssim, or
MU_XCENC_BIN names their folder.
"""

import re
from collections.abc import Sequence

from mu.parameters import FieldError, Parameter, Params
from mu.pipelines.judging import COMPARE, check_compare, compare, video
from mu.pipelines.making import BUCKET, OFFSET, at, fetch, made, step, store
from mu.pipelines.texts import check_bucket, check_given, check_key, check_last
from mu.pipelines.xcenc import PROGRAMS
from mu.plugins import ActorInput, Outcome, Pipeline
from mu.states import JobFacts, Script, ScriptWorker

HIGHEST = {False: 63, True: 127}
"""The highest quality index of vpxenc, and of xc-enc."""


def qualities_of(params: Params) -> list[int]:
    """Return the qualities to try. Raises FieldError."""
    highest = HIGHEST[params.xc_enc]
    form = re.fullmatch(r"[0-9]{1,3}(,[0-9]{1,3})*", params.qualities, re.ASCII)
    qualities = [int(word) for word in params.qualities.split(",")] if form else []
    if not qualities or max(qualities) > highest or len(set(qualities)) < len(qualities):
        raise FieldError(
            "params.qualities",
            f"params.qualities must be different numbers from 0 to {highest}, separated by commas,"
            f" got {params.qualities!r:.200}",
        )
    return qualities


async def try_all(worker: ScriptWorker) -> dict[str, str]:
    """Encode, decode and compare the chunk at each quality; upload the report."""
    params = worker.job.params
    await fetch(worker)
    original, encoded, decoded, report = map(at, ("in.y4m", "out.ivf", "dec.y4m", "out.txt"))
    for quality in qualities_of(params):
        if params.xc_enc:
            encode = f"xc-enc --y-ac-qi {quality} -o {encoded} -i y4m {original}"
        else:
            options = f"--min-q={quality} --max-q={quality}"
            encode = f"vpxenc -y --codec=vp8 --ivf {options} -o {encoded} {original}"
        await step(worker, f"{PROGRAMS}/{encode} 2>&1")
        await step(worker, f"echo QUALITY:{quality} >>{report}")
        await step(worker, f"{PROGRAMS}/xc-framesize {encoded} >>{report}")
        await step(worker, f"{PROGRAMS}/vpxdec --codec=vp8 -o {decoded} {encoded} 2>&1")
        await step(worker, compare(worker, original, decoded, report))
        await step(worker, f"rm {encoded} {decoded}")
    return await store(worker, "out.txt")


def report_key(params: Params, chunk: int) -> str:
    names = "_".join(map(str, qualities_of(params)))
    return f"{params.video}/ssim_txt_{names}/{chunk:08d}.txt"


class VpxSsim(Pipeline):
    name = "vpx_ssim"
    description = (
        "Encode Y4M chunks as VP8 at several qualities, and compare them with the original."
    )
    parameters = (
        video("sintel-1k-y4m_06"),
        BUCKET,
        OFFSET,
        Parameter("qualities", str, "the qualities to try, separated by commas", "0,8,16"),
        Parameter("xc_enc", bool, "encode with xc-enc in place of vpxenc", False),
        COMPARE,
    )

    def check(self, params: Params) -> None:
        check_bucket(params)
        check_given(params, "video")
        check_compare(params)
        last = params.offset + params.workers
        check_last("params.offset", last)
        check_key("params.video", report_key(params, last))

    def plan(self, params: Params) -> list[ActorInput]:
        return [
            {
                "files": {"in.y4m": f"{params.video}/{chunk:08d}.y4m"},
                "out_key": report_key(params, chunk),
            }
            for chunk in range(params.offset, params.offset + params.workers)
        ]

    def inputs(self, given: ActorInput) -> list[str]:
        return [given["files"]["in.y4m"]]

    def begin(self, worker: ScriptWorker) -> Script:
        return try_all(worker)

    def finish(self, job: JobFacts, outcomes: Sequence[Outcome]) -> dict[str, list[str]]:
        return made(outcomes)


vpx_ssim = VpxSsim()
