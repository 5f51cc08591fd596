"""Collects live output, so that not every line of a program costs a frame. Pure."""

INTERVAL_S = 0.2
PIECE_BYTES = 16384


class LiveLog:
    """The unsent output of running commands, by the command's number."""

    def __init__(self) -> None:
        self._pieces: dict[int, bytearray] = {}
        self._skipped: dict[int, int] = {}
        self.due: float | None = None
        """When to send the output, on the clock of `now`; None: there is none."""

    def add(self, number: int, output: bytes, now: float) -> None:
        self._pieces.setdefault(number, bytearray()).extend(output)
        if self.due is None:
            self.due = now + INTERVAL_S
        if len(self._pieces[number]) >= PIECE_BYTES:
            self.due = now

    def skip(self, number: int, output: bytes, now: float) -> None:
        """Skip `output`, because the coordinator is too slow; a note in the log will say so."""
        self._skipped[number] = self._skipped.get(number, 0) + len(output)
        self.add(number, b"", now)

    def take(self, number: int) -> bytes:
        """Return what command `number` has printed since the last call."""
        skipped = self._skipped.pop(number, 0)
        note = b"\n[... %d bytes not shown live ...]\n" % skipped if skipped else b""
        output = bytes(self._pieces.pop(number, b"")) + note
        if not self._pieces:
            self.due = None
        return output

    def take_all(self) -> list[tuple[int, bytes]]:
        return [(number, self.take(number)) for number in list(self._pieces)]
