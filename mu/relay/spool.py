"""The relay's data on disk: counts and small frames in a SQLite database, large frames in files.

It has two threads: one only commits, in groups; the other reads frames, and writes large ones while
they arrive. A file is valid once a row in the database names it; files without a row are leftovers.
"""

import os
import sqlite3
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from mu.relay.disk import BodyFile, Change, commit, frame_path, load, open_database
from mu.relay.effects import Forget, Give
from mu.relay.limits import BLOB, COMMIT_CHANGES, MIB
from mu.relay.parties import Frame, Name

LAZY_S = 0.1
"""Maximum commit delay, in seconds, for changes that nothing waits for."""
BEHIND = 2 * MIB
"""How many bytes of a frame may wait to be written before its sender is paused."""


class SpoolError(Exception):
    """The disk cannot be used; the message says why."""


class SpoolReactor(Protocol):
    """What the spool needs from the reactor."""

    def callLater(
        self, delay: float, callable: Callable[..., object], *args: object
    ) -> IDelayedCall: ...

    def callFromThread(self, callable: Callable[..., object], *args: object) -> None: ...


_Work = Callable[[sqlite3.Connection], object]


class Spool:
    """One folder. Call its methods in the reactor's thread only.

    It calls `stored`, `gave` and `failed` in that thread, but not after `close` or a failure.
    """

    def __init__(
        self,
        folder: Path,
        reactor: SpoolReactor,
        stored: Callable[[list[Frame]], object],
        gave: Callable[[Name], object],
        failed: Callable[[str], object],
    ) -> None:
        """Raises SpoolError."""
        self._folder = folder
        self._reactor = reactor
        self._tell_stored, self._tell_gave, self._tell_failed = stored, gave, failed
        self._pending: dict[str, deque[Change]] = {}  # by job, so that no job waits for another's
        self._urgent = 0  # how many of these something waits for
        self._committing = False
        self._timer: IDelayedCall | None = None
        self._soon = False
        self._broken = False
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            database = open_database(folder / "relay.db")
            try:
                self.kept = load(database, folder)
            finally:
                database.close()
        except (OSError, sqlite3.Error) as error:
            raise SpoolError(f"cannot use the relay's folder {folder}: {error}") from None
        self._next = 1 + max((place for *_, place in self.kept.frames), default=0)
        self._commits: SimpleQueue[_Work | None] = SimpleQueue()
        self._files: SimpleQueue[_Work | None] = SimpleQueue()
        self._threads = [
            Thread(target=self._run, args=(work,), name=name, daemon=True)
            for work, name in (
                (self._commits, "mu-relay-commits"),
                (self._files, "mu-relay-files"),
            )
        ]
        for thread in self._threads:
            thread.start()

    # ------------------------------------------------ the database

    def store(self, frame: Frame) -> None:
        """Write a frame to disk, after those that were stored earlier."""
        if frame.place is None:
            frame.place = self._new_place()
        self._add(frame.name.job, frame)
        self._urgent += 1
        self._commit_soon()

    def give(self, effect: Give) -> None:
        self._add(effect.name.job, effect)
        self._urgent += 1
        self._commit_soon()

    def forget(self, effect: Forget) -> None:
        self._add(effect.name.job, effect)
        self._commit_later()

    def drop(self, frame: Frame) -> None:
        place, file = frame.place, frame.body
        if place is None:
            return
        if frame.stored or frame.storing:
            self._add(frame.name.job, place)
            self._commit_later()
        elif isinstance(file, BodyFile):
            file.chunks.clear()
            self._files.put(lambda _: self._discard(file, place))

    def _add(self, job: str, change: Change) -> None:
        changes = self._pending.get(job)
        if changes is None:
            changes = self._pending[job] = deque()
        changes.append(change)

    def _commit_soon(self) -> None:
        """Commit in the reactor's next turn, with all changes that this turn still makes."""
        if self._committing or self._soon or self._broken:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._soon = True
        self._timer = self._reactor.callLater(0, self._commit)

    def _commit_later(self) -> None:
        if not (self._committing or self._timer is not None or self._broken):
            self._timer = self._reactor.callLater(LAZY_S, self._commit)

    def _commit(self, most: int = COMMIT_CHANGES) -> None:
        self._timer, self._soon = None, False
        group: list[Change] = []
        share = max(1, most // len(self._pending)) if self._pending else 0
        for job, changes in list(self._pending.items()):
            for _ in range(min(share, len(changes))):
                one = changes[0]
                if isinstance(one, Frame) and isinstance(one.body, BodyFile) and one.body.busy:
                    break  # committed when its file is written
                self._urgent -= isinstance(one, Frame | Give)
                group.append(changes.popleft())
            if not changes:
                del self._pending[job]
        if group:
            self._committing = True
            self._commits.put(lambda database: self._commit_group(database, group))

    def _commit_group(self, database: sqlite3.Connection, group: list[Change]) -> None:
        commit(database, self._folder, group)
        self._reactor.callFromThread(self._committed, group)

    def _committed(self, group: list[Change]) -> None:
        if self._broken:
            return
        self._committing = False
        if self._urgent:
            self._commit_soon()
        elif self._pending:
            self._commit_later()
        frames = [one for one in group if isinstance(one, Frame)]
        for frame in frames:
            if frame.file:
                frame.body = None
        if frames:
            self._tell_stored(frames)
        for one in group:
            if isinstance(one, Give):
                self._tell_gave(one.name)

    # ------------------------------------------------ bodies

    def append(self, frame: Frame, chunk: bytes) -> None:
        """Write the next part of the body of a frame that has a file."""
        file, place = frame.body, frame.place
        if place is None or not isinstance(file, BodyFile):
            frame.place, frame.body = place, file = self._new_place(), BodyFile()
        file.chunks.append(chunk)
        if not file.writing:
            self._write(file, place)

    def is_behind(self, frame: Frame, call: Callable[[], object]) -> bool:
        """Return whether too much of a frame is unwritten; if so, `call` once it is written."""
        file = frame.body
        if not isinstance(file, BodyFile) or file.writing < BEHIND:
            return False
        file.waiting = call
        return True

    def read(self, frame: Frame, offset: int, length: int, tell: Callable[[bytes], object]) -> None:
        """Read a part of the body of a frame that is not in memory; b"": the frame was dropped."""
        assert frame.place is not None
        place, is_blob = frame.place, frame.stored and frame.size <= BLOB and not frame.file
        file = frame.body if isinstance(frame.body, BodyFile) else None

        def work(database: sqlite3.Connection) -> None:
            part = b""
            if is_blob:
                row = database.execute("select body from frames where id = ?", (place,)).fetchone()
                part = b"" if row is None or row[0] is None else row[0][offset : offset + length]
            with suppress(FileNotFoundError):  # it was dropped meanwhile
                if not part:
                    with frame_path(self._folder, place).open("rb") as opened:
                        part = os.pread(opened.fileno(), length, offset)
            self._reactor.callFromThread(tell, part)

        if file is not None and file.busy:
            file.waiting = lambda: self._files.put(work)
        else:
            self._files.put(work)

    def _write(self, file: BodyFile, place: int) -> None:
        chunks, file.chunks = file.chunks, []
        file.writing = sum(map(len, chunks))

        def work(_: sqlite3.Connection) -> None:
            if file.descriptor < 0:
                flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
                file.descriptor = os.open(frame_path(self._folder, place), flags, 0o600)
            for chunk in chunks:
                view = memoryview(chunk)
                while view:
                    view = view[os.write(file.descriptor, view) :]
            self._reactor.callFromThread(self._written, file, place)

        self._files.put(work)

    def _written(self, file: BodyFile, place: int) -> None:
        file.writing = 0
        if file.chunks:
            self._write(file, place)
        waiting, file.waiting = file.waiting, None
        if waiting is not None:
            waiting()
        if not file.busy and self._pending:
            self._commit_soon()

    def _discard(self, file: BodyFile, place: int) -> None:
        if file.descriptor >= 0:
            os.close(file.descriptor)
            frame_path(self._folder, place).unlink(missing_ok=True)

    def _new_place(self) -> int:
        self._next += 1
        return self._next - 1

    # ------------------------------------------------ the threads

    def close(self) -> Deferred[None]:
        """Commit all complete frames; the Deferred fires once nothing more will be written."""
        closed: Deferred[None] = Deferred()
        self._files.put(None)
        if self._timer is not None:
            self._timer.cancel()
        if not self._broken:
            self._commit(sys.maxsize)
        self._broken = True  # later calls have no effect
        self._commits.put(None)

        def wait() -> None:
            for thread in self._threads:
                thread.join()
            self._reactor.callFromThread(closed.callback, None)

        Thread(target=wait, daemon=True).start()
        return closed

    def _run(self, queue: SimpleQueue[_Work | None]) -> None:
        database = None
        try:
            database = open_database(self._folder / "relay.db")
            while (work := queue.get()) is not None:
                work(database)
        except (sqlite3.Error, OSError) as error:
            sentence = f"cannot read or write the relay's folder {self._folder}: {error}"
            self._reactor.callFromThread(self._fail, sentence)
        finally:
            if database is not None:
                database.close()

    def _fail(self, sentence: str) -> None:
        if not self._broken:
            self._broken = True
            self._tell_failed(sentence)
