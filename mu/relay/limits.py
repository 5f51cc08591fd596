"""The relay's sizes and limits, and what it needs to know about jobs."""

from dataclasses import dataclass
from typing import Protocol

KIB, MIB = 2**10, 2**20
OVERHEAD = 4 * KIB
"""How much each frame counts besides its bytes, for the records about it in memory and on disk."""
TURN_STEPS = 300
"""How many steps a connection gets in a turn of the reactor; a frame takes three of them."""
COMMIT_CHANGES = 1000
"""How many changes are committed together at most, shared equally among the jobs."""
SMALL = 64 * KIB
"""Frames up to this size stay in memory until they are passed on."""
BLOB = 256 * KIB
"""Longer frames that must be on disk are written to a file while they arrive."""
LARGE = 4 * MIB
"""Longer frames are always written to a file while they arrive."""


class FrameTooLarge(Exception):
    """A frame that exceeds what the relay may hold; its sender's connection must end."""


class JobLookup(Protocol):
    """What the relay needs to know about jobs."""

    def keeps(self, job: str) -> float:
        """Return how long to keep all frames of a job, even confirmed ones, in seconds.

        This is 0 without the job's switch `relay_keep`, and infinity with it: until the job ends.
        """

    def ended(self, job: str) -> bool:
        """Return whether the job is known to have ended."""


@dataclass(frozen=True, slots=True)
class RelayLimits:
    """Limits in seconds and bytes."""

    keep_s: float = 600.0
    memory: int = 64 * MIB
    """For all waiting frames together; beyond it, frames are written to disk."""
    mailbox: int = 2**30
    """For each name, in memory and on disk."""
    total: int = 2**33
    """For all names together, in memory and on disk."""
