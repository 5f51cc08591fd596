"""One frame from the relay, while it arrives: a state becomes a file; others are kept in part."""

import re
from collections.abc import Callable
from functools import partial

from mu_worker.statefiles import StateError, StateFile

HEAD_BYTES = 64
"""How many bytes are needed to tell what a frame is."""

_STATE = rb"STATE\(([0-9]{1,9})\):"
_ANSWER = rb"AT:([0-9]{1,15})"


class Arrival:
    """Collects the pieces of a frame. It never raises: `error` says why a state could not be kept.

    `extended`: the relay knows AT, and puts F: before a partner's frames.
    """

    def __init__(self, folder: Callable[[], str], extended: bool) -> None:
        self._folder = folder
        self._extended = extended
        self._head = bytearray()
        self._known = False
        self.answer: int | None = None
        """The n of the relay's AT:<n>; None: it is another frame."""
        self.is_frame = not extended
        """Whether it comes from the partner, not from the relay itself."""
        self.iteration = -1
        """The number of the state in it; -1: it contains none."""
        self.error = ""
        """Why the state could not be kept; empty: it is there, once the last piece is."""
        self._state: StateFile | None = None

    @property
    def head(self) -> bytes:
        """The start of a frame without a state."""
        return bytes(self._head[:HEAD_BYTES])

    def add(self, piece: bytes, last: bool) -> None:
        if self._known:
            self._keep(piece)
        else:
            self._head += piece
            if last or len(self._head) >= HEAD_BYTES:
                self._known = True
                self._classify(bytes(self._head), whole=last)
        if last and self._state is not None:
            self._try(self._state.end)
            self.close()

    def close(self) -> None:
        """Remove what there is of a state that did not arrive completely."""
        if self._state is not None:
            self._state.close()
            self._state = None

    def _classify(self, head: bytes, whole: bool) -> None:
        if self._extended:
            answer = re.fullmatch(_ANSWER, head) if whole else None
            if answer is not None:
                self.answer = int(answer[1])
                return
            self.is_frame = head.startswith(b"F:")
        start = 2 if self._extended else 0
        state = re.match(_STATE, head[start:]) if self.is_frame else None
        if state is None:
            del self._head[HEAD_BYTES:]
            return
        self.iteration = int(state[1])
        try:
            self._state = StateFile(self._folder(), self.iteration)
        except StateError as error:
            self.error = str(error)
        self._keep(head[start + state.end() :])

    def _keep(self, piece: bytes) -> None:
        if self._state is not None:
            self._try(partial(self._state.add, piece))

    def _try(self, step: Callable[[], None]) -> None:
        try:
            step()
        except StateError as error:
            self.error = str(error)
            self.close()
