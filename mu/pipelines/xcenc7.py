"""xcenc7: the ExCamera encoder on chunks that overlap by a frame.

A chunk but the first of its group has one frame more: it begins with the last frame of the chunk
before it. So each is encoded once alone, and once more from its left neighbour's state, one chunk
after the other: a pass less than xcenc needs. The bundle has vpxenc, xc-enc and xc-terminate-chunk.
"""

from collections.abc import Sequence
from typing import Any

from mu.events import Finish
from mu.parameters import Parameter, Params
from mu.pipelines.dealing import deal
from mu.pipelines.xcenc import (
    ENDED,
    PROGRAMS,
    SHARED,
    Begin,
    Upload,
    is_last,
    out_keys,
    place,
    stored,
    vpxenc,
    xc_enc,
)
from mu.plugins import Pipeline
from mu.states import CommandListState
from mu.states.context import Context, JobFacts


class Encode(CommandListState):
    extra = "(encoding)"
    nextState = Upload

    def __init__(self, prevState: Any, actorNum: int = 0) -> None:
        k = place(self.worker)
        chained = self.job.params.keyframe_distance > 1
        self.commandlist = [
            (None, f"seti:run_iter:{k}"),
            f"seti:send_statefile:{int(not is_last(self.worker))}",
            vpxenc("prev.ivf" if chained else "output.ivf"),
            *([(ENDED, self._again(k))] if chained else []),
            (ENDED, None),
        ]
        super().__init__(prevState, actorNum)

    @staticmethod
    def _again(k: int) -> str:
        """Return what makes of prev.ivf the output and its state."""
        if k:  # ##INSTATESWITCH## would name a second state, which only xcenc has
            return xc_enc(f"-r -I ##TMPDIR##/{k - 1}.state -p ##TMPDIR##/prev.ivf", "-e ")
        files = "##TMPDIR##/prev.ivf ##TMPDIR##/output.ivf ##TMPDIR##/final.state"
        return f"run:{PROGRAMS}/xc-terminate-chunk {files} 2>&1"


class Fetch(Begin):
    nextState = Encode


class XcEnc7(Pipeline):
    name = "xcenc7"
    may_run_twice = False  # two workers of one name would get in each other's way at the relay
    relay_keep = True  # a later attempt gets its neighbour's state again
    description = (
        "Encode overlapping Y4M chunks as VP8 side by side, with few key frames (ExCamera)."
    )
    parameters = (
        Parameter("video", str, "the first part of the folders", "sintel-1k-y4m"),
        Parameter("keyframe_distance", int, "chunks from one key frame to the next", 16, 1),
        Parameter("frames", int, "a chunk's own frames", 6, minimum=1, maximum=98),
        *SHARED,
    )

    def plan(self, params: Params) -> list[dict[str, Any]]:
        planned = []
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
        """All groups begin early."""
        return deal(actors, params.keyframe_distance)

    def begin(self, worker: Context) -> Fetch:
        return Fetch(worker, worker.actor)

    def finish(self, job: JobFacts, outcomes: Sequence[Finish]) -> dict[str, Any]:
        return stored(job, outcomes)


xcenc7 = XcEnc7()
