"""AWS's bad days, imitated: which faults `faults` in mu.conf asks for, and which call gets which."""

import itertools
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from mu.engines.local.errors import Refused, Unavailable, access_denied, expired_token, too_many

NONE = "none"
CHANCES = ("throttle", "error", "cut", "duplicate", "lose")
ALLOWED = (*CHANCES, "late", "refuse", "expire", "seed")
REASONS = (
    "ReservedFunctionConcurrentInvocationLimitExceeded",
    "ConcurrentInvocationLimitExceeded",
    "CallerRateLimitExceeded",
    "FunctionInvocationRateLimitExceeded",
)
ERRORS: tuple[Callable[[], Refused], ...] = (
    lambda: Refused(500, "ServiceException", "The request cannot be processed."),
    lambda: Unavailable(502, "Bad Gateway"),
    lambda: Unavailable(503, "Service Unavailable"),
)


@dataclass(frozen=True, slots=True)
class Faults:
    """The faults, as `text` says them: chances from 0 to 1, drawn for each call of Invoke.

    An invocation that is `late` starts `late_s` seconds after it was accepted. In the regions
    `refuse` nothing is allowed; `expire` calls are allowed with the same access key.
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

    @classmethod
    def parse(cls, text: str) -> "Faults":
        """Read `throttle=0.3 late=0.1:3 seed=7`, or none. Raises ValueError."""
        if text in ("", NONE):
            return cls()
        values: dict[str, Any] = {}
        for word in text.split():
            name, equals, value = word.partition("=")
            if name not in ALLOWED or not equals:
                raise ValueError(f"{word!r}: it must be {NONE}, or NAME=VALUE with {_names()}")
            if name in values:
                raise ValueError(f"{word!r}: {name} is said twice")
            values |= _read(name, value, word)
        return cls(text, **values)

    def __str__(self) -> str:
        return self.text


NO_FAULTS = Faults()


def _names() -> str:
    return f"{', '.join(ALLOWED[:-1])} or {ALLOWED[-1]}"


def _read(name: str, value: str, word: str) -> dict[str, Any]:
    """Return the fields that the value of one fault sets."""
    match name:
        case "late":
            chance, _, seconds = value.partition(":")
            wanted = "late=CHANCE:SECONDS, a chance from 0 to 1, seconds from 0"
            late_s = _number(seconds, 86_400.0, word, wanted)
            return {"late": _number(chance, 1.0, word, wanted), "late_s": late_s}
        case "refuse":
            regions = tuple(value.split(","))
            if not all(re.fullmatch("[a-z0-9-]+", region) for region in regions):
                raise ValueError(f"{word!r}: it must be regions, with commas between them")
            return {name: regions}
        case "expire" | "seed":
            if not re.fullmatch("[0-9]{1,15}", value):
                raise ValueError(f"{word!r}: it must be a whole number")
            return {name: int(value)}
    return {name: _number(value, 1.0, word, "a chance, from 0 to 1")}


def _number(value: str, most: float, word: str, wanted: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 <= number <= most:
        raise ValueError(f"{word!r}: it must be {wanted}")
    return number


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of a call of Invoke that is not refused.

    An event runs `copies` times, `late_s` seconds late; where the call is `cut`, its caller gets
    no answer.
    """

    copies: int = 1
    late_s: float = 0.0
    cut: bool = False


class BadDays:
    """Decides on calls. What a call of Invoke gets depends on the seed and its number alone.

    But for the Reason of a throttle: they come in turn.
    """

    def __init__(self, faults: Faults = NO_FAULTS) -> None:
        self._faults = faults
        self._numbers = itertools.count(1)
        self._reasons = itertools.cycle(REASONS)
        self._calls: Counter[str] = Counter()
        """By access key."""

    def admit(self, key: str, region: str) -> None:
        """Let in a call signed with this key for this region. Raises Refused."""
        if region in self._faults.refuse:
            raise access_denied(region)
        if self._faults.expire is not None:
            self._calls[key] += 1
            if self._calls[key] > self._faults.expire:
                raise expired_token()

    def next_fate(self) -> Fate:
        """Return what becomes of the next call of Invoke. Raises Refused."""
        faults = self._faults
        random = Random(f"{faults.seed} {next(self._numbers)}")
        chances = (getattr(faults, name) for name in (*CHANCES, "late"))
        throttle, error, cut, duplicate, lose, late = (
            random.random() < chance for chance in chances
        )
        if throttle:
            refused = too_many(next(self._reasons))
            if random.random() < 0.5:
                refused.headers["Retry-After"] = "1"
            raise refused
        if error:
            raise random.choice(ERRORS)()
        copies = 0 if lose else 1 + duplicate
        return Fate(copies, faults.late_s if late else 0.0, cut)
