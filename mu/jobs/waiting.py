"""Says in words for users what a state waits for, which it names by the prefixes of replies."""

from collections.abc import Sequence
from functools import lru_cache

_REPLIES = {
    "OK": "a reply",
    "OK:HELLO": "its worker's hello",
    "OK:SET": "a variable to be set",
    "OK:GET": "the value of a variable",
    "OK:DUMP_VALS": "the values of all variables",
    "OK:ECHO": "an echo",
    "OK:R": "a program to end",
    "OK:RUNNING": "a program to start",
    "OK:RETVAL": "a program to end",
    "OK:RETRIEV": "a download to end",
    "OK:RETRIEVING": "a download to start",
    "OK:UPLOAD": "an upload to end",
    "OK:UPLOADING": "an upload to start",
    "OK:CONNECT": "its connection to the relay",
    "OK:CLOSE_CONNECT": "the relay to have what it sent",
    "INFO:": "an INFO from its worker",
}
"""What replies with a prefix mean; the longest prefix that fits is used."""


def in_words(expected: str | Sequence[str | None] | None) -> str:
    """Return what a state with these expected prefixes waits for.

    A prefix may also be a description already, as scripts have them.
    """
    prefixes = [expected] if isinstance(expected, str) else list(expected or ())
    words = dict.fromkeys(_words(prefix) for prefix in prefixes if prefix)
    return " or ".join(words) or "its worker"


@lru_cache(maxsize=1000)
def _words(prefix: str) -> str:
    known = max((one for one in _REPLIES if prefix.startswith(one)), key=len, default="")
    if known == "INFO:" and prefix != known:
        return f"INFO {prefix.removeprefix(known)}"
    return _REPLIES.get(known, prefix)
