"""png2y4m: convert PNG frames in S3 to Y4M chunks, each of the same number of frames.

Each actor retrieves its frames one after the other, runs the packaged command on them (which
reads ##INFILE##, a %08d pattern, and writes ##OUTFILE##), and uploads the chunk. A second run
writes the same bytes to the same key. The last chunk may be shorter: frames that are missing in S3
are left out if no later frame of the chunk exists.
"""

import re
from collections.abc import Sequence

from mu.events import Answered, Event, Finish
from mu.parameters import Parameter, Params
from mu.pipelines.texts import check_bucket, check_given, check_key, check_last
from mu.plugins import ActorInput, Pipeline
from mu.states import (
    CommandListState,
    Context,
    ErrorState,
    ForLoopState,
    JobFacts,
    Previous,
    State,
    TerminalState,
)
from mu.states.context import SendCommand

_NO_SUCH_KEY = re.compile(r"FAIL\(.*: NoSuchKey(: [^:()]*)?\)", re.DOTALL)
_FRAMES = "_frames"
"""The key in `info` for the number of frames in the chunk, once one was missing."""


class Converted(TerminalState):
    extra = "(done)"

    def __init__(self, prevState: Previous, actorNum: int = 0) -> None:
        super().__init__(prevState, actorNum)
        frames: int = self.info.get(_FRAMES) or self.job.params.frames
        self.worker.progress(frames, frames)
        self.result = {"key": self.worker.input["out_key"], "frames": frames}


class Convert(CommandListState):
    extra = "(converting and uploading)"
    nextState = Converted
    commandlist = ((None, "run:"), ("OK:RETVAL(0)", "upload:"), "quit:")


class Retrieve(CommandListState):
    extra = "(retrieving frames)"
    commandlist = ((None, "set:inkey:{key}"), "set:targfile:{file}", "retrieve:", None)

    def __init__(self, prevState: Previous, actorNum: int = 0) -> None:
        super().__init__(prevState, actorNum)
        number, keys = self.info["frame"], self.worker.input["in_keys"]
        self.worker.progress(number, len(keys))
        key = keys[number]
        name = f"##TMPDIR##/{number + 1:08d}.png"
        self.commands = [c and c.format(key=key, file=name) for c in self.commands]

    def receive(self, event: Event, send: SendCommand) -> State:
        number = self.info["frame"]
        if number and isinstance(event, Answered) and _NO_SUCH_KEY.fullmatch(event.text):
            self.info.setdefault(_FRAMES, number)
            return self.nextState(self)
        return super().receive(event, send)

    def post_transition(self) -> State:
        if _FRAMES in self.info:
            keys = self.worker.input["in_keys"]
            missing, there = keys[self.info[_FRAMES]], keys[self.info["frame"]]
            return ErrorState(self, f"there is no {missing}, but there is {there}")
        return super().post_transition()


class RetrieveLoop(ForLoopState):
    iterKey = "frame"
    loopState = Retrieve
    exitState = Convert

    def __init__(self, prevState: Previous, actorNum: int = 0) -> None:
        super().__init__(prevState, actorNum)
        self.iterFin = self.job.params.frames


Retrieve.nextState = RetrieveLoop


class Configure(CommandListState):
    extra = "(configuring the worker)"
    nextState = RetrieveLoop
    pipelined = True
    commandlist = (
        ("OK:HELLO", "seti:nonblock:0"),
        "run:rm -rf ##TMPDIR##",  # the original removed /tmp/*, which may be the user's own
        "run:mkdir -p ##TMPDIR##",
        "set:bucket:{bucket}",
        "set:cmdinfile:##TMPDIR##/%08d.png",
        "set:cmdoutfile:##TMPDIR##/out.y4m",
        "set:fromfile:##TMPDIR##/out.y4m",
        "set:outkey:{out_key}",
        None,
    )

    def __init__(self, prevState: Previous, actorNum: int = 0) -> None:
        super().__init__(prevState, actorNum)
        known = {"bucket": self.job.params.bucket, "out_key": self.worker.input["out_key"]}
        self.commands = [c and c.format(**known) for c in self.commands]


class Png2Y4M(Pipeline):
    name = "png2y4m"
    description = "Convert PNG frames <video>-<in_format>/%08d.png to Y4M chunks of `frames` each."
    parameters = (
        Parameter("video", str, "the beginning of all keys", "sintel-1k"),
        Parameter("bucket", str, "the S3 bucket of the video", "excamera-us-east-1"),
        Parameter("in_format", str, "the format part of the input keys", "png16"),
        Parameter("frames", int, "frames per chunk", 6, minimum=1, maximum=10_000),
        Parameter("offset", int, "the number of chunks to skip at the start", 0, minimum=0),
    )

    def check(self, params: Params) -> None:
        check_bucket(params)
        check_given(params, "video")
        last = params.offset + params.workers
        check_last("params.offset", last * params.frames)
        check_key("params.video", f"{params.video}-y4m_{params.frames:02d}/{last:08d}.y4m")
        check_key(
            "params.in_format", f"{params.video}-{params.in_format}/{last * params.frames:08d}.png"
        )

    def plan(self, params: Params) -> list[ActorInput]:
        frames, folder = params.frames, f"{params.video}-{params.in_format}"
        return [
            {
                "in_keys": [f"{folder}/{1 + frames * chunk + i:08d}.png" for i in range(frames)],
                "out_key": f"{params.video}-y4m_{frames:02d}/{chunk:08d}.y4m",
            }
            for chunk in range(params.offset, params.offset + params.workers)
        ]

    def inputs(self, given: ActorInput) -> list[str]:
        keys: list[str] = given["in_keys"]
        return keys

    def begin(self, worker: Context) -> Configure:
        return Configure(worker, worker.actor)

    def finish(self, job: JobFacts, outcomes: Sequence[Finish]) -> dict[str, object]:
        """Raises ValueError for missing frames: only the last chunk of a video may be shorter."""
        done = [outcome.result for outcome in outcomes if not outcome.error]
        for chunk in sorted(done, key=lambda chunk: str(chunk["key"]))[:-1]:
            if chunk.get("frames", job.params.frames) != job.params.frames:
                raise ValueError(
                    f"{chunk['key']} must have {job.params.frames} frames, got {chunk['frames']}:"
                    " only the last may have fewer"
                )
        return {"keys": [chunk["key"] for chunk in done]}


png2y4m = Png2Y4M()
