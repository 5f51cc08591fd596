"""xcenc: the ExCamera encoder. Chunks are encoded side by side, as if by one encoder in one go.

Each actor encodes its chunk with vpxenc, and then again, beginning with the state in which its left
neighbour's decoder ends, so that no key frame is needed. Chunks come in groups, `keyframe_distance`
long, with a key frame at the beginning of each. In its group an actor is number k:

    pass 0              vpxenc alone; the state of that goes to k + 1
    pass 1, k >= 1      once more, from the neighbour's state of pass 0: all at the same time
    pass 2, k >= 2      once more, from the neighbour's last state: one after the other, but quick

The function's bundle has the encoder's programs: vpxenc, xc-enc, xc-dump (and comp-states, for
upload_states); or MU_XCENC_BIN names the folder where they are.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

from mu.events import Finish
from mu.parameters import Parameter, Params
from mu.pipelines.dealing import deal
from mu.plugins import Pipeline
from mu.states import CommandListState, ForLoopState, TerminalState, connect_command
from mu.states.context import Context, JobFacts

PROGRAMS = '"${MU_XCENC_BIN:-.}"'
ENDED = "OK:RETVAL(0)"


def vpxenc(out: str) -> str:
    """Return the command that encodes the chunk alone."""
    return (
        f"run:{PROGRAMS}/vpxenc --ivf -q --codec=vp8 --good --cpu-used=0 --end-usage=cq --min-q=0"
        " --max-q=63 --cq-level=##QUALITY## --buf-initial-sz=10000 --buf-optimal-sz=20000"
        " --buf-sz=40000 --undershoot-pct=100 --passes=2 --auto-alt-ref=1 --threads=1"
        " --token-parts=0 --tune=ssim --target-bitrate=4294967295"
        f" -o ##TMPDIR##/{out} ##TMPDIR##/input.y4m 2>&1"
    )


def xc_enc(switches: str, options: str = "") -> str:
    """Return the command that encodes prev.ivf anew, once the neighbour's state is here."""
    return (
        f"run:##INSTATEWAIT## {PROGRAMS}/xc-enc {options}-w 0.75 -i y4m -O ##TMPDIR##/final.state"
        f" -o ##TMPDIR##/output.ivf {switches} ##TMPDIR##/input.y4m 2>&1"
    )


def hashed(key: str) -> str:
    """Return what hash_s3keys makes of a key."""
    digits = hashlib.md5(key.rpartition("/")[2].encode(), usedforsecurity=False).hexdigest()
    return f"{digits[:4]}-{key}"


def place(worker: Context) -> int:
    """Return k: which chunk of its group an actor has."""
    return int(worker.actor % worker.job.params.keyframe_distance)


def is_last(worker: Context) -> bool:
    """Whether nobody needs an actor's state."""
    distance = worker.job.params.keyframe_distance
    return worker.actor == worker.job.actors - 1 or place(worker) == distance - 1


# ---------------------------------------------------------------- what both variants begin with


class Final(TerminalState):
    extra = "(done)"

    def __init__(self, prevState: Any, actorNum: int = 0) -> None:
        super().__init__(prevState, actorNum)
        self.result = self.worker.input["keys"]


class Upload(CommandListState):
    """Upload all that this actor has keys for. The replies may come in any order."""

    extra = "(uploading)"
    pipelined = True
    nextState = Final

    def __init__(self, prevState: Any, actorNum: int = 0) -> None:
        uploads: list[Any] = [
            ("OK:UPLOAD(", f"upload:{key}\0##TMPDIR##/{FILES[what]}")
            for what, key in self.worker.input["keys"].items()
        ]
        self.commandlist = [(None, uploads[0][1]), *uploads[1:], ("OK:UPLOAD(", None)]
        super().__init__(prevState, actorNum)


FILES = {
    "out": "output.ivf",
    "first": "first.ivf",
    "final_state": "final.state",
    "prev_state": "prev.state",
    "comp_txt": "comp.txt",
}
"""Which file of a worker's is stored under which part of the keys."""


class Begin(CommandListState):
    """Set the worker's switches, meet the neighbours and fetch the chunk."""

    extra = "(fetching its chunk)"

    def __init__(self, prevState: Any, actorNum: int = 0) -> None:
        params, me = self.job.params, self.actorNum + self.job.params.offset
        meet = [connect_command(self.job, me, me + 1)] if params.keyframe_distance > 1 else []
        self.commandlist = [
            ("OK:HELLO", "seti:nonblock:1"),
            "seti:bg_silent:1",
            "seti:expect_statefile:1",
            "seti:minimal_recode:1",
            f"seti:hash_s3keys:{int(params.get('hash_s3keys', False))}",
            f"set:bucket:{params.bucket}",
            f"set:cmdquality:{params.quality}",
            *meet,
            f"retrieve:{self.worker.input['in_key']}\0##TMPDIR##/input.y4m",
            ("OK:RETRIEVE(", None),
        ]
        super().__init__(prevState, actorNum)


# ---------------------------------------------------------------- the passes


