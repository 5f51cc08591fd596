"""xcenc: the ExCamera encoder. It encodes chunks in parallel, almost as well as a single encoder.

Each actor encodes its chunk with vpxenc, and then encodes it again from the final decoder state of
its left neighbour, so that it needs no key frame. Chunks come in groups of `keyframe_distance`, with
a key frame at the beginning of each group. The actor at position k of its group does:

    pass 0              vpxenc alone; the resulting state goes to k + 1
    pass 1, k >= 1      encode again from the neighbour's state of pass 0, all at the same time
    pass 2, k >= 2      encode again from the neighbour's final state, one after the other, but quickly

The function's bundle has the programs of the encoder: vpxenc, xc-enc and xc-dump (and comp-states,
for upload_states), or the variable MU_XCENC_BIN names their folder.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence

from mu.messages import parse_retval
from mu.parameters import FieldError, Parameter, Params
from mu.pipelines.dealing import deal, whole_groups
from mu.pipelines.mending import check_programs, may_mend, not_found
from mu.pipelines.texts import LAST_NUMBER, check_bucket, check_given, check_key, check_last
from mu.plugins import ActorInput, Outcome, Pipeline
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
    connect_command,
)
from mu.states.context import shortened

PROGRAMS = '"${MU_XCENC_BIN:-.}"'
ENDED = "OK:RETVAL(0)"
LOOKED = "OK:RETVAL("


def vpxenc(out: str) -> str:
    """Return the command that encodes the chunk without any neighbour."""
    return (
        f"run:{PROGRAMS}/vpxenc --ivf -q --codec=vp8 --good --cpu-used=0 --end-usage=cq --min-q=0"
        " --max-q=63 --cq-level=##QUALITY## --buf-initial-sz=10000 --buf-optimal-sz=20000"
        " --buf-sz=40000 --undershoot-pct=100 --passes=2 --auto-alt-ref=1 --threads=1"
        " --token-parts=0 --tune=ssim --target-bitrate=4294967295"
        f" -o ##TMPDIR##/{out} ##TMPDIR##/input.y4m 2>&1"
    )


def xc_enc(switches: str, options: str = "") -> str:
    """Return the command that encodes prev.ivf again, once the neighbour's state has arrived."""
    return (
        f"run:##INSTATEWAIT## {PROGRAMS}/xc-enc {options}-w 0.75 -i y4m -O ##TMPDIR##/final.state"
        f" -o ##TMPDIR##/output.ivf {switches} ##TMPDIR##/input.y4m 2>&1"
    )


def hashed(key: str) -> str:
    """Return the key that workers use instead with hash_s3keys."""
    digits = hashlib.md5(key.rpartition("/")[2].encode(), usedforsecurity=False).hexdigest()
    return f"{digits[:4]}-{key}"


def place(worker: Context) -> int:
    """Return k, the position of an actor's chunk in its group."""
    return int(worker.actor % worker.job.params.keyframe_distance)


def is_last(worker: Context) -> bool:
    """Return whether no other actor needs an actor's state."""
    distance = worker.job.params.keyframe_distance
    return worker.actor == worker.job.actors - 1 or place(worker) == distance - 1


def left_neighbour(params: Params, actor: int) -> int | None:
    """Return the actor before an actor in its group; None: it is the first."""
    return actor - 1 if actor % params.keyframe_distance else None


# ---------------------------------------------------------------- what xcenc and xcenc7 share


class ChunkStored(TerminalState):
    extra = "(done)"

    def __init__(self, prevState: Previous, actorNum: int = 0) -> None:
        super().__init__(prevState, actorNum)
        self.result = self.worker.input["keys"]


class UploadChunk(CommandListState):
    """Upload each file that this actor has a key for. The replies may arrive in any order."""

    extra = "(uploading)"
    pipelined = True
    nextState = ChunkStored

    def __init__(self, prevState: Previous, actorNum: int = 0) -> None:
        uploads = [
            f"upload:{key}\0##TMPDIR##/{FILES[kind]}"
            for kind, key in self.worker.input["keys"].items()
        ]
        rest: list[CommandEntry] = [("OK:UPLOAD(", upload) for upload in uploads[1:]]
        self.commandlist = [(None, uploads[0]), *rest, ("OK:UPLOAD(", None)]
        super().__init__(prevState, actorNum)


FILES = {
    "out": "output.ivf",
    "first": "first.ivf",
    "final_state": "final.state",
    "prev_state": "prev.state",
    "comp_txt": "comp.txt",
}
"""The worker's file for each kind of key."""


