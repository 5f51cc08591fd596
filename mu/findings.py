"""What the checks of `mu doctor` find."""

from dataclasses import dataclass

__all__ = ["FAIL", "OK", "UNKNOWN", "WARN", "Finding"]

OK, WARN, FAIL = "ok", "warn", "fail"
UNKNOWN = "unknown"
"""Not checked, because a right is missing that jobs do not need, or something else to check it with."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a check, and what to do about it."""

    check: str
    level: str
    sentence: str
    remedy: str = ""
