"""What the daemon counts since its start. Pure: plain numbers, which mu.metrics turns into metrics.

The parts of the daemon add to them where something happens, so adding must cost next to nothing.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from mu.messages import COMMANDS

KINDS = (*sorted(COMMANDS), "other")
"""The kinds of commands that are told apart."""
ANSWERS = "accepted", "throttled", "unreached", "refused", "unknown", "late"
"""What can become of a launch: an engine's answers, and that its worker did not connect in time."""
ENDS = "done", "failed", "cancelled"
"""How a job or an attempt can end."""
DELIVERIES = "delivered", "failed", "given_up"
"""How attempts to notify of a job's end can end; `given_up` comes in addition to the last `failed`."""

COMMAND_BOUNDS = (0.005, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0, 60.0, 300.0, 900.0)
"""From a round trip to a long run, in seconds."""
SHORT_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
"""From a commit on a fast disk to a daemon that stands still, in seconds."""


class Durations:
    """A histogram of times in seconds."""

    __slots__ = ("_counts", "bounds", "total_s")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        """The upper bounds of its buckets, ascending; one without a bound follows them."""
        self.total_s = 0.0
        self._counts = [0] * (len(bounds) + 1)

    def add(self, seconds: float) -> None:
        self._counts[bisect_left(self.bounds, seconds)] += 1
        self.total_s += seconds

    @property
    def count(self) -> int:
        return sum(self._counts)

    def cumulated(self) -> Iterator[tuple[float, int]]:
        """Yield each bound, infinity last, and how many times were at most that."""
        below = 0
        for bound, count in zip((*self.bounds, float("inf")), self._counts, strict=True):
            below += count
            yield bound, below


@dataclass(slots=True)
class Traffic:
    """Frames and bytes over the connections of one port."""

    frames_in: int = 0
    frames_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    dropped: int = 0
    """Frames that will not be delivered; in the relay only."""


@dataclass(slots=True)
class Totals:
    """What one daemon counts."""

    traffic: Traffic = field(default_factory=Traffic)
    """Of the worker port."""
    accepted: int = 0
    """Connections to the worker port."""
    refused: int = 0
    """Those of them that never said hello, and those that were not let in."""
    lost: int = 0
    """Connections that broke while their worker had an actor."""
    resumed: int = 0
    """Workers that reconnected and resumed."""
    launches: Counter[str] = field(default_factory=Counter)
    """By what became of them (ANSWERS)."""
    jobs: Counter[str] = field(default_factory=Counter)
    """Those that have ended, by how (ENDS)."""
    attempts: Counter[str] = field(default_factory=Counter)
    """Those that have ended, by how (ENDS)."""
    retries: int = 0
    """Failed actors that were queued again."""
    spares_used: int = 0
    """Waiting workers that took over a failed actor."""
    stragglers: int = 0
    """Slow actors that were started a second time."""
    dismissed: int = 0
    """Workers that were told to quit because there was nothing for them to do."""
    commands: dict[str, Durations] = field(
        default_factory=lambda: {kind: Durations(COMMAND_BOUNDS) for kind in KINDS}
    )
    """How long commands took, from their effect to the last reply, by kind."""
    failed_commands: Counter[str] = field(default_factory=Counter)
    """Those that were answered with FAIL, by kind."""
    commits: Durations = field(default_factory=lambda: Durations(SHORT_BOUNDS))
    """Of the journal."""
    loop_lag: Durations = field(default_factory=lambda: Durations(SHORT_BOUNDS))
    """How late the event loop called what was due."""
    notifications: Counter[str] = field(default_factory=Counter)
    """Attempts to deliver them, by how they ended, and those that were given up (DELIVERIES)."""
    ended_usd: float = 0.0
    """What the jobs that have ended have cost, less what resumed ones had cost before the start."""

    def answered(self, command: str, reply: str, seconds: float) -> None:
        """Count the last reply to a command."""
        kind = command.partition(":")[0]
        took = self.commands.get(kind)
        if took is None:
            kind, took = "other", self.commands["other"]
        took.add(seconds)
        if reply[:4] == "FAIL":
            self.failed_commands[kind] += 1
