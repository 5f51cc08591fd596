"""What the relay has on disk: after a kill it is complete, in order, and without partial frames."""

import os
import queue
import sqlite3
import time

import pytest

from mu.relay.effects import Forget, Give
from mu.relay.limits import BLOB, COMMIT_CHANGES
from mu.relay.parties import Frame, Name, Party
from mu.relay.spool import BEHIND, Spool, SpoolError

A, B = Name("j", "u", "1"), Name("j", "u", "2")


class Loop:
    """A reactor for one test: `run` makes the calls that threads asked for."""

    def __init__(self):
        self._calls = queue.Queue()
        self._later = []

    def callFromThread(self, call, *args):
        self._calls.put((call, args))

    def callLater(self, _seconds, call, *args):
        self._calls.put((call, args))
        return type("Call", (), {"cancel": lambda _: None, "active": lambda _: True})()

    def run(self, until):
        end = time.monotonic() + 60
        while not until():
            call, args = self._calls.get(timeout=max(0.01, end - time.monotonic()))
            call(*args)


class Book:
    """A spool, and what it reported."""

    def __init__(self, folder, parties=None):
        self.loop = Loop()
        self.told = []
        self.failed = []
        self.parties = {} if parties is None else parties
        self.spool = Spool(
            folder, self.loop, self._stored, lambda name: self.told.append(name), self.failed.append
        )

    def _stored(self, frames):
        for frame in frames:
            frame.storing, frame.stored = False, True
        self.told += [frame.number for frame in frames]

    def frame(self, number, body, to=B, sender=None, sender_number=0, file=False):
        party = self.parties.setdefault(to, Party(to))
        frame = Frame(len(body), 5.0, party)
        frame.number, frame.file = number, file
        if sender:
            frame.sender = self.parties.setdefault(sender, Party(sender))
            frame.sender_number = sender_number
        if file:
            for start in range(0, len(body), 100_000):
                self.spool.append(frame, body[start : start + 100_000])
        else:
            frame.body = [body[:10], body[10:]]
        return frame

    def store(self, *frames):
        for frame in frames:
            frame.storing = True
            self.spool.store(frame)

    def wait(self, told):
        self.loop.run(lambda: len(self.told) >= told or self.failed)

    def read(self, frame, size=10**9):
        got = []
        while len(b"".join(got)) < min(frame.size, size):
            count = len(got)
            offset = len(b"".join(got))
            self.spool.read(frame, offset, 256 * 1024, got.append)
            self.loop.run(lambda n=count: len(got) > n)
        return b"".join(got)

    def close(self):
        closed = []
        self.spool.close().addCallback(lambda _: closed.append(1))
        self.loop.run(lambda: closed)


def restored(book, kept):
    """Return the restored frames, by number."""
    found = {}
    for name, number, size, at, place in kept.frames:
        frame = Frame(size, at, book.parties.setdefault(name, Party(name)))
        frame.number, frame.stored, frame.place = number, True, place
        found[number] = frame
    return found


SIZES = {"empty": 0, "small": 5, "blob": BLOB, "larger": BLOB + 1, "large": 3_000_000}


def test_frames_come_back_as_they_were(tmp_path):
    book = Book(tmp_path / "relay")
    bodies = [os.urandom(size) for size in SIZES.values()]
    book.store(*[book.frame(n + 1, body, B, A, n + 1) for n, body in enumerate(bodies)])
    book.store(book.frame(6, bodies[-1], file=True), book.frame(7, b"x" * 70_000, file=True))
    book.wait(7)
    assert book.told == [1, 2, 3, 4, 5, 6, 7]
    after = Book(tmp_path / "relay")  # the other was killed
    assert sorted(after.spool.kept.names) == [(A, 5, 0, 0), (B, 0, 7, 0)]
    found = restored(after, after.spool.kept)
    assert list(found) == [1, 2, 3, 4, 5, 6, 7]
    assert [after.read(found[n]) for n in (1, 2, 3, 4, 5)] == bodies
    assert after.read(found[6]) == bodies[-1]
    assert after.read(found[7]) == b"x" * 70_000
    assert found[1].at == 5.0
    after.close()
    book.close()


def test_frames_that_come_together_are_committed_together(tmp_path):
    book = Book(tmp_path)
    book.store(*[book.frame(n, b"x") for n in range(1, 101)])
    book.wait(1)
    assert len(book.told) == 100
    book.close()


def test_a_file_that_is_still_written_holds_back_those_behind_it(tmp_path):
    book = Book(tmp_path)
    large = book.frame(1, os.urandom(5_000_000), file=True)
    book.store(large, book.frame(2, b"x"))
    book.wait(2)
    assert book.told == [1, 2]
    assert (tmp_path / f"{large.place}.frame").stat().st_size == 5_000_000
    book.close()


def test_a_sender_that_is_ahead_of_the_disk_is_told_when_it_is_not(tmp_path):
    book = Book(tmp_path)
    frame = book.frame(1, b"", file=True)
    frame.size = 10 * BEHIND
    told = []
    assert not book.spool.is_behind(frame, lambda: told.append(1))
    book.spool.append(frame, b"x" * 100)
    assert not book.spool.is_behind(frame, lambda: told.append(1))
    book.spool.append(frame, b"x" * BEHIND)
    book.loop.run(lambda: book.spool.is_behind(frame, lambda: told.append(1)))
    book.loop.run(lambda: told)
    book.close()


def test_the_body_of_a_frame_that_is_on_no_books_can_be_read(tmp_path):
    book = Book(tmp_path)
    body = os.urandom(1_000_000)
    frame = book.frame(1, body, file=True)
    assert book.read(frame) == body
    book.spool.drop(frame)
    book.close()
    assert list(tmp_path.glob("*.frame")) == []


