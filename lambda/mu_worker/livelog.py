"""Live output, collected so that a chatty program does not cost a frame for each line. Pure."""

INTERVAL_S = 0.2
PIECE_BYTES = 16384


class LiveLog:
    """The output of running commands that was not sent yet, by the command's number."""

    def __init__(self) -> None:
        self._pieces: dict[int, bytearray] = {}
        self._skipped: dict[int, int] = {}
        self.due: float | None = None
        """When to send it, on the clock of `now`; None: there is none."""

    def add(self, number: int, output: bytes, now: float) -> None:
        self._pieces.setdefault(number, bytearray()).extend(output)
        if self.due is None:
            self.due = now + INTERVAL_S
        if len(self._pieces[number]) >= PIECE_BYTES:
            self.due = now

    def skip(self, number: int, output: bytes, now: float) -> None:
        """Leave `output` out, because the coordinator is too slow; a note will say so."""
        self._skipped[number] = self._skipped.get(number, 0) + len(output)
        self.add(number, b"", now)

    def take(self, number: int) -> bytes:
        """Return what command `number` printed since the last call."""
        skipped = self._skipped.pop(number, 0)
        note = b"\n[... %d bytes not shown live ...]\n" % skipped if skipped else b""
        output = bytes(self._pieces.pop(number, b"")) + note
        if not self._pieces:
            self.due = None
        return output

    def take_all(self) -> list[tuple[int, bytes]]:
        return [(number, self.take(number)) for number in list(self._pieces)]
