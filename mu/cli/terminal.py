"""Makes the text of workers safe for a terminal, which would interpret escape sequences.

This is only for terminals: a pipe or file gets the bytes unaltered.
"""

import codecs
import re
import unicodedata

_JOINERS = "\u200c\u200d"
"""They join or separate letters and emoji, and have no other effect."""
_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\))")
_BEGUN = re.compile(r"(?:\r|\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x1b]*\x1b?)?)\Z")
_LONGEST = 1000
"""How many characters of an unfinished sequence are held back."""


def visible(text: str) -> str:
    """Return the text with U+FFFD for control characters and bidi marks. Tabs and line breaks stay."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or _harmless(char) else "\ufffd" for char in text)


def _harmless(char: str) -> bool:
    return char in "\n\t" or char in _JOINERS or unicodedata.category(char) == "Zs"


class TerminalText:
    """Turns output, which arrives in pieces, into text that is safe to print.

    Colours and other escape sequences are dropped, and other control characters become U+FFFD. A
    carriage return begins a new line, so that it cannot cover what was printed before.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""

    def feed(self, printed: bytes) -> str:
        """Return the text that can be shown now."""
        return self._shown(self._rest + self._decoder.decode(printed), last=False)

    def end(self) -> str:
        """Return the text that was held back in case more followed."""
        return self._shown(self._rest + self._decoder.decode(b"", final=True), last=True)

    def _shown(self, text: str, last: bool) -> str:
        self._rest = ""
        begun = None if last else _BEGUN.search(text)
        if begun is not None and len(begun[0]) <= _LONGEST:
            text, self._rest = text[: begun.start()], begun[0]
        text = _SEQUENCE.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
        return visible(text)
