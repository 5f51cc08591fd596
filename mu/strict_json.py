"""JSON that every parser accepts: without NaN, infinite numbers and halves of surrogate pairs.

>>> dumps({"a": float("nan"), "b": "half \\ud800, whole \\U0001f600"})
'{"a": null, "b": "half \\\\ufffd, whole \\\\ud83d\\\\ude00"}'
"""

import json
import math
import re
from functools import partial
from typing import Any

from msgspec.json import Decoder, Encoder

JSON = dict[str, Any]
"""A JSON object."""

_ESCAPE = re.compile(
    r"\\u(?:d[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}|(?P<half>d[89a-f][0-9a-f]{2}))|\\."
)


_read, _write = Decoder().decode, Encoder().encode


def loads(text: str) -> Any:
    """Return the value of a JSON text as json.loads does, several times as fast. Raises ValueError.

    >>> loads('["\\\\ud800", 1e999]')
    ['\\ud800', inf]
    """
    try:
        return _read(text)
    except ValueError:  # it is none, or has what only the json module reads: half a pair, NaN
        return json.loads(text)


def pack(value: object) -> bytes:
    """Return what `dumps` does in UTF-8 and without spaces, many times as fast."""
    try:
        return _write(value)
    except UnicodeEncodeError:  # half of a surrogate pair
        return dumps(value, compact=True).encode("ascii")


def dumps(value: object, indent: int | None = None, compact: bool = False) -> str:
    """Return a value as JSON, in ASCII; a `compact` one has no spaces.

    NaN and infinite numbers become null. Half of a surrogate pair, which is how states see a byte
    that is not UTF-8, becomes a replacement character.
    """
    write = partial(
        json.dumps, indent=indent, separators=(",", ":") if compact else None, allow_nan=False
    )
    try:
        text = write(value)
    except ValueError:  # rare, so only then search for the numbers
        text = write(_finite(value))
    if "\\ud" in text:
        text = _ESCAPE.sub(lambda found: r"\ufffd" if found["half"] else found[0], text)
    return text


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {
            None if isinstance(name, float) and not math.isfinite(name) else name: _finite(one)
            for name, one in value.items()
        }
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return value
