"""What a check found."""

from dataclasses import dataclass

OK, WARN, FAIL = "ok", "warn", "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check saw, and what to do about it."""

    check: str
    level: str
    sentence: str
    remedy: str = ""