def test_what_is_dropped_is_gone(tmp_path):
    book = Book(tmp_path)
    frames = [book.frame(1, b"x" * 400_000), book.frame(2, b"y"), book.frame(3, b"z")]
    book.store(*frames)
    book.wait(3)
    book.spool.drop(frames[0])
    book.spool.drop(frames[1])
    book.close()
    after = Book(tmp_path)
    assert list(restored(after, after.spool.kept)) == [3]
    assert list(tmp_path.glob("*.frame")) == []
    after.close()


def test_what_may_have_been_given_away_does_not_come_back(tmp_path):
    book = Book(tmp_path)
    book.store(*[book.frame(n, b"x" * (n * 200_000)) for n in (1, 2, 3)])
    book.spool.give(Give(B, 2))
    book.wait(4)
    assert book.told == [1, 2, 3, B]
    after = Book(tmp_path)
    assert list(restored(after, after.spool.kept)) == [3]
    assert after.spool.kept.names == [(B, 0, 3, 2)]
    after.spool.give(Give(B, 0))
    after.wait(1)
    last = Book(tmp_path)
    assert last.spool.kept.names == [(B, 0, 3, 0)]
    for one in (book, after, last):
        one.close()


def test_a_name_can_be_forgotten(tmp_path):
    book = Book(tmp_path)
    frame = book.frame(1, b"x", B, A, 1)
    book.store(frame)
    book.wait(1)
    book.spool.drop(frame)
    book.spool.forget(Forget(A))
    book.spool.forget(Forget(B))
    book.close()
    after = Book(tmp_path)
    assert after.spool.kept == ([], [])
    after.close()


def test_files_that_no_row_names_and_rows_without_their_file_are_cleared_away(tmp_path):
    book = Book(tmp_path)
    frames = [book.frame(n, b"x" * 400_000) for n in (1, 2, 3)]
    book.store(*frames)
    book.wait(3)
    book.close()
    (tmp_path / "99.frame").write_bytes(b"left over")
    (tmp_path / f"{frames[0].place}.frame").unlink()
    (tmp_path / f"{frames[1].place}.frame").write_bytes(b"short")
    after = Book(tmp_path)
    assert list(restored(after, after.spool.kept)) == [3]
    assert len(list(tmp_path.glob("*.frame"))) == 1
    frame = after.frame(4, b"new")
    after.store(frame)
    after.wait(1)
    assert frame.place > max(one.place for one in frames)
    after.close()


def test_what_is_private_is_private(tmp_path):
    book = Book(tmp_path / "relay")
    book.store(book.frame(1, b"x" * 400_000), book.frame(2, b"x", file=True))
    book.wait(2)
    book.close()
    assert (tmp_path / "relay").stat().st_mode & 0o077 == 0
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "relay").glob("*.frame")} == {0}
    assert (tmp_path / "relay" / "relay.db").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("size", [5, 400_000])
def test_a_disk_that_is_full_is_told_once_and_nothing_after_it(tmp_path, monkeypatch, size):
    book = Book(tmp_path)
    book.store(book.frame(1, b"fine"))
    book.wait(1)

    def full(*_):
        raise OSError(28, "No space left on device")

    if size > BLOB:
        monkeypatch.setattr(os, "fsync", full)
    else:
        monkeypatch.setattr("mu.relay.spool.commit", full)
    book.store(book.frame(2, b"x" * size), book.frame(3, b"y"))
    book.wait(9)
    assert len(book.failed) == 1
    assert book.failed[0].startswith("cannot read or write the relay's folder ")
    assert "No space left" in book.failed[0]
    assert book.told == [1]
    monkeypatch.undo()
    book.close()
    after = Book(tmp_path)
    assert list(restored(after, after.spool.kept)) == [1]
    after.close()


def test_a_folder_that_cannot_be_used_is_told(tmp_path):
    (tmp_path / "relay").write_text("no folder")
    with pytest.raises(SpoolError, match="cannot use the relay's folder .*/relay"):
        Book(tmp_path / "relay")
    (tmp_path / "other").mkdir()
    database = sqlite3.connect(tmp_path / "other" / "relay.db")
    database.execute("pragma user_version = 9")
    database.close()
    with pytest.raises(SpoolError, match="has format version 9; this mu supports version 1"):
        Book(tmp_path / "other")


def test_the_frames_of_a_job_do_not_wait_for_all_of_another(tmp_path):
    book = Book(tmp_path)
    book.store(*[book.frame(number, b"") for number in range(1, 3 * COMMIT_CHANGES + 1)])
    other = Name("k", "u", "1")
    book.store(book.frame(-1, b"", to=other), book.frame(-2, b"", to=other))
    book.wait(1)
    first = list(book.told)
    assert first[-2:] == [-1, -2]
    assert first[:-2] == list(range(1, COMMIT_CHANGES // 2 + 1))
    book.wait(3 * COMMIT_CHANGES + 2)
    assert [number for number in book.told if number > 0] == list(range(1, 3 * COMMIT_CHANGES + 1))
    book.spool.close()


def test_all_that_waits_is_committed_when_the_spool_is_closed(tmp_path):
    book = Book(tmp_path)
    book.store(*[book.frame(number, b"") for number in range(1, 2 * COMMIT_CHANGES + 1)])
    closed = book.spool.close()
    book.loop.run(lambda: closed.called)
    again = Book(tmp_path)
    assert len(again.spool.kept.frames) == 2 * COMMIT_CHANGES
    again.spool.close()
