"""Commands with placeholders: `convert {in} -resize 50% {out}`, where `{{` and `}}` are braces.

A value from outside, such as a key, may contain anything. It becomes the value of a shell variable,
so no shell executes it.

>>> template = ShellTemplate("convert {in} {key}", trusted=["in"], untrusted=["key"])
>>> print(template.fill({"in": "##TMPDIR##/in.png", "key": "a; b"}))
mu_key='a; b'
convert ##TMPDIR##/in.png "$mu_key"
"""

import shlex
import string
from collections.abc import Collection, Iterator, Mapping, Sequence

__all__ = ["ShellTemplate", "fill", "parse", "quoted"]

BRACES = "for a literal brace write {{ or }}"

Piece = tuple[str, str | None]
"""The text before a placeholder, and its name (None at the end of the text)."""


def parse(text: str, known: Sequence[str]) -> list[Piece]:
    """Return the pieces of a text. Raises ValueError for an unknown placeholder."""
    pieces: list[Piece] = []
    try:
        for before, name, form, conversion in string.Formatter().parse(text):
            if name is not None and (name not in known or form or conversion):
                names = ", ".join(f"{{{one}}}" for one in known)
                raise ValueError(f"unknown placeholder {{{name}}}; the placeholders are {names}")
            pieces.append((before, name))
    except ValueError as error:
        raise ValueError(f"{error} ({BRACES})") from None
    return pieces


def fill(pieces: Sequence[Piece], values: Mapping[str, str]) -> str:
    """Return the text with the values inserted unquoted: for keys, not for shells."""
    return "".join(before + ("" if name is None else values[name]) for before, name in pieces)


class ShellTemplate:
    """A shell command with placeholders. Raises ValueError if it cannot be filled in safely.

    Values of `trusted` names are inserted unchanged. Values of `untrusted` names may contain
    anything but NUL. Outside quotes they become one word, inside double quotes a part of a word.
    Inside single quotes, where the shell expands no variables, they are refused.
    """

    def __init__(self, text: str, trusted: Collection[str], untrusted: Collection[str]) -> None:
        self._untrusted = frozenset(untrusted)
        self._pieces: list[tuple[str, str | None, str]] = []
        quotes = _Quotes()
        for before, name in parse(text, [*trusted, *untrusted]):
            quotes.read(before)
            if name in self._untrusted and quotes.kind == "'":
                raise ValueError(
                    f"{{{name}}} must not be inside single quotes, where its value cannot be inserted"
                    " safely: close them before it, or pass it as an argument"
                    f""" (sh -c 'echo "$1"' sh {{{name}}})"""
                )
            self._pieces.append((before, name, quotes.kind))
        self.names = frozenset(name for _, name, _ in self._pieces if name is not None)

    def fill(self, values: Mapping[str, str]) -> str:
        """Return the command; `values` has at least the names in it."""
        used = sorted(self.names & self._untrusted)
        assignments = "".join(f"mu_{name}={quoted(values[name])}\n" for name in used)
        return assignments + "".join(self._filled(values))

    def _filled(self, values: Mapping[str, str]) -> Iterator[str]:
        for before, name, quotes in self._pieces:
            yield before
            if name in self._untrusted:
                yield f"${{mu_{name}}}" if quotes == '"' else f'"$mu_{name}"'
            elif name is not None:
                yield values[name]


def quoted(value: str) -> str:
    """Return the value as one shell word in which the worker finds no ##NAME## to replace."""
    word = shlex.quote(value)
    return word.replace("#", "#''") if "##" in value else word


class _Quotes:
    """Follows a shell command to find which quotes a position is in: ' or " or none.

    It does not know here-documents. In them, a value may be split or refused, but nothing worse.
    """

    def __init__(self) -> None:
        self._open = [""]
        self._last = "\n"
        """The previous character; "" if a backslash escaped it."""

    @property
    def kind(self) -> str:
        """The innermost quotes. Inside $( ) and ` `, quoting starts anew."""
        return self._open[-1] if self._open[-1] in ("'", '"') else ""

    def read(self, text: str) -> None:
        for character in text:
            self._read(character)
        self._last = "x"  # in place of the placeholder

    def _read(self, character: str) -> None:
        inner, last = self._open[-1], self._last
        self._last = character
        if inner == "#":
            if character == "\n":
                self._open.pop()
        elif inner == "'":
            if character == "'":
                self._open.pop()
        elif last == "\\":
            self._last = ""
        elif character == inner and character in '"`)':
            self._open.pop()
        elif character in '"`' or (character == "'" and inner != '"'):
            self._open.append(character)
        elif character == "(" and (last == "$" or inner != '"'):
            self._open.append(")")
        elif character == "#" and inner != '"' and last in " \t\n;&|(":
            self._open.append("#")
