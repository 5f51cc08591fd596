"""xcenc7: the ExCamera encoder for chunks that overlap by one frame.

Every chunk but the first of its group has one extra frame: it begins with the last frame of the chunk
before it. So each chunk is encoded once without its neighbour, and then once more from its left
neighbour's state, one chunk after the other. This is one pass less than xcenc needs. The function's
bundle has vpxenc, xc-enc and xc-terminate-chunk.
"""

from collections.abc import Sequence

from mu.messages import parse_retval
from mu.parameters import Parameter, Params
from mu.pipelines.dealing import deal, whole_groups
from mu.pipelines.mending import may_mend
from mu.pipelines.texts import LAST_NUMBER, readable
from mu.pipelines.xcenc import (
    ENDED,
    PROGRAMS,
    SHARED,
    Begin,
    UploadChunk,
    check_chunks,
    is_last,
    left_neighbour,
    out_keys,
    place,
    run_with_state,
    stored,
    vpxenc,
    xc_enc,
)
from mu.pipelines.y4m import check_frames
from mu.plugins import ActorInput, Outcome, Pipeline
from mu.states import (
    CommandListState,
    Context,
    ErrorState,
    JobFacts,
    OnePassState,
    Previous,
    State,
)


class EncodeOverlapping(CommandListState):
    extra = "(encoding)"
    nextState = UploadChunk

    def __init__(self, prevState: Previous, actorNum: int = 0) -> None:
        k = place(self.worker)
        chained = self.job.params.keyframe_distance > 1
        self.commandlist = [
            *run_with_state(
                k, not is_last(self.worker), vpxenc("prev.ivf" if chained else "output.ivf")
            ),
            *([(ENDED, self._again(k))] if chained else []),
            (ENDED, None),
        ]
        super().__init__(prevState, actorNum)

    @staticmethod
    def _again(k: int) -> str:
        """Return the command that makes output.ivf and its state from prev.ivf."""
        if k:  # not ##INSTATESWITCH##: it names a second state, which only xcenc has
            return xc_enc(f"-r -I ##TMPDIR##/{k - 1}.state -p ##TMPDIR##/prev.ivf", "-e ")
        files = "##TMPDIR##/prev.ivf ##TMPDIR##/output.ivf ##TMPDIR##/final.state"
        return f"run:{PROGRAMS}/xc-terminate-chunk {files} 2>&1"


class FramesCounted(OnePassState):
    extra = "(counting frames)"
    expect = "OK:RETVAL("

    def post_transition(self) -> State:
        status, output = parse_retval(self.messages[-1])
        if status:
            return ErrorState(self, readable(output).strip())
        return EncodeOverlapping(self)


class CountFrames(CommandListState):
    """Refuse a chunk that lacks frames or the one in front; only the job's last may be shorter."""

    extra = "(counting frames)"
    nextState = FramesCounted

    def __init__(self, prevState: Previous, actorNum: int = 0) -> None:
        in_front = int(place(self.worker) > 0)
        most = self.job.params.frames + in_front
        least = 1 + in_front if self.actorNum == self.job.actors - 1 else most
        key = self.worker.input["in_key"]
        self.commandlist = [(None, f"run:{check_frames('##TMPDIR##/input.y4m', key, least, most)}")]
        super().__init__(prevState, actorNum)


class FetchOverlapping(Begin):
    nextState = CountFrames

    def others(self) -> list[str]:
        chained, k = self.job.params.keyframe_distance > 1, place(self.worker)
        return ["xc-terminate-chunk"] if chained and not k else []


class XcEnc7(Pipeline):
    name = "xcenc7"
    may_mend = staticmethod(may_mend)
    may_run_twice = False  # two workers with one name would interfere with each other at the relay
    uses_relay = True
    relay_keep = True  # so that a later attempt gets its neighbour's state again
    description = (
        "Encode overlapping Y4M chunks as VP8 in parallel, with few key frames (ExCamera)."
    )
    parameters = (
        Parameter("video", str, "the beginning of the folder names", "sintel-1k-y4m"),
        Parameter(
            "keyframe_distance",
            int,
            "the number of chunks from one key frame to the next",
            16,
            1,
            LAST_NUMBER,
        ),
        Parameter(
            "frames", int, "frames per chunk, without the extra one", 6, minimum=1, maximum=98
        ),
        *SHARED,
    )

    def check(self, params: Params) -> None:
        check_chunks(params, f"{params.video}_{params.frames:02d}")

    def plan(self, params: Params) -> list[ActorInput]:
        planned: list[ActorInput] = []
        kinds = ["out", "final_state"] if self._has_states(params) else ["out"]
        for actor in range(params.workers):
            chunk = actor + params.offset
            length = params.frames + (actor % params.keyframe_distance > 0)
            folder = f"{params.video}_{params.frames:02d}"
            planned.append(
                {
                    "in_key": f"{params.video}_{length:02d}/{chunk:08d}.y4m",
                    "keys": out_keys(params, folder, kinds, chunk),
                }
            )
        return planned

    @staticmethod
    def _has_states(params: Params) -> bool:
        return bool(params.upload_states and params.keyframe_distance > 1)

    def order(self, params: Params, actors: int) -> list[int]:
        """Deal the actors so that all groups begin early."""
        return deal(actors, params.keyframe_distance)

    def neighbour(self, params: Params, actor: int) -> int | None:
        return left_neighbour(params, actor)

    def inputs(self, given: ActorInput) -> list[str]:
        return [given["in_key"]]

    def rerun(self, params: Params, outcomes: Sequence[Outcome]) -> dict[int, ActorInput]:
        return whole_groups(outcomes, params.keyframe_distance)

    def begin(self, worker: Context) -> FetchOverlapping:
        return FetchOverlapping(worker, worker.actor)

    def finish(self, job: JobFacts, outcomes: Sequence[Outcome]) -> dict[str, object]:
        return stored(job, outcomes)


xcenc7 = XcEnc7()
