"""An overview of a job at one moment, small however many actors it has. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from mu.strict_json import JSON

MOST_GROUPS = 20
"""The most groups of actors that an overview lists."""
MOST_FAILED = 3
"""The most failed actors that an overview lists."""


@dataclass(frozen=True, slots=True)
class Glance:
    """What an overview needs of an actor."""

    number: int
    state: str
    label: str
    waits_for: str | None
    since: float
    error: str | None
    retried: bool

    @classmethod
    def read(cls, row: JSON) -> "Glance":
        """Return that of an actor's JSON."""
        state = row["state"]
        retried = bool(row.get("failures")) and state != "failed"
        label, waits_for = row["label"], row.get("waits_for")
        return cls(row["actor"], state, label, waits_for, row["since"], row["error"], retried)


@dataclass(slots=True)
class Group:
    """Actors that wait for the same."""

    actors: int
    since: float
    """The earliest time, in seconds since the epoch."""


def overview(job: JSON, glances: Iterable[Glance], awaited: str | None = None) -> JSON:
    """Return a job's JSON, and its actors that have not ended, grouped by what they wait for.

    The largest groups come first; those beyond MOST_GROUPS are left out. `awaited` is what waiting
    actors wait for whose glance does not say it.
    """
    groups: dict[tuple[str, str, str | None], Group] = {}
    failed: list[JSON] = []
    retried = 0
    for one in glances:
        if one.state == "failed":
            if len(failed) < MOST_FAILED:
                failed.append({"actor": one.number, "error": one.error})
            continue
        retried += one.retried
        if one.state in ("waiting", "running"):
            waits_for = one.waits_for
            if waits_for is None and one.state == "waiting":
                waits_for = awaited
            group = groups.setdefault((one.state, one.label, waits_for), Group(0, one.since))
            group.actors += 1
            group.since = min(group.since, one.since)
    largest = sorted(groups.items(), key=lambda named: -named[1].actors)[:MOST_GROUPS]
    return {
        "job": job,
        "groups": [
            {"actors": group.actors, "state": state, "label": label}
            | {"waits_for": waits_for, "since": group.since}
            for (state, label, waits_for), group in largest
        ],
        "failed": failed,
        "retried": retried,
    }
