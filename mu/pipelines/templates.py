"""Commands with placeholders: `convert {in} -resize 50% {out}`, where `{{` and `}}` are braces.

A value that comes from elsewhere, a key say, may hold anything. It gets into the command as the
value of a shell variable, which no shell takes for a part of the program.
"""

import shlex
import string
from collections.abc import Collection, Iterator, Mapping, Sequence

BRACES = "a brace of the command's own is written {{ or }}"

Piece = tuple[str, str | None]
"""What stands in front of a placeholder, and its name (None: the text ends)."""


def parse(text: str, known: Sequence[str]) -> list[Piece]:
    """Return the pieces of a text. Raises ValueError for a placeholder that is not known."""
    pieces: list[Piece] = []
    try:
        for before, name, form, conversion in string.Formatter().parse(text):
            if name is not None and (name not in known or form or conversion):
                there = " ".join(f"{{{one}}}" for one in known)
                raise ValueError(f"{{{name}}} is not known; there are {there}")
            pieces.append((before, name))
    except ValueError as error:
        raise ValueError(f"{error} ({BRACES})") from None
    return pieces


def fill(pieces: Sequence[Piece], values: Mapping[str, str]) -> str:
    """Return the text with its placeholders replaced as they are: for keys, not for shells."""
    return "".join(before + ("" if name is None else values[name]) for before, name in pieces)


class ShellTemplate:
    """A shell command with placeholders. Raises ValueError, saying what it cannot be.

    Values of `plain` names are mu's own words, and inserted as they are, in quotes or not. Those
    of `strange` names may hold anything but NUL. Outside quotes they become one word, in double
    quotes a part of it; in single quotes the shell would not look at a variable: refused.
    """

    def __init__(self, text: str, plain: Collection[str], strange: Collection[str]) -> None:
        self._strange = frozenset(strange)
        self._pieces: list[tuple[str, str | None, str]] = []
        quotes = _Quotes()
        for before, name in parse(text, [*plain, *strange]):
            quotes.read(before)
            if name in self._strange and quotes.kind == "'":
                raise ValueError(
                    f"{{{name}}} stands in single quotes, where its value cannot be put in safely:"
                    " close them before it, or hand it on as an argument"
                    f""" (sh -c 'echo "$1"' sh {{{name}}})"""
                )
            self._pieces.append((before, name, quotes.kind))
        self.names = frozenset(name for _, name, _ in self._pieces if name is not None)

    def fill(self, values: Mapping[str, str]) -> str:
        """Return the command; `values` has all names that are used."""
        used = sorted(self.names & self._strange)
        assignments = "".join(f"mu_{name}={quoted(values[name])}\n" for name in used)
        return assignments + "".join(self._filled(values))

    def _filled(self, values: Mapping[str, str]) -> Iterator[str]:
        for before, name, quotes in self._pieces:
            yield before
            if name in self._strange:
                yield f"${{mu_{name}}}" if quotes == '"' else f'"$mu_{name}"'
            elif name is not None:
                yield values[name]


def quoted(value: str) -> str:
    """Return one word of shell for the value, in which the worker finds no ##NAME## either."""
    word = shlex.quote(value)
    return word.replace("#", "#''") if "##" in value else word


class _Quotes:
    """Follows a shell command as far as to say in which quotes a place stands: ' or " or none.

    Where it is wrong (here-documents) a word may be split, or refused, and no more than that.
    """

    def __init__(self) -> None:
        self._open = [""]
        self._last = "\n"
        """The character before; "" for one that a backslash took its meaning from."""

    @property
    def kind(self) -> str:
        """The innermost quotes; inside $( ) and ` ` the count begins anew."""
        return self._open[-1] if self._open[-1] in ("'", '"') else ""

    def read(self, text: str) -> None:
        for character in text:
            self._read(character)
        self._last = "x"  # the placeholder

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
