"""png2y4m: convert PNG frames in S3 to Y4M chunks, each of the same number of frames.

Each actor retrieves its frames, runs the packaged command on them (which reads ##INFILE##, a %08d
pattern, and writes ##OUTFILE##), and uploads the chunk. A second run writes the same bytes to the
same key. The last chunk may be shorter: frames that are missing in S3 are left out if no later
frame of the chunk exists. Frames are retrieved side by side, but one after the other if the worker
does not number its replies.
"""

import re
from collections.abc import Callable, Sequence
from itertools import islice

from mu.events import Answered, Entered, Event
from mu.parameters import Parameter, Params
from mu.pipelines.mending import may_mend
from mu.pipelines.texts import check_bucket, check_given, check_key, check_last
from mu.pipelines.transfers import AT_ONCE
from mu.plugins import ActorInput, JobFailed, Outcome, Pipeline
from mu.states import (
    CommandEntry,
    CommandListState,
    Context,
    ErrorState,
    ForLoopState,
    JobFacts,
    MachineState,
    Previous,
    State,
    TerminalState,
)
from mu.states.context import SendCommand, shortened

_NO_SUCH_KEY = re.compile(r"FAIL\(.*: NoSuchKey(: [^:()]*)?\)", re.DOTALL)
_FRAMES = "_frames"
"""The key in `info` for the number of frames in the chunk, if that is known by the end."""


def _file(number: int) -> str:
    return f"##TMPDIR##/{number + 1:08d}.png"


def _gap(missing: str, there: str) -> str:
    return f"there is no {missing}, but there is {there}"


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


class Retrieve(MachineState):
    """Retrieves all frames side by side, with nonblock and bg_silent."""

    extra = "(retrieving frames)"
    expect = "OK:RETRIEVE"
    nextState = Convert

    def __init__(self, prevState: Previous, actorNum: int = 0) -> None:
        super().__init__(prevState, actorNum)
        self._keys = self.worker.input["in_keys"]
        self._coming = iter(range(len(self._keys)))
        self._asked: dict[int, int] = {}  # from a command's number to its frame's
        self._found: list[int] = []

    def receive(self, event: Event, send: SendCommand) -> State:
        if isinstance(event, Entered):
            self.worker.progress(0, len(self._keys))
            self._ask(AT_ONCE)
            return self
        if not isinstance(event, Answered):
            return super().receive(event, send)
        number = self._asked.pop(event.command, None)
        if number is not None and event.text.startswith(self.expect):
            self._found.append(number)
            of = len(self._keys)
            self.worker.progress(min(len(self._found), of - 1), of)  # one is left for the chunk
        elif not (number and _NO_SUCH_KEY.fullmatch(event.text)):
            words = f"the worker answered {shortened(event.text)}"
            return ErrorState(self, words, not self.worker.may_mend(event.text))
        self._ask(1)
        return self if self._asked else self._retrieved()

    def _ask(self, frames: int) -> None:
        """Retrieve that many more frames, if there are."""
        for number in islice(self._coming, frames):
            self.enqueue(f"retrieve:{self._keys[number]}\0{_file(number)}")
            self._asked[self.worker.sent] = number

    def _retrieved(self) -> State:
        for place, number in enumerate(sorted(self._found)):
            if place != number:
                return ErrorState(self, _gap(self._keys[place], self._keys[number]), final=True)
        self.info[_FRAMES] = len(self._found)
        return self.nextState(self)


class RetrieveNext(CommandListState):
    extra = "(retrieving frames)"
    commandlist = ((None, "set:inkey:{key}"), "set:targfile:{file}", "retrieve:", None)

    def __init__(self, prevState: Previous, actorNum: int = 0) -> None:
        super().__init__(prevState, actorNum)
        number, keys = self.info["frame"], self.worker.input["in_keys"]
        self.worker.progress(number, len(keys))
        key = keys[number]
        self.commands = [c and c.format(key=key, file=_file(number)) for c in self.commands]

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
            return ErrorState(self, _gap(missing, there), final=True)
        return super().post_transition()


class RetrieveLoop(ForLoopState):
    iterKey = "frame"
    loopState = RetrieveNext
    exitState = Convert

    def __init__(self, prevState: Previous, actorNum: int = 0) -> None:
        super().__init__(prevState, actorNum)
        self.iterFin = self.job.params.frames


RetrieveNext.nextState = RetrieveLoop


class Configure(CommandListState):
    extra = "(configuring the worker)"
    nextState: Callable[..., State] = RetrieveLoop
    pipelined = True
    commandlist: Sequence[CommandEntry] = (
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
        if self.worker.numbered:
            self.nextState = Retrieve
            *settings, last = self.commandlist
            self.commandlist = (*settings, "seti:bg_silent:1", "seti:nonblock:1", last)
        super().__init__(prevState, actorNum)
        known = {"bucket": self.job.params.bucket, "out_key": self.worker.input["out_key"]}
        self.commands = [c and c.format(**known) for c in self.commands]


class Png2Y4M(Pipeline):
    name = "png2y4m"
    may_mend = staticmethod(may_mend)
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

    def finish(self, job: JobFacts, outcomes: Sequence[Outcome]) -> dict[str, object]:
        """Raises JobFailed for missing frames: only the last chunk of a video may be shorter."""
        done = [outcome.result for outcome in outcomes if not outcome.error]
        result: dict[str, object] = {"keys": [chunk["key"] for chunk in done]}
        last = self.plan(job.params)[-1]["out_key"]
        for chunk in done:
            if chunk["key"] != last and chunk.get("frames", job.params.frames) != job.params.frames:
                raise JobFailed(
                    f"{chunk['key']} must have {job.params.frames} frames, got {chunk['frames']}:"
                    f" only the last, {last}, may have fewer",
                    result,
                )
        return result


png2y4m = Png2Y4M()
