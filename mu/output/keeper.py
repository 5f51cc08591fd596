"""Keeps what commands print: collects it in the reactor's thread, and writes it in another."""

from collections.abc import Callable, Iterable, Set
from pathlib import Path

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from mu.in_thread import InThread
from mu.output.files import ActorOfJob, LogReader, OutputFiles, OutputLimits
from mu.output.pieces import NOTE, LogEntry, Piece, excerpt
from mu.output.transcript import Transcript

FLUSH_S = 0.5
"""How long output is collected before it is written."""
MOST_WAITING = 2**26
"""How much memory output that waits to be written may take, in bytes. Beyond that, a slow disk loses
some."""
PIECE_BYTES = 200
"""What a piece takes besides its text, about: workers may print one byte at a time."""


class OutputKeeper:
    """The logs of all jobs. Call its methods in the reactor's thread only.

    `writes` runs a blocking call in the one thread that writes, `reads` in any thread. If a disk is
    full, output is lost; this is said in the daemon's log, and in those of the actors.
    """

    log = Logger()

    def __init__(
        self,
        folder: Path,
        limits: OutputLimits,
        clock: IReactorTime,
        writes: InThread,
        reads: InThread,
    ) -> None:
        self._folder = folder
        self._files = OutputFiles(folder, limits)
        self._reader = LogReader(folder, self._files.shortened)
        self._clock = clock
        self._writes = writes
        self._reads = reads
        self._pending: dict[ActorOfJob, _Pending] = {}
        self._dropped: dict[ActorOfJob, Piece] = {}  # the first piece that was, of each actor
        self._waiting = 0  # bytes of memory that what is not written yet takes
        self._writing = 0  # calls that are
        self._timer: IDelayedCall | None = None
        self._failing = False
        # These two belong to the thread that writes:
        self._lost: dict[ActorOfJob, Piece] = {}  # notes that say so, not written yet
        self._unpacked: set[str] = set()

    def open(self, running: Set[str]) -> None:
        """Find the logs of earlier daemons; `running` are the jobs that resume."""
        self._write(self._open, running)

    def reload(self, limits: OutputLimits) -> None:
        """Take new limits."""
        self._files.limits = limits

    def write(self, job: str, actor: int, piece: Piece) -> None:
        key = job, actor
        if self._waiting > MOST_WAITING:
            self._dropped.setdefault(key, piece)
            return
        pending = self._pending.get(key)
        if pending is None:
            pending = self._pending[key] = _Pending()
        self._waiting += pending.add(piece, self._files.limits.actor_bytes)
        if self._timer is None and not self._writing:
            self._timer = self._clock.callLater(FLUSH_S, self._flush)

    def end(self, job: str) -> None:
        """Pack the logs of a job, whose end is on disk."""
        self._flush()
        self._write(self._pack, job)

    def forget(self, jobs: Iterable[str]) -> None:
        """Delete the logs of these jobs: their records are deleted, too."""
        self._write(self._drop, list(jobs))

    async def read(self, job: str, actor: int) -> Transcript | None:
        """Return an actor's log, with all that was written so far; None: its job has none.

        Raises OSError, and ValueError for a damaged file.
        """
        await self.flushed()
        transcript: Transcript | None = await self._reads(self._read, job, actor)
        return transcript

    def flushed(self) -> Deferred[None]:
        """Write everything; the Deferred fires once it is on disk, or cannot be."""
        if self._pending or self._dropped or self._writing:
            return self._flush()
        return succeed(None)

    # ------------------------------------------------ the reactor's side

    def _flush(self) -> Deferred[None]:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
        pending, self._pending = self._pending, {}
        dropped, self._dropped = self._dropped, {}
        size = sum(of_actor.memory for of_actor in pending.values())
        pieces = {key: of_actor.pieces for key, of_actor in pending.items()}
        return self._write(self._store, pieces, dropped, size=size)

    def _write(self, call: Callable[..., str], *args: object, size: int = 0) -> Deferred[None]:
        """Make a call in the thread that writes; it returns why something cannot be written."""
        self._writing += 1
        return self._writes(call, *args).addBoth(self._written, size)

    def _written(self, why: str | Failure, size: int) -> None:
        self._writing -= 1
        self._waiting -= size
        if isinstance(why, Failure):
            self.log.failure("the logs of jobs in {folder}", why, folder=str(self._folder))
        elif why and not self._failing:
            self.log.error(
                "the logs of jobs cannot be written: {why} ({folder}). What workers print is lost"
                " until this is mended; jobs go on",
                why=why,
                folder=str(self._folder),
            )
            self._failing = True
        elif self._failing and not why and size:
            self.log.info("the logs of jobs can be written again")
            self._failing = False
        if self._pending and not self._writing and self._timer is None:
            self._timer = self._clock.callLater(FLUSH_S, self._flush)

    # ------------------------------------------------ the thread's side

    def _open(self, running: Set[str]) -> str:
        try:
            self._files.open(running)
        except OSError as error:
            return _reason(error)
        return ""

    def _store(
        self, pending: dict[ActorOfJob, list[Piece]], dropped: dict[ActorOfJob, Piece]
    ) -> str:
        why = ""
        for key, pieces in pending.items():
            why = self._append(key, pieces) or why
        for key, piece in dropped.items():
            self._lose(key, piece, "the disk is too slow")
        if pending and not why:
            for job in list(self._unpacked):
                why = self._pack(job) or why
        return why

    def _append(self, key: ActorOfJob, pieces: list[Piece]) -> str:
        note = self._lost.get(key)
        try:
            self._files.append(*key, [note, *pieces] if note else pieces)
        except OSError as error:
            self._lose(key, pieces[0], _reason(error))
            return _reason(error)
        self._lost.pop(key, None)
        return ""

    def _lose(self, key: ActorOfJob, piece: Piece, why: str) -> None:
        text = f"output is lost here: {why}".encode()
        self._lost.setdefault(key, piece._replace(text=text, kind=NOTE))

    def _pack(self, job: str) -> str:
        self._unpacked.add(job)
        try:
            for key, note in list(self._lost.items()):
                if key[0] == job:
                    self._files.append(*key, [note])
                    del self._lost[key]
            self._files.pack(job)
        except OSError as error:
            return _reason(error)
        self._unpacked.discard(job)
        return ""

    def _drop(self, jobs: list[str]) -> str:
        for job in jobs:
            self._files.drop(job)
            self._unpacked.discard(job)
        return ""

    def _read(self, job: str, actor: int) -> Transcript | None:
        log = self._reader.read(job, actor)
        note = self._lost.get((job, actor))
        if note is None:
            return log
        entries, at = (log.entries, log.end) if log else ([], 0)
        said = LogEntry(b"", note.attempt, note.command, note.source, NOTE, note.text, at, at + 1)
        return Transcript([*entries, said])


class _Pending:
    """An actor's pieces that wait to be written: of a loud actor's, what its log would keep."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.memory = 0
        self._checked = 0

    def add(self, piece: Piece, limit: int) -> int:
        """Add a piece; return how many more bytes of memory they take now."""
        before = self.memory
        self.pieces.append(piece)
        self.memory += PIECE_BYTES + len(piece.text)
        if self.memory > self._checked + 4 * limit:
            self.pieces = excerpt(self.pieces, limit)
            self.memory = sum(PIECE_BYTES + len(piece.text) for piece in self.pieces)
            self._checked = self.memory
        return self.memory - before


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