class Compare(CommandListState):
    """Tell how far the last pass is from the one before it, for whoever wants to know."""

    extra = "(comparing states)"
    nextState = Upload

    def __init__(self, prevState: Any, actorNum: int = 0) -> None:
        if "comp_txt" in self.worker.input["keys"]:
            states = "##TMPDIR##/prev.state ##TMPDIR##/final.state"
            compare = f"run:{PROGRAMS}/comp-states {states} >##TMPDIR##/comp.txt 2>&1"
            self.commandlist = [(None, compare), ("OK:RETVAL(", None)]  # 0: they are the same
        super().__init__(prevState, actorNum)


class Pass(CommandListState):
    def __init__(self, prevState: Any, actorNum: int = 0) -> None:
        number = self.info["pass"]
        self.commandlist = first_pass(self.worker) if number == 0 else later_pass(self.worker)
        super().__init__(prevState, actorNum)

    def str_extra(self) -> str:
        return f"(pass {self.info['pass']})"


class Passes(ForLoopState):
    iterKey = "pass"
    loopState = Pass
    exitState = Compare

    def __init__(self, prevState: Any, actorNum: int = 0) -> None:
        super().__init__(prevState, actorNum)
        self.iterFin = min(3, place(self.worker) + 1)


Pass.nextState = Passes


class Fetch(Begin):
    nextState = Passes


def first_pass(worker: Context) -> list[Any]:
    """Return what makes output.ivf and its state, without any neighbour."""
    commands: list[Any] = [
        (None, "seti:run_iter:0"),
        f"seti:send_statefile:{int(not is_last(worker))}",
        vpxenc("output.ivf"),
    ]
    if worker.job.params.keyframe_distance > 1 or worker.job.params.upload_states:
        dump = f"run:{PROGRAMS}/xc-dump ##TMPDIR##/output.ivf ##TMPDIR##/final.state 2>&1"
        commands.append((ENDED, dump))
    if "first" in worker.input["keys"]:
        commands.append((ENDED, "run:cp ##TMPDIR##/output.ivf ##TMPDIR##/first.ivf"))
    return [*commands, (ENDED, None)]


def later_pass(worker: Context) -> list[Any]:
    """Return what encodes anew, from the neighbour's state.

    In pass 1 only k = 1 has its last state, which k = 2 waits for.
    """
    number, k = worker.info["pass"], place(worker)
    sends = not is_last(worker) and (number == 2 or k == 1)
    commands: list[Any] = [
        (None, f"seti:run_iter:{1 if number == 1 else k}"),
        f"seti:send_statefile:{int(sends)}",
    ]
    encode: Any = xc_enc("##INSTATESWITCH##")
    if "prev_state" in worker.input["keys"]:
        commands.append("run:cp ##TMPDIR##/final.state ##TMPDIR##/prev.state")
        encode = (ENDED, encode)
    return [*commands, encode, (ENDED, None)]


# ---------------------------------------------------------------- the pipeline

VIDEO = Parameter("video", str, "the folder of the chunks", "sintel-1k-y4m_06")
SHARED = (
    Parameter("bucket", str, "the S3 bucket that holds the video", "excamera-us-east-1"),
    Parameter("quality", int, "vpxenc's cq-level; less is better", 30, 0, 63),
    Parameter("offset", int, "chunks to leave out at the beginning", 0, minimum=0),
    Parameter("upload_states", bool, "upload states and first attempts, too", False),
)


class XcEnc(Pipeline):
    name = "xcenc"
    may_run_twice = False  # two workers of one name would get in each other's way at the relay
    relay_keep = True  # a later attempt gets its neighbour's state again
    description = "Encode Y4M chunks as VP8 side by side, with few key frames (ExCamera)."
    parameters = (
        VIDEO,
        Parameter("keyframe_distance", int, "chunks from one key frame to the next", minimum=1),
        *SHARED,
        Parameter("hash_s3keys", bool, "all keys have four digits of a hash in front", False),
    )

    def plan(self, params: Params) -> list[dict[str, Any]]:
        planned = []
        for actor in range(params.workers):
            chunk = actor + params.offset
            kinds = ["out"]
            if params.upload_states:
                kinds += ["first", "final_state"]
                kinds += ["prev_state", "comp_txt"] if actor % params.keyframe_distance else []
            planned.append(
                {
                    "in_key": f"{params.video}/{chunk:08d}.y4m",
                    "keys": out_keys(params, params.video, kinds, chunk),
                }
            )
        return planned

    def order(self, params: Params, actors: int) -> list[int]:
        """All groups begin early."""
        return deal(actors, params.keyframe_distance)

    def begin(self, worker: Context) -> Fetch:
        return Fetch(worker, worker.actor)

    def finish(self, job: JobFacts, outcomes: Sequence[Finish]) -> dict[str, Any]:
        return stored(job, outcomes)


def out_keys(params: Params, folder: str, kinds: Sequence[str], chunk: int) -> dict[str, str]:
    """Return what is stored where."""
    quality = f"{params.quality}_x_k{params.keyframe_distance}"
    return {
        kind: f"{folder}/{kind}_{quality}/{chunk:08d}.{FILES[kind].rpartition('.')[2]}"
        for kind in kinds
    }


def stored(job: JobFacts, outcomes: Sequence[Finish]) -> dict[str, Any]:
    """Return the keys of all chunks in order, as they are in S3."""
    name = hashed if job.params.get("hash_s3keys") else str
    return {"keys": [name(outcome.result["out"]) for outcome in outcomes if not outcome.error]}


xcenc = XcEnc()
