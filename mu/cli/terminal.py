"""Text of workers on a terminal, without what a terminal would obey instead of showing it.

Into a pipe or a file, bytes go unaltered: this is for terminals only.
"""

import codecs
import re
import unicodedata

_JOINERS = "\u200c\u200d"
"""They join and part letters and emoji, and change nothing else."""
_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\))")
_BEGUN = re.compile(r"(?:\r|\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x1b]*\x1b?)?)\Z")
_LONGEST = 1000
"""Characters of an unfinished sequence that are held back."""


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
        """Return what can be shown now."""
        return self._shown(self._rest + self._decoder.decode(printed), last=False)

    def end(self) -> str:
        """Return what was held back, since more might have followed."""
        return self._shown(self._rest + self._decoder.decode(b"", final=True), last=True)

    def _shown(self, text: str, last: bool) -> str:
        self._rest = ""
        begun = None if last else _BEGUN.search(text)
        if begun is not None and len(begun[0]) <= _LONGEST:
            text, self._rest = text[: begun.start()], begun[0]
        text = _SEQUENCE.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
        return visible(text)
