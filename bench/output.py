"""What workers print, on disk: the cost of a LOG frame beside that of keeping its actor's last bytes in memory.

Both get the same frames in the same run, parsed as the daemon parses them: a second's output of many actors,
some lines in each frame. The reactor's thread only collects; another one writes, which is measured
as well. Machines are noisy: each figure is the median of several runs taken in turn.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from mu.in_thread import P, T
from mu.messages import Log, from_worker
from mu.output.files import OutputLimits
from mu.output.keeper import FLUSH_S, OutputKeeper
from mu.output.pieces import Piece

FRAME = b"LOG:3:" + b"".join(b"[%03d] encoded a frame in 12.5 ms\n" % n for n in range(20))
FRAMES = 5
"""Of each actor in a second, which is what a worker sends at most."""
IN_MEMORY = 65536


class LastBytes:
    """Keeps the end of each actor's output in memory."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: dict[tuple[str, int], bytearray] = defaultdict(bytearray)

    def write(self, job: str, actor: int, piece: Piece) -> None:
        kept = self._kept[job, actor]
        kept += piece.text
        del kept[: max(0, len(kept) - self._limit)]


def receive(write: Callable[[str, int, Piece], None], actors: int) -> float:
    """Return the CPU time of one frame of each of these actors, in seconds."""
    began = time.thread_time()
    for actor in range(actors):
        said = from_worker(FRAME, True)
        if isinstance(said, Log):
            write("0123456789ab", actor, Piece(1.8e9, 1, said.command, "", said.output))
    return time.thread_time() - began


def measure(actors: int, seconds: int) -> dict[str, float]:
    """Return the CPU times of a frame, in microseconds."""
    clock, memory = Clock(), LastBytes(IN_MEMORY)
    wrote = 0.0

    def writes(call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        nonlocal wrote
        done: Deferred[T] = Deferred()
        began = time.thread_time()
        done.callback(call(*args, **kwargs))
        wrote += time.thread_time() - began
        return done

    with tempfile.TemporaryDirectory(prefix="mu-bench-") as folder:
        keeper = OutputKeeper(Path(folder), OutputLimits(), clock, writes, writes)
        in_memory = on_disk = 0.0
        for _ in range(seconds):
            for frame in range(FRAMES):
                in_memory += receive(memory.write, actors)
                on_disk += receive(keeper.write, actors)
                if frame in (2, FRAMES - 1):
                    clock.advance(FLUSH_S)
    frames = actors * seconds * FRAMES / 1e6
    return {
        "in_memory_us": in_memory / frames,
        "on_disk_us": on_disk / frames,
        "writing_us": wrote / frames,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--actors", type=int, default=1000)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    runs = [measure(args.actors, args.seconds) for _ in range(args.runs)]
    told = {name: round(statistics.median(run[name] for run in runs), 2) for name in runs[0]}
    print(json.dumps({"actors": args.actors, "frame_bytes": len(FRAME), **told}))


if __name__ == "__main__":
    main()
