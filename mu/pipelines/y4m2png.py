"""y4m2png: the reverse of png2y4m. Each actor converts one Y4M chunk to PNG frames.

The packaged command reads ##INFILE## and writes ##OUTFILE##, a %08d pattern that counts from 1.
Frames are numbered as in the whole video: chunk k of n frames begins with frame 1 + n * k.
"""

from collections.abc import Sequence

from mu.parameters import Parameter, Params
from mu.pipelines.mending import may_mend
from mu.pipelines.texts import check_bucket, check_given, check_key, check_last
from mu.pipelines.transfers import AT_ONCE
from mu.plugins import ActorInput, JobFailed, Outcome, Pipeline
from mu.states import ActorFailed, JobFacts, Script, ScriptWorker


async def split(worker: ScriptWorker) -> dict[str, int]:
    """Retrieve and convert the chunk, upload its frames; return the first number and how many."""
    params = worker.job.params
    await worker.seti("nonblock", 0)
    await worker.set("bucket", params.bucket)
    await worker.set("cmdinfile", "##TMPDIR##/in.y4m")
    await worker.set("cmdoutfile", "##TMPDIR##/png/%08d.png")
    await worker.run("rm -rf ##TMPDIR##; mkdir -p ##TMPDIR##/png")
    await worker.retrieve(worker.in_key, "##TMPDIR##/in.y4m")
    await worker.run()
    count = "test -e ##TMPDIR##/png/00000001.png && ls ##TMPDIR##/png | wc -l"
    counted = await worker.run(count, quiet=True)
    frames = int(counted.output.strip() or 0)
    if frames > params.frames:  # their numbers would be those of the next chunk
        words = f"{worker.in_key} must have at most {params.frames} frames, got {frames}"
        raise ActorFailed(words, final=True)
    await worker.seti("nonblock", 1)
    for done in range(0, frames, AT_ONCE):
        batch = range(done + 1, min(done + AT_ONCE, frames) + 1)
        await worker.together(*(upload(worker, number) for number in batch))
    return {"first": worker.first, "frames": frames}


async def upload(worker: ScriptWorker, number: int) -> None:
    """Upload a frame of the chunk; `number` counts from 1."""
    key = f"{worker.out_folder}/{worker.first + number - 1:08d}.png"
    await worker.upload(key, f"##TMPDIR##/png/{number:08d}.png")


class Y4M2Png(Pipeline):
    name = "y4m2png"
    may_mend = staticmethod(may_mend)
    description = "Convert Y4M chunks <video>-<in_format>/%08d.y4m to PNG frames."
    parameters = (
        Parameter("video", str, "the beginning of all keys", "sintel-1k"),
        Parameter("bucket", str, "the S3 bucket of the video", "excamera-us-east-1"),
        Parameter("in_format", str, "the format part of the input keys; empty: y4m_<frames>", ""),
        Parameter(
            "out_format", str, "frames are written to <video>-<out_format>/%08d.png", "png16"
        ),
        Parameter("frames", int, "frames per chunk", 6, minimum=1, maximum=10_000),
        Parameter("offset", int, "the number of chunks to skip at the start", 0, minimum=0),
    )

    def check(self, params: Params) -> None:
        check_bucket(params)
        check_given(params, "video", "out_format")
        last = params.offset + params.workers
        check_last("params.offset", last * params.frames)
        check_key("params.video", f"{params.video}-y4m_{params.frames:02d}/{last:08d}.y4m")
        check_key("params.in_format", f"{params.video}-{params.in_format}/{last:08d}.y4m")
        folder = f"{params.video}-{params.out_format}"
        check_key("params.out_format", f"{folder}/{last * params.frames:08d}.png")

    def plan(self, params: Params) -> list[ActorInput]:
        in_format = params.in_format or f"y4m_{params.frames:02d}"
        return [
            {
                "in_key": f"{params.video}-{in_format}/{chunk:08d}.y4m",
                "out_folder": f"{params.video}-{params.out_format}",
                "first": 1 + params.frames * chunk,
            }
            for chunk in range(params.offset, params.offset + params.workers)
        ]

    def inputs(self, given: ActorInput) -> list[str]:
        return [given["in_key"]]

    def begin(self, worker: ScriptWorker) -> Script:
        return split(worker)

    def finish(self, job: JobFacts, outcomes: Sequence[Outcome]) -> dict[str, object]:
        """Raises JobFailed for missing frames: only the last chunk of a video may be shorter."""
        done = [outcome.result for outcome in outcomes if not outcome.error]
        folder = f"{job.params.video}-{job.params.out_format}"
        result = {"folder": folder, "frames": sum(chunk["frames"] for chunk in done)}
        last = self.plan(job.params)[-1]["first"]
        for chunk in done:
            if chunk["first"] != last and chunk["frames"] != job.params.frames:
                raise JobFailed(
                    f"the chunk that begins with frame {chunk['first']} must have"
                    f" {job.params.frames} frames, got {chunk['frames']}: only the last may have"
                    " fewer",
                    result,
                )
        return result


y4m2png = Y4M2Png()
