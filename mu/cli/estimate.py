"""What a job may cost: an upper bound from its limits, and an estimate from earlier jobs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from mu.aws import limits

if TYPE_CHECKING:
    from mu.client.answers import JobJson, PlanJson, SizeJson

EARLIER = 5
"""From how many earlier jobs the estimate is made: the latest."""


@dataclass(frozen=True, slots=True)
class Bound:
    """The most that a job can cost."""

    usd: float
    attempt_s: float
    """The longest that an attempt can run."""
    attempts: int
    """The most attempts that all actors can have together."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a job may need, if it is like earlier ones."""

    usd: float
    seconds: float
    jobs: int
    """How many earlier jobs it is made from."""


def bound(plan: PlanJson, size: SizeJson) -> Bound:
    """Return the most that the job can cost, with functions of this size.

    Each attempt waits as long as it may for its worker's hello, and then runs until its limit; each
    spare runs until the end. The function's timeout, the job's deadline and its limit of the cost end
    them earlier.
    """
    longest_s = min(size["timeout_s"] or limits.TIMEOUT.most, plan["deadline_s"])
    attempt_s = min(plan["hello_timeout_s"] + plan["worker_timeout_s"], longest_s)
    attempts = plan["actors"] * (1 + plan["retries"])
    seconds = attempts * attempt_s + plan["spares"] * plan["deadline_s"]
    seconds = min(seconds, (plan["actors"] + plan["spares"]) * plan["deadline_s"])
    prices = plan["prices"]
    price = prices["gb_s"][size["architecture"]] * size["memory_mb"] / 1024
    usd = seconds * price + (attempts + plan["spares"]) * prices["request"]
    return Bound(min(usd, plan["max_cost_usd"] or usd), attempt_s, attempts)


def inputs_of(inputs: Sequence[dict[str, object]]) -> int | None:
    """Return how many keys the actors have together; None: no actor has a list of keys."""
    lists = key_lists(inputs)
    return sum(map(len, lists)) if lists else None


def key_lists(inputs: Sequence[dict[str, object]]) -> list[list[object]]:
    """Return the lists of keys of the actors that have one; those of a later stage may not."""
    return [keys for given in inputs if isinstance(keys := given.get("keys"), list)]


def estimate(plan: PlanJson, jobs: Iterable[JobJson]) -> Estimate | None:
    """Return the estimate from the latest jobs that are done, of this pipeline and function.

    Costs are in proportion to inputs, times to the inputs of one worker.
    """
    inputs = inputs_of(plan["inputs"])
    usd, seconds = [], []
    for job in jobs:
        cost, finished = job.get("cost_usd"), job["finished"]
        same = (job["pipeline"], job.get("function"), job.get("engine"))
        if job["state"] != "done" or same != (plan["pipeline"], plan["function"], plan["engine"]):
            continue
        did = _inputs_done(job) if inputs is not None else job["workers"]
        if not did or not job["workers"] or cost is None or finished is None:
            continue
        ratio = (inputs if inputs is not None else plan["actors"]) / did
        usd.append(cost * ratio)
        seconds.append((finished - job["created"]) * ratio * job["workers"] / plan["actors"])
    if not usd:
        return None
    usd, seconds = usd[-EARLIER:], seconds[-EARLIER:]
    return Estimate(median(usd), median(seconds), len(usd))


def _inputs_done(job: JobJson) -> int:
    """Return how many inputs a job had, as its result tells; 0: it does not tell."""
    result = job["result"]
    if not isinstance(result, dict):
        return 0
    counts = [result.get(name) for name in ("done", "failed")]
    return sum(count for count in counts if isinstance(count, int))
