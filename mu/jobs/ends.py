"""The ends of a job's actors as users see them: in the order in which they came to be on disk."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred

from mu.jobs.summary import JSON, readable

if TYPE_CHECKING:
    from mu.jobs.actors import Actor


class ShownEnds:
    """The actors that have ended. Numbers of ends begin with 1."""

    def __init__(self) -> None:
        self._actors: list[Actor] = []
        self._waiting: list[Deferred[None]] = []

    def add(self, actor: "Actor") -> None:
        self._actors.append(actor)
        self._tell()

    def close(self) -> None:
        """There will be no more: the job has ended."""
        self._tell()

    def after(self, number: int, limit: int | None = None) -> list[JSON]:
        """Return the JSON of the ends after this number: at most `limit`, all for None."""
        end = None if limit is None else number + limit
        return [
            _row(at, actor.number, actor.state, actor.result, actor.error)
            for at, actor in enumerate(self._actors[number:end], number + 1)
        ]

    def next(self) -> Deferred[None]:
        """Return a Deferred that fires at the next end, or the job's. It may be cancelled."""
        waiting: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        return waiting

    def _tell(self) -> None:
        told, self._waiting = self._waiting, []
        for waiting in told:
            waiting.callback(None)


def ends_of(workers: Iterable[Mapping[str, object]]) -> list[JSON]:
    """Return the same JSON of a job that ended long ago, from that of its actors."""
    in_order = sorted(workers, key=lambda row: (row["since"], row["actor"]))
    names = "actor", "state", "result", "error"
    return [_row(at, *map(row.get, names)) for at, row in enumerate(in_order, 1)]  # type: ignore[arg-type]


def _row(number: int, actor: int, state: str, result: object, error: str | None) -> JSON:
    told = error and readable(error)
    return {"n": number, "actor": actor, "state": state, "result": result, "error": told}
