"""png2y4m: PNG frames in S3 become Y4M chunks, so many frames to a chunk.

Each actor retrieves its frames one after the other, runs the packaged command on them (which
takes ##INFILE##, a %08d pattern, and writes ##OUTFILE##), and uploads the chunk. A second run
writes the same bytes to the same key.
"""

from collections.abc import Sequence
from typing import Any

from mu.events import Finish
from mu.parameters import Parameter, Params
from mu.plugins import Pipeline
from mu.states import CommandListState, ForLoopState, TerminalState
from mu.states.context import Context, JobFacts


class Final(TerminalState):
    extra = "(done)"

    def __init__(self, prevState: Any, actorNum: int = 0) -> None:
        super().__init__(prevState, actorNum)
        self.result = {"key": self.worker.input["out_key"]}


class Convert(CommandListState):
    extra = "(converting and uploading)"
    nextState = Final
    commandlist = ((None, "run:"), ("OK:RETVAL(0)", "upload:"), "quit:")


class Retrieve(CommandListState):
    extra = "(retrieving frames)"
    commandlist = ((None, "set:inkey:{key}"), "set:targfile:{file}", "retrieve:", None)

    def __init__(self, prevState: Any, actorNum: int = 0) -> None:
        super().__init__(prevState, actorNum)
        number = self.info["frame"]
        key = self.worker.input["in_keys"][number]
        name = f"##TMPDIR##/{number + 1:08d}.png"
        self.commands = [c and c.format(key=key, file=name) for c in self.commands]


class RetrieveLoop(ForLoopState):
    iterKey = "frame"
    loopState = Retrieve
    exitState = Convert

    def __init__(self, prevState: Any, actorNum: int = 0) -> None:
        super().__init__(prevState, actorNum)
        self.iterFin = self.job.params.frames


Retrieve.nextState = RetrieveLoop


class Configure(CommandListState):
    extra = "(configuring the worker)"
    nextState = RetrieveLoop
    pipelined = True
    commandlist = (
        ("OK:HELLO", "seti:nonblock:0"),
        "run:rm -rf ##TMPDIR##",  # not /tmp/*, as the original: it may be the user's own
        "run:mkdir -p ##TMPDIR##",
        "set:bucket:{bucket}",
        "set:cmdinfile:##TMPDIR##/%08d.png",
        "set:cmdoutfile:##TMPDIR##/out.y4m",
        "set:fromfile:##TMPDIR##/out.y4m",
        "set:outkey:{out_key}",
        None,
    )

    def __init__(self, prevState: Any, actorNum: int = 0) -> None:
        super().__init__(prevState, actorNum)
        known = {"bucket": self.job.params.bucket, "out_key": self.worker.input["out_key"]}
        self.commands = [c and c.format(**known) for c in self.commands]


class Png2Y4M(Pipeline):
    name = "png2y4m"
    description = "Convert PNG frames <video>-<in_format>/%08d.png to Y4M chunks of `frames` each."
    parameters = (
        Parameter("video", str, "the first part of the keys", "sintel-1k"),
        Parameter("bucket", str, "the S3 bucket that holds the video", "excamera-us-east-1"),
        Parameter("in_format", str, "the format in the keys of the input", "png16"),
        Parameter("frames", int, "frames in a chunk", 6, minimum=1, maximum=10_000),
        Parameter("offset", int, "chunks to leave out at the beginning", 0, minimum=0),
    )

    def plan(self, params: Params) -> list[dict[str, Any]]:
        n = params.frames
        chunks = range(params.offset, params.offset + params.workers)
        return [
            {
                "in_keys": [
                    f"{params.video}-{params.in_format}/{1 + n * chunk + i:08d}.png"
                    for i in range(n)
                ],
                "out_key": f"{params.video}-y4m_{n:02d}/{chunk:08d}.y4m",
            }
            for chunk in chunks
        ]

    def begin(self, worker: Context) -> Configure:
        return Configure(worker, worker.actor)

    def finish(self, job: JobFacts, outcomes: Sequence[Finish]) -> dict[str, Any]:
        return {"keys": [outcome.result["key"] for outcome in outcomes if not outcome.error]}


png2y4m = Png2Y4M()
