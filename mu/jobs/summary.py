"""A job's JSON for the control port, whether it runs, has ended or was lost in a restart."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from mu.jobs.usage import Usage
from mu.messages import encode
from mu.strict_json import JSON

COUNTED = "waiting", "running", "done", "failed", "cancelled"
"""The states of actors, in the order of `counts`."""

OF_NOW = "dismissed", "cost_usd", "cost_usd_at_most", "gb_s"
"""Fields that a restart of the daemon may change; all others are on disk."""


Tally = tuple[int, int, int]
"""How many inputs there are, and how many of them were handled: well, and in vain."""


def tally_json(tally: Tally = (0, 0, 0)) -> dict[str, int]:
    total, done, failed = tally
    return {"total": total, "done": done, "failed": failed}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSummary:
    """A job as users see it, with the fields of GET /jobs/<id> in the same order.

    Times are seconds since the epoch.
    """

    id: str
    name: str = ""
    pipeline: str
    workers: int
    state: str
    counts: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTED, 0))
    inputs: Mapping[str, int] = field(default_factory=tally_json)
    created: float
    launched: float | None = None
    first_hello: float | None = None
    last_hello: float | None = None
    finished: float | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    engine: str = ""
    function: str = ""
    functions: Sequence[str] = ()
    regions: Sequence[str] = ()
    spares: int = 0
    retries: int = 0
    rerun: str | None = None
    launches: Mapping[str, int] = field(default_factory=dict)
    dismissed: int = 0
    error: str | None = None
    cost_usd: float | None = None
    cost_usd_at_most: float | None = None
    max_cost_usd: float = 0.0
    gb_s: float | None = None
    used: Mapping[str, float | None] = field(default_factory=lambda: Usage().json())
    result: Any = None

    def json(self) -> JSON:
        """Return it as a dict of JSON values."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    @classmethod
    def read(cls, told: JSON) -> "JobSummary":
        """Return the summary in this JSON; an earlier version may have written fewer fields."""
        known = {one.name for one in fields(cls)}
        counts = dict.fromkeys(COUNTED, 0) | told.get("counts", {})
        each = tally_json((told["workers"], counts["done"], counts["failed"]))
        given: JSON = {"inputs": each}
        given |= {name: value for name, value in told.items() if name in known}
        return cls(**given | {"counts": counts})


def readable(text: str) -> str:
    """Return text for users: bytes that were not UTF-8 become replacement characters."""
    return encode(text).decode("utf-8", "replace")
