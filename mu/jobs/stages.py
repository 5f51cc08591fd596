"""Which actors of a job wait for which others, and what becomes of them: a rule without I/O.

An actor may begin once all actors before it have ended. One that failed is tolerated for as long as
the job tolerates all that have failed; then its result counts as None. Otherwise the actors that
wait for it fail, too, unless they have begun.

Actors that wait for the same others share a gate, so that each end costs no more than the number of
gates that it concerns.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from mu.events import Finish

After = Sequence[Sequence[Sequence[int]]]
"""Rows as in mu.journal.records.Planned.after: the actors before, and those that wait for them."""
Names = Sequence[Sequence[Any]]
"""Rows as in mu.journal.records.Planned.stages: the name of a stage, and its actors."""


class Gate:
    """Actors that wait for the same others: for all that are `before`."""

    __slots__ = ("before", "behind", "failed", "left", "title")

    def __init__(self, before: Sequence[int], behind: Sequence[int], title: str) -> None:
        self.before = before
        self.behind = behind
        self.title = title
        """Whom they wait for, for users."""
        self.left = len(before)
        """How many of those before have not ended."""
        self.failed: list[int] = []
        """Which of those before have failed, in the order of their ends."""

    def __str__(self) -> str:
        """Describe for users what the actors behind it wait for."""
        if len(self.before) == 1:
            return self.title
        return f"{self.title}: {self.left} of {len(self.before)} to go"

    @property
    def failure(self) -> str:
        """Say why the actors behind it cannot begin."""
        which, failed = f"actor {self.failed[0]}", len(self.failed)
        if failed == 1:
            return f"it could not begin: {which}, which it waits for, failed"
        return f"it could not begin: {failed} actors that it waits for failed, the first is {which}"


class Stages:
    """Counts, for each gate of a job, how many of the actors before it have not ended.

    `tolerate` is how many actors of the job may fail.
    """

    def __init__(self, after: After = (), names: Names = (), tolerate: int = 0) -> None:
        named = {tuple(actors): f"stage {name}" for name, actors in names}
        self._gates = [
            Gate(before, behind, named.get(tuple(before)) or _title(before))
            for before, behind in after
        ]
        self._of = {actor: gate for gate in self._gates for actor in gate.behind}
        self._beyond: dict[int, list[Gate]] = {}  # by actor, the gates that it is before
        for gate in self._gates:
            for actor in gate.before:
                self._beyond.setdefault(actor, []).append(gate)
        self._named = {actor: str(name) for name, actors in names for actor in actors}
        self._tolerate = tolerate
        self._failed = 0  # actors of the job
        self._spoilt: list[Gate] = []  # some before it failed, and `doomed` has not returned it

    def __bool__(self) -> bool:
        """Whether any actor waits for others, or has."""
        return bool(self._gates)

    def gate(self, actor: int) -> Gate | None:
        """Return the gate that an actor has to pass; None: it waits for nobody."""
        return self._of.get(actor)

    def closed(self, actor: int) -> Gate | None:
        """Return the gate behind which an actor waits; None: it may begin."""
        gate = self._of.get(actor)
        return gate if gate is not None and gate.left else None

    def closed_gates(self) -> Iterator[Gate]:
        """Yield the gates behind which actors wait."""
        return (gate for gate in self._gates if gate.left)

    def name(self, actor: int) -> str:
        """Return the name of an actor's stage; empty: it has none."""
        return self._named.get(actor, "")

    def beyond(self, actor: int) -> Sequence[Gate]:
        """Return the gates that an actor is before."""
        return self._beyond.get(actor, ())

    def peers(self, actor: int) -> object:
        """Return a value that is the same for the actors of one stage.

        Without names, these are the actors that wait for the same others.
        """
        return self._named.get(actor) or self._of.get(actor)

    def end(self, actor: int, failed: bool) -> list[int]:
        """Note that an actor has ended for good; return the actors that may begin now.

        It must be called once for each actor.
        """
        self._failed += failed
        opened: list[int] = []
        for gate in self.beyond(actor):
            gate.left -= 1
            if failed:
                if not gate.failed:
                    self._spoilt.append(gate)
                gate.failed.append(actor)
            if not gate.left:
                opened += gate.behind
        return opened

    def doomed(self) -> Iterator[tuple[int, Gate]]:
        """Yield each actor that must fail if it has not begun, and its gate; each one once."""
        while self._spoilt and self._failed > self._tolerate:
            gate = self._spoilt.pop()
            for actor in gate.behind:
                yield actor, gate


def behind(actors: Iterable[int], after: After) -> set[int]:
    """Return the actors that wait for any of these, or for others that do."""
    found: set[int] = set()
    stages = Stages(after)
    waiting = list(actors)
    for actor in waiting:  # it grows
        for gate in stages.beyond(actor):
            if found.isdisjoint(gate.behind):
                found.update(gate.behind)
                waiting += gate.behind
    return found


class Results(Mapping[int, Any]):
    """The results of the actors before an open gate, by number; None for those that failed.

    Those behind the gate share it, so each look-up returns a copy: what one of them changes, no
    other one sees, nor a replay.
    """

    __slots__ = ("_texts",)

    def __init__(self, gate: Gate, end_of: Callable[[int], Finish | None]) -> None:
        """`end_of` returns how an actor ended."""
        self._texts: dict[int, str] = {}
        for actor in gate.before:
            end = end_of(actor)
            done = end is not None and end.error is None
            self._texts[actor] = json.dumps(end.result if end and done else None)

    def __getitem__(self, actor: int) -> Any:
        """Return a result as a restart finds it in the journal, so that a tuple is a list."""
        return json.loads(self._texts[actor])

    def __iter__(self) -> Iterator[int]:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)

    def __repr__(self) -> str:
        return repr(dict(self))  # without an address: a command may contain it


def _title(actors: Sequence[int]) -> str:
    """Name actors, whose numbers are sorted, for users."""
    first, last = actors[0], actors[-1]
    if len(actors) == 1:
        return f"actor {first}"
    if len(actors) == 2:
        return f"actors {first} and {last}"
    if len(actors) == last - first + 1:
        return f"actors {first} to {last}"
    return f"actors {', '.join(map(str, actors[:3]))}{' ...' if len(actors) > 3 else ''}"
