"""What an actor's attempts printed, as it is shown: in the right order, with names and times."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mu.messages import encode
from mu.output.completion import Missing, missing
from mu.output.pieces import CUT, FILL, NOTE, PLACE, TEXT, LogEntry


@dataclass(frozen=True, slots=True)
class View:
    """Which part of a log to show, and how."""

    after: int = 0
    """The place in the log from which on it is shown."""
    attempt: int | None = None
    source: str | None = None
    """Only the output of the input of this name."""
    names: bool = False
    """Whether each line begins with the name of its input."""
    times: bool = False
    """Whether each line begins with the time when it was received."""


class Transcript:
    """The entries of an actor's log."""

    def __init__(self, entries: Sequence[LogEntry]) -> None:
        self.entries = entries

    @property
    def end(self) -> int:
        """The place after all that was printed."""
        return self.entries[-1].end if self.entries else 0

    def begin(self, after: int) -> int:
        """Return the place of the first byte that is kept of what follows `after`."""
        for entry in self.entries:
            if entry.kind == CUT and entry.start < after < entry.end:
                return entry.end
        return min(after, self.end)

    def shown(self, view: View) -> bytes:
        """Return this part of the log.

        Parts that are read one after the other are the whole, apart from what turned out to be missing
        after it was shown: it comes last, or, in one that begins earlier, in its place.
        """
        parts: list[bytes] = []
        last: LogEntry | None = None
        for entry in self._in_place(view.after):
            if _belongs(entry, view):
                if entry.end > view.after:
                    parts.append(_as_text(entry, last, view))
                last = entry
        return b"".join(parts)

    def missing(self, attempt: int, command: int, output: bytes) -> Missing | None:
        """Return what the log lacks of a command's whole output; None: nothing is known to be."""
        own = [one for one in self.entries if (one.attempt, one.command) == (attempt, command)]
        if self.is_cut or any(entry.kind == PLACE for entry in own):
            return None
        logged, gaps, size = [], [], 0
        for entry in own:
            if entry.kind == TEXT:
                logged.append(entry.text)
                size += len(entry.text)
            else:
                gaps.append(size)
        return missing(b"".join(logged), gaps, output)

    def has(self, source: str) -> bool:
        """Return whether it has output of the input of this name."""
        return any(entry.source == source for entry in self.entries)

    def has_output(self, attempt: int, command: int) -> bool:
        """Return whether it has output of that command."""
        of = attempt, command, TEXT
        return any((entry.attempt, entry.command, entry.kind) == of for entry in self.entries)

    @property
    def is_cut(self) -> bool:
        """Whether a part was cut out of the log."""
        return any(entry.kind == CUT for entry in self.entries)

    def _in_place(self, after: int) -> Iterable[LogEntry]:
        """Return the entries, with what came later in its place if all of its command is shown."""
        places = [entry for entry in self.entries if entry.kind == PLACE]
        if not places or self.is_cut:
            return self.entries
        commands: dict[tuple[int, int], list[LogEntry]] = {
            (place.attempt, place.command): [] for place in places
        }
        for entry in self.entries:
            own = commands.get((entry.attempt, entry.command))
            if own is not None:
                own.append(entry)
        moved: dict[int, list[LogEntry]] = {}  # what there is instead, by where an entry starts
        for place in places:
            own = commands[place.attempt, place.command]
            if own[0].start >= after:
                moved |= _moved(own, place)
        return [entry for one in self.entries for entry in moved.get(one.start, [one])]


def _moved(own: list[LogEntry], place: LogEntry) -> dict[int, list[LogEntry]]:
    """Return what is shown instead of each entry of a command whose gap was filled later."""
    before, after, _ = map(int, place.text.split())
    fills = [entry for entry in own if entry.kind == FILL]
    texts = [entry for entry in own if entry.kind == TEXT]
    if not fills:  # nothing was missing
        return {entry.start: [] for entry in own if entry.kind in (NOTE, PLACE)}
    until = sum(len(entry.text) for entry in texts) - after
    moved: dict[int, list[LogEntry]] = {entry.start: [] for entry in own}
    at = 0
    for entry in own:
        if entry.kind == NOTE and not before <= at <= until:
            moved[entry.start] = [entry]
        elif entry.kind == TEXT:
            end = at + len(entry.text)
            shown = [entry._replace(text=entry.text[: max(0, before - at)])]
            if end >= before:
                shown += fills
                fills = []
            shown.append(entry._replace(text=entry.text[max(0, until - at) :]))
            moved[entry.start] = [one for one in shown if one.text]
            at = end
    if fills:  # all of it was lost
        moved[place.start] = fills
    return moved


def _belongs(entry: LogEntry, view: View) -> bool:
    if entry.kind == CUT:
        return True
    if view.attempt is not None and entry.attempt != view.attempt:
        return False
    return view.source is None or entry.source == view.source


def _as_text(entry: LogEntry, last: LogEntry | None, view: View) -> bytes:
    """Return what is shown of an entry that follows `last`."""
    broken = last is not None and not _ends_line(last)
    if entry.kind not in (TEXT, FILL):
        said = _said(entry)
        return b"%b[... %b ...]\n" % (b"\n" if broken else b"", said) if said else b""
    skipped = max(0, view.after - entry.start)
    text = entry.text[skipped:]
    label = entry.time + b" " if view.times else b""
    if view.names and entry.source:
        label += encode(entry.source.replace("\n", "\\n")) + b": "
    if not (text and (view.times or view.names)):
        return text
    labelled = label + text  # each entry is a line, or a part of one
    if skipped:
        return labelled if entry.text[skipped - 1] == ord("\n") else labelled.removeprefix(label)
    if not broken or last is None:
        return labelled
    return labelled.removeprefix(label) if last.source == entry.source else b"\n" + labelled


def _said(entry: LogEntry) -> bytes:
    """Return what an entry says that is no output; empty: nothing that is worth showing."""
    if entry.kind == CUT:
        return b"%b bytes cut" % entry.text
    if entry.kind == PLACE:
        return b"" if entry.text.endswith(b" 0") else b"this was missing above:"
    return entry.text


def _ends_line(entry: LogEntry) -> bool:
    return entry.kind not in (TEXT, FILL) or entry.text.endswith(b"\n")
