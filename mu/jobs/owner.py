"""What a job needs from its owner."""

from collections.abc import Sequence
from typing import Protocol


class Owner(Protocol):
    """What a job needs from its owner (a mu.jobs.run.Run)."""

    def changed(self) -> None:
        """Call the job's `advance` if the job has begun: something happened."""

    def freed(self, launch_id: str) -> None:
        """Free the place of a launch: its worker has ended, or will not start."""

    def connected(self, launch_id: str) -> None:
        """Note that the worker of a launch has connected."""

    def lost(self, session: str) -> None:
        """Find out what became of a worker whose connection is lost, and call `worker_ended`."""

    def missed(self, launch_id: str) -> bool:
        """Return whether the worker of a launch, which did not connect, may have found no place."""

    def had_no_place(self, launch_id: str) -> bool:
        """Return whether it is known that a launch found no place, so that nothing ran."""

    def waits_for_place(self) -> str:
        """Describe for users what launches wait for, such as a place; empty: no launch waits."""

    def launch(self, launches: Sequence[str]) -> None:
        """Make these launches: they are on disk now."""

    def settled(self) -> None:
        """Find out how the job ended, and call `end`: all actors have ended, or it was stopped."""

    def over(self) -> None:
        """Clean up: the job's end is on disk."""
