"""Writes JSON values out for people: one line for each name or item, indented, without braces."""

import json
from collections.abc import Iterator

from mu.cli.display.text import clean, cut

MOST = 20
"""How many items of a list or an object are shown."""
LONGEST_VALUE = 400
"""How many characters of a text are shown."""


def outline(value: object, indent: str = "") -> Iterator[str]:
    """Yield the lines of a value; of long lists, the first ones and the number of the others.

    >>> print(*outline({"done": 2, "failures": [{"key": "a", "status": 1}]}), sep="\\n")
    done: 2
    failures:
      - key: a
        status: 1
    """
    deeper = f"{indent}  "
    if isinstance(value, dict) and value:
        for name, one in list(value.items())[:MOST]:
            if isinstance(one, dict | list) and one:
                yield f"{indent}{cut(str(name), LONGEST_VALUE)}:"
                yield from outline(one, deeper)
            else:
                yield f"{indent}{cut(str(name), LONGEST_VALUE)}: {_scalar(one)}"
    elif isinstance(value, list) and value:
        for one in value[:MOST]:
            for number, line in enumerate(outline(one, deeper)):
                yield line if number else f"{indent}- {line.removeprefix(deeper)}"
    else:
        yield f"{indent}{_scalar(value)}"
    if isinstance(value, dict | list) and len(value) > MOST:
        yield f"{indent}… and {len(value) - MOST} more"


def _scalar(value: object) -> str:
    if isinstance(value, str) and value:
        return cut(value, LONGEST_VALUE)
    return clean(json.dumps(value, ensure_ascii=False))
