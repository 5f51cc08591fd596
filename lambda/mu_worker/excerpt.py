"""Keeps the start and the end of an output of any length."""


class Excerpt:
    """Collects bytes and keeps at most `limit` of them: half from the start, half from the end."""

    def __init__(self, limit: int) -> None:
        self._head_limit = limit - limit // 2
        self._tail_limit = limit // 2
        self._head = bytearray()
        self._tail = bytearray()
        self._cut = 0

    def add(self, output: bytes) -> None:
        space = self._head_limit - len(self._head)
        self._head += output[:space]
        self._tail += output[space:]
        if len(self._tail) > 2 * self._tail_limit + 65536:  # rarely, because trimming copies
            self._trim()

    def bytes(self) -> bytes:
        """Return what was kept, with a mark where bytes were cut."""
        self._trim()
        mark = b"\n[... %d bytes cut ...]\n" % self._cut if self._cut else b""
        return bytes(self._head + mark + self._tail)

    def _trim(self) -> None:
        over = len(self._tail) - self._tail_limit
        if over > 0:
            self._cut += over
            del self._tail[:over]
