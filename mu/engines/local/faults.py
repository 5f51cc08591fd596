"""Fault injection: parses `faults` of mu.conf, and decides which calls get which faults."""

import itertools
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from mu.aws.answers import TABLE
from mu.engines.local.errors import (
    GatewayError,
    LambdaError,
    access_denied,
    clock_skewed,
    expired_token,
    not_ready,
    of_table,
    too_many,
)

NONE = "none"
PROBABILITIES = ("throttle", "error", "cut", "duplicate", "lose")
ALLOWED = (*PROBABILITIES, "late", "answer", "inactive", "refuse", "expire", "skew", "seed")
REASONS = (
    "ReservedFunctionConcurrentInvocationLimitExceeded",
    "ConcurrentInvocationLimitExceeded",
    "CallerRateLimitExceeded",
    "FunctionInvocationRateLimitExceeded",
)
ERRORS: tuple[Callable[[], LambdaError], ...] = (
    lambda: LambdaError(500, "ServiceException", "The request cannot be processed."),
    lambda: GatewayError(502, "Bad Gateway"),
    lambda: GatewayError(503, "Service Unavailable"),
)


@dataclass(frozen=True, slots=True)
class Faults:
    """The faults to inject, parsed from `text`; probabilities are drawn for each Invoke.

    A late event starts `late_s` seconds after it was accepted. With the probability `answer`, a call
    fails with one of the error `codes` of mu.aws.answers. A function is not ready for `inactive`
    seconds after it was first invoked. Every call in the regions `refuse` is denied, and so is every
    call with the same access key after the first `expire`; with `skew`, the clock of every caller
    counts as that many seconds ahead.
    """

    text: str = NONE
    throttle: float = 0.0
    error: float = 0.0
    cut: float = 0.0
    duplicate: float = 0.0
    lose: float = 0.0
    late: float = 0.0
    late_s: float = 0.0
    refuse: tuple[str, ...] = ()
    expire: int | None = None
    seed: int = 0
    answer: float = 0.0
    codes: tuple[str, ...] = ()
    inactive: float = 0.0
    skew: int = 0

    @classmethod
    def parse(cls, text: str) -> "Faults":
        """Parse `throttle=0.3 late=0.1:3 seed=7`, or none. Raises ValueError."""
        if text in ("", NONE):
            return cls()
        values: dict[str, Any] = {}
        for word in text.split():
            name, equals, value = word.partition("=")
            if name not in ALLOWED:
                raise ValueError(f"unknown fault {name!r:.80}; the faults are {', '.join(ALLOWED)}")
            if not equals:
                raise ValueError(f"{name} has no value; write {name}=VALUE")
            if name in values:
                raise ValueError(f"{name} is set twice")
            values |= _read(name, value)
        return cls(text, **values)

    def __str__(self) -> str:
        return self.text


NO_FAULTS = Faults()


def _read(name: str, value: str) -> dict[str, Any]:
    """Return the fields of Faults that one fault sets."""
    match name:
        case "late":
            probability, _, seconds = value.partition(":")
            late, late_s = _number(probability, 1.0), _number(seconds, 86_400.0)
            if late is None or late_s is None:
                raise ValueError(
                    "late must be P:SECONDS, a probability from 0 to 1 and 0 to 86400 seconds,"
                    f" got {value!r:.80}"
                )
            return {"late": late, "late_s": late_s}
        case "answer":
            names, _, chance = value.rpartition(":")
            codes, answer = tuple(names.split(",")), _number(chance, 1.0)
            if unknown := [code for code in codes if code and code not in TABLE]:
                raise ValueError(f"answer has an unknown error code {unknown[0]!r:.80}")
            if answer is None or not all(codes):
                raise ValueError(
                    "answer must be CODE,...:P, error codes of AWS and a probability from 0 to 1,"
                    f" got {value!r:.80}"
                )
            return {"answer": answer, "codes": codes}
        case "inactive":
            seconds_s = _number(value, 86_400.0)
            if seconds_s is None:
                raise ValueError(f"inactive must be 0 to 86400 seconds, got {value!r:.80}")
            return {name: seconds_s}
        case "skew":
            if not re.fullmatch("-?[0-9]{1,8}", value):
                raise ValueError(f"skew must be a whole number of seconds, got {value!r:.80}")
            return {name: int(value)}
        case "refuse":
            regions = tuple(value.split(","))
            if not all(re.fullmatch("[a-z0-9-]+", region) for region in regions):
                raise ValueError(f"refuse must be regions separated by commas, got {value!r:.80}")
            return {name: regions}
        case "expire" | "seed":
            if not re.fullmatch("[0-9]{1,15}", value):
                raise ValueError(f"{name} must be an integer of at least 0, got {value!r:.80}")
            return {name: int(value)}
    found = _number(value, 1.0)
    if found is None:
        raise ValueError(f"{name} must be a probability from 0 to 1, got {value!r:.80}")
    return {name: found}


def _number(value: str, most: float) -> float | None:
    """Return a number from 0 to `most`, or None if it is anything else."""
    try:
        number = float(value)
    except ValueError:
        return None
    return number if 0 <= number <= most else None


@dataclass(frozen=True, slots=True)
class CallFaults:
    """The faults of one accepted call of Invoke.

    An event runs `copies` times, `late_s` seconds late. With `cut`, the caller gets no response.
    """

    copies: int = 1
    late_s: float = 0.0
    cut: bool = False


class FaultInjector:
    """Chooses the faults of each call.

    The faults of a call of Invoke depend only on the seed and on the number of earlier calls,
    except for the Reason of throttled calls, which takes each value in turn.
    """

    def __init__(self, faults: Faults = NO_FAULTS) -> None:
        self._faults = faults
        self._numbers = itertools.count(1)
        self._reasons = itertools.cycle(REASONS)
        self._calls: Counter[str] = Counter()
        """How many calls each access key has made."""
        self._woken: dict[str, float] = {}
        """When each function was first invoked."""

    def admit(self, key: str, region: str, now: float = 0.0) -> None:
        """Raise LambdaError if a call signed with this key for this region must be denied.

        `now` is in seconds since the epoch.
        """
        if self._faults.skew:
            raise clock_skewed(now, self._faults.skew)
        if region in self._faults.refuse:
            raise access_denied(region)
        if self._faults.expire is not None:
            self._calls[key] += 1
            if self._calls[key] > self._faults.expire:
                raise expired_token()

    def wake(self, function: str, now: float) -> None:
        """Raise LambdaError if the function is not ready at this time."""
        if not self._faults.inactive:
            return
        first = function not in self._woken
        since = self._woken.setdefault(function, now)
        if now - since < self._faults.inactive:
            raise not_ready(function, first)

    def next_invoke(self) -> CallFaults:
        """Return the faults of the next call of Invoke. Raises LambdaError if it must fail."""
        faults = self._faults
        random = Random(f"{faults.seed} {next(self._numbers)}")
        probabilities = (getattr(faults, name) for name in (*PROBABILITIES, "late"))
        throttle, error, cut, duplicate, lose, late = (
            random.random() < probability for probability in probabilities
        )
        if throttle:
            throttled = too_many(next(self._reasons))
            if random.random() < 0.5:
                throttled.headers["Retry-After"] = "1"
            raise throttled
        if error:
            raise random.choice(ERRORS)()
        if faults.answer and random.random() < faults.answer:
            raise of_table(random.choice(faults.codes))
        copies = 0 if lose else 1 + duplicate
        return CallFaults(copies, faults.late_s if late else 0.0, cut)