class Begin(MachineState):
    """Set the worker's switches, fetch the chunk, look for the programs, connect to the relay.

    All at once: the replies may come in any order.
    """

    extra = "(fetching its chunk)"
    nextState: Callable[..., State] = TerminalState

    def __init__(self, prevState: Previous, actorNum: int = 0) -> None:
        super().__init__(prevState, actorNum)
        self._awaited = ["OK:HELLO"]

    def get_expect(self) -> list[str | None]:
        return list(dict.fromkeys(self._awaited))

    def transition(self, msg: str) -> State:
        prefix = next((one for one in self._awaited if msg.startswith(one)), None)
        if prefix is None:
            words = f"expected one of {self.get_expect()}, but the worker answered {shortened(msg)}"
            return ErrorState(self, words, not self.worker.may_mend(msg))
        self._awaited.remove(prefix)
        if prefix == "OK:HELLO":
            for expected, command in self._commands():
                self.enqueue(command)
                self._awaited.append(expected)
        elif prefix == LOOKED and (none := not_found(*parse_retval(msg))):
            return ErrorState(self, none, final=True)
        return self if self._awaited else self.nextState(self)

    def _commands(self) -> Iterator[tuple[str, str]]:
        """Yield each command, with the reply to wait for; the slowest come first."""
        params, me = self.job.params, self.actorNum + self.job.params.offset
        yield "OK:SETI", "seti:nonblock:1"
        yield "OK:SETI", "seti:bg_silent:1"
        yield "OK:SETI", f"seti:hash_s3keys:{int(params.get('hash_s3keys', False))}"
        yield "OK:SET(", f"set:bucket:{params.bucket}"
        yield "OK:RETRIEVE(", f"retrieve:{self.worker.input['in_key']}\0##TMPDIR##/input.y4m"
        yield LOOKED, f"run:{check_programs(*self._needed())}"
        yield "OK:SETI", "seti:expect_statefile:1"
        yield "OK:SETI", "seti:minimal_recode:1"
        yield "OK:SET(", f"set:cmdquality:{params.quality}"
        if params.keyframe_distance > 1:
            yield "OK:CONNECT", connect_command(self.job, me, me + 1)

    def _needed(self) -> Iterator[str]:
        """Yield the programs that this actor runs."""
        chained = self.job.params.keyframe_distance > 1
        yield f"{PROGRAMS}/vpxenc"
        if chained and place(self.worker):
            yield f"{PROGRAMS}/xc-enc"
        yield from (f"{PROGRAMS}/{name}" for name in self.others())

    def others(self) -> list[str]:
        """Return the names of the other programs that this actor runs."""
        raise NotImplementedError


# ---------------------------------------------------------------- the passes


class Compare(CommandListState):
    """Compare the states of the last two passes, if the result has a key."""

    extra = "(comparing states)"
    nextState = UploadChunk

    def __init__(self, prevState: Previous, actorNum: int = 0) -> None:
        if "comp_txt" in self.worker.input["keys"]:
            states = "##TMPDIR##/prev.state ##TMPDIR##/final.state"
            compare = f"run:{PROGRAMS}/comp-states {states} >##TMPDIR##/comp.txt 2>&1"
            self.commandlist = [
                (None, compare),
                ("OK:RETVAL(", None),
            ]  # 0 means that they are the same
        super().__init__(prevState, actorNum)


class Pass(CommandListState):
    def __init__(self, prevState: Previous, actorNum: int = 0) -> None:
        number = self.info["pass"]
        self.commandlist = first_pass(self.worker) if number == 0 else later_pass(self.worker)
        super().__init__(prevState, actorNum)

    def str_extra(self) -> str:
        return f"(pass {self.info['pass']})"


class Passes(ForLoopState):
    iterKey = "pass"
    loopState = Pass
    exitState = Compare

    def __init__(self, prevState: Previous, actorNum: int = 0) -> None:
        super().__init__(prevState, actorNum)
        self.iterFin = min(3, place(self.worker) + 1)


Pass.nextState = Passes


class FetchChunk(Begin):
    nextState = Passes

    def others(self) -> list[str]:
        params = self.job.params
        names = ["xc-dump"] if params.keyframe_distance > 1 or params.upload_states else []
        return names + (["comp-states"] if "comp_txt" in self.worker.input["keys"] else [])


def run_with_state(iteration: int, sends: bool, run: str) -> list[CommandEntry]:
    """Return the entries that send a run, and before it what makes its state number `iteration`.

    They do not wait for one another; the reply to the run is not awaited here.
    """
    return [
        (None, f"seti:run_iter:{iteration}"),
        (None, f"seti:send_statefile:{int(sends)}"),
        (None, run),
        ("OK:SETI", None),
        ("OK:SETI", None),
    ]


def first_pass(worker: Context) -> list[CommandEntry]:
    """Return the commands that make output.ivf and its state without any neighbour."""
    commands = run_with_state(0, not is_last(worker), vpxenc("output.ivf"))
    if worker.job.params.keyframe_distance > 1 or worker.job.params.upload_states:
        dump = f"run:{PROGRAMS}/xc-dump ##TMPDIR##/output.ivf ##TMPDIR##/final.state 2>&1"
        commands.append((ENDED, dump))
    if "first" in worker.input["keys"]:
        commands.append((ENDED, "run:cp ##TMPDIR##/output.ivf ##TMPDIR##/first.ivf"))
    return [*commands, (ENDED, None)]


