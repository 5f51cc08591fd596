"""vpxenc: each actor encodes one Y4M chunk as VP8 in an IVF file.

The packaged command reads ##INFILE## and writes ##OUTFILE##. As in the original, `video` is the
complete folder of the chunks, and the output goes to the folder `out` in it.
"""

from collections.abc import Sequence

from mu.parameters import Parameter, Params
from mu.pipelines.mending import may_mend
from mu.pipelines.texts import check_bucket, check_given, check_key, check_last
from mu.plugins import ActorInput, Outcome, Pipeline
from mu.states import CommandListState, Context, JobFacts, Previous, TerminalState


class Encoded(TerminalState):
    extra = "(done)"

    def __init__(self, prevState: Previous, actorNum: int = 0) -> None:
        super().__init__(prevState, actorNum)
        self.result = {"key": self.worker.input["out_key"]}


class Encode(CommandListState):
    extra = "(encoding)"
    nextState = Encoded
    commandlist = (
        ("OK:HELLO", "seti:nonblock:0"),
        "set:bucket:{bucket}",
        "set:cmdinfile:##TMPDIR##/in.y4m",
        "set:cmdoutfile:##TMPDIR##/out.ivf",
        "retrieve:{in_key}\0##TMPDIR##/in.y4m",
        "run:",
        ("OK:RETVAL(0)", "upload:{out_key}\0##TMPDIR##/out.ivf"),
        "quit:",
    )

    def __init__(self, prevState: Previous, actorNum: int = 0) -> None:
        super().__init__(prevState, actorNum)
        known = {"bucket": self.job.params.bucket, **self.worker.input}
        self.commands = [c and c.format(**known) for c in self.commands]


class VpxEnc(Pipeline):
    name = "vpxenc"
    may_mend = staticmethod(may_mend)
    description = "Encode Y4M chunks <video>/%08d.y4m as VP8 in IVF files <video>/out/%08d.ivf."
    parameters = (
        Parameter("video", str, "the folder of the chunks", "sintel-1k-y4m_06"),
        Parameter("bucket", str, "the S3 bucket of the video", "excamera-us-east-1"),
        Parameter("offset", int, "the number of chunks to skip at the start", 0, minimum=0),
    )

    def check(self, params: Params) -> None:
        check_bucket(params)
        check_given(params, "video")
        last = params.offset + params.workers
        check_last("params.offset", last)
        check_key("params.video", f"{params.video}/out/{last:08d}.ivf")

    def plan(self, params: Params) -> list[ActorInput]:
        return [
            {
                "in_key": f"{params.video}/{chunk:08d}.y4m",
                "out_key": f"{params.video}/out/{chunk:08d}.ivf",
            }
            for chunk in range(params.offset, params.offset + params.workers)
        ]

    def inputs(self, given: ActorInput) -> list[str]:
        return [given["in_key"]]

    def begin(self, worker: Context) -> Encode:
        return Encode(worker, worker.actor)

    def finish(self, job: JobFacts, outcomes: Sequence[Outcome]) -> dict[str, object]:
        return {"keys": [outcome.result["key"] for outcome in outcomes if not outcome.error]}


vpxenc = VpxEnc()
