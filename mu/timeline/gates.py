"""When the actors of a job could begin that wait for others: once those had ended for good."""

from collections import Counter

from mu.journal.records import Assigned, AttemptEnded, NobodyCame, Planned, Record, Skipped


class Openings:
    """Follows the ends of all actors, also of those that a timeline leaves out.

    All times are in seconds since the epoch.
    """

    def __init__(self, plan: Planned, retries: int) -> None:
        self.opened: dict[int, float | None] = {}
        """When each actor that waits for others could begin; None: it could not yet."""
        self._retries = retries
        self._left = [len(before) for before, _ in plan.after]
        self._behind = [behind for _, behind in plan.after]
        self._beyond: dict[int, list[int]] = {}  # by actor, the rows that it is before
        for row, (before, behind) in enumerate(plan.after):
            self.opened |= dict.fromkeys(behind)
            for actor in before:
                self._beyond.setdefault(actor, []).append(row)
        self._ended: set[int] = set()
        self._running: Counter[int] = Counter()
        self._spent: Counter[int] = Counter()
        own = set(range(len(plan.inputs)) if plan.actors is None else plan.actors)
        for actor in {row[0] for row in plan.earlier if row[0] not in own}:
            self._end(actor, 0.0)

    def take(self, record: Record) -> None:
        """Take the next record of the job."""
        match record:
            case Assigned(actor=actor):
                self._running[actor] += 1
            case AttemptEnded(at=at, actor=actor, error=error, charged=charged):
                self._running[actor] -= 1
                self._spent[actor] += charged and error is not None
                self._settle(actor, at, error is None)
            case NobodyCame(at=at, actor=actor):
                self._spent[actor] += 1
                self._settle(actor, at, False)
            case Skipped(at=at, actor=actor):
                self._end(actor, at)

    def _settle(self, actor: int, at: float, done: bool) -> None:
        """Note the end of an attempt, and whether it was the last one."""
        if done or (not self._running[actor] and self._spent[actor] > self._retries):
            self._end(actor, at)

    def _end(self, actor: int, at: float) -> None:
        if actor in self._ended:
            return
        self._ended.add(actor)
        for row in self._beyond.get(actor, ()):
            self._left[row] -= 1
            if not self._left[row]:
                self.opened |= dict.fromkeys(self._behind[row], at)