def later_pass(worker: Context) -> list[CommandEntry]:
    """Return the commands that encode the chunk again, from the neighbour's state.

    After pass 1, only k = 1 has its final state, which k = 2 waits for.
    """
    number, k = worker.info["pass"], place(worker)
    sends = not is_last(worker) and (number == 2 or k == 1)
    second = worker.job.params.quality_s
    encode = xc_enc("##INSTATESWITCH##", "" if second == "x" else f"--s-ac-qi {second} ")
    iteration = 1 if number == 1 else k
    if "prev_state" not in worker.input["keys"]:
        return [*run_with_state(iteration, sends, encode), (ENDED, None)]
    keep = "run:cp ##TMPDIR##/final.state ##TMPDIR##/prev.state"
    return [(None, keep), (ENDED, None), *run_with_state(iteration, sends, encode), (ENDED, None)]


# ---------------------------------------------------------------- the pipeline

VIDEO = Parameter("video", str, "the folder of the chunks", "sintel-1k-y4m_06")
SHARED = (
    Parameter("bucket", str, "the S3 bucket of the video", "excamera-us-east-1"),
    Parameter("quality", int, "the cq-level of vpxenc; lower is better", 30, 0, 63),
    Parameter("offset", int, "the number of chunks to skip at the start", 0, minimum=0),
    Parameter("upload_states", bool, "also upload states and the output of the first pass", False),
)


class SecondQuality(Parameter):
    """A parameter that is a quality index of xc-enc, such as 40, or x for none."""

    def read(self, given: object, field: str) -> object:
        if not (isinstance(given, str) and re.fullmatch(r"x|[0-9]{1,3}", given, re.ASCII)):
            raise FieldError(
                field, f"{field} must be x or a number such as '40', got {given!r:.200}"
            )
        return given


QUALITY_S = SecondQuality(
    "quality_s", str, "xc-enc's --s-ac-qi, which newer ones do not have; x: it is not given", "x"
)


class XcEnc(Pipeline):
    name = "xcenc"
    may_mend = staticmethod(may_mend)
    may_run_twice = False  # two workers with one name would interfere with each other at the relay
    uses_relay = True
    relay_keep = True  # so that a later attempt gets its neighbour's state again
    description = "Encode Y4M chunks as VP8 in parallel, with few key frames (ExCamera)."
    parameters = (
        VIDEO,
        Parameter(
            "keyframe_distance",
            int,
            "the number of chunks from one key frame to the next",
            minimum=1,
            maximum=LAST_NUMBER,
        ),
        *SHARED,
        QUALITY_S,
        Parameter("hash_s3keys", bool, "whether all keys begin with four digits of a hash", False),
    )

    def check(self, params: Params) -> None:
        check_chunks(params, params.video)

    def plan(self, params: Params) -> list[ActorInput]:
        planned: list[ActorInput] = []
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
        """Deal the actors so that all groups begin early."""
        return deal(actors, params.keyframe_distance)

    def neighbour(self, params: Params, actor: int) -> int | None:
        return left_neighbour(params, actor)

    def inputs(self, given: ActorInput) -> list[str]:
        return [given["in_key"]]

    def rerun(self, params: Params, outcomes: Sequence[Outcome]) -> dict[int, ActorInput]:
        return whole_groups(outcomes, params.keyframe_distance)

    def begin(self, worker: Context) -> FetchChunk:
        return FetchChunk(worker, worker.actor)

    def finish(self, job: JobFacts, outcomes: Sequence[Outcome]) -> dict[str, object]:
        return stored(job, outcomes)


def check_chunks(params: Params, folder: str) -> None:
    """Raise FieldError for texts and numbers from which no keys can be made."""
    check_bucket(params)
    check_given(params, "video")
    last = params.offset + params.workers
    check_last("params.offset", last)
    for key in out_keys(params, folder, list(FILES), last).values():
        check_key("params.video", hashed(key) if params.get("hash_s3keys") else key)


def out_keys(params: Params, folder: str, kinds: Sequence[str], chunk: int) -> dict[str, str]:
    """Return the key of each kind of file."""
    second = params.get("quality_s", "x")
    quality = f"{params.quality}_{second}_k{params.keyframe_distance}"
    return {
        kind: f"{folder}/{kind}_{quality}/{chunk:08d}.{FILES[kind].rpartition('.')[2]}"
        for kind in kinds
    }


def stored(job: JobFacts, outcomes: Sequence[Outcome]) -> dict[str, object]:
    """Return the keys of all chunks in S3, in order."""
    name = hashed if job.params.get("hash_s3keys") else str
    return {"keys": [name(outcome.result["out"]) for outcome in outcomes if not outcome.error]}


xcenc = XcEnc()
