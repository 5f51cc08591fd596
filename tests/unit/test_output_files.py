"""The files with the logs of jobs: their limits, how they are packed, and what a bad disk does."""

import gzip
import random
import re
import stat

import pytest
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent

from mu.output import keeper as keeper_module
from mu.output.archive import member, read_index
from mu.output.files import LogReader, NoRoom, OutputFiles, OutputLimits
from mu.output.keeper import FLUSH_S, OutputKeeper
from mu.output.pieces import ONCE, WHOLE, Piece, excerpt, read_entries
from mu.output.transcript import Transcript, View


def piece(text, kind="text"):
    return Piece(0.0, 1, 1, "", text, kind)


def read_log(folder, job, actor):
    """Return an actor's log as it is shown; None: its job has none."""
    log = LogReader(folder, {}).read(job, actor)
    return None if log is None else log.shown(View())


def shown(folder, job="j", actor=0):
    return read_log(folder, job, actor)


def opened(folder, running=frozenset(), **limits):
    files = OutputFiles(folder, OutputLimits(**limits))
    files.open(running)
    return files


def test_only_its_owner_reads_a_log(tmp_path):
    files = opened(tmp_path / "logs")
    files.append("j", 0, [piece(b"x")])
    modes = [tmp_path / "logs", tmp_path / "logs/j", tmp_path / "logs/j/0.log"]
    files.pack("j")
    files.append("k", 0, [piece(b"x")])
    modes = [tmp_path / "logs", tmp_path / "logs/k", tmp_path / "logs/k/0.log"]
    modes.append(tmp_path / "logs/j.log.gz")
    assert [stat.S_IMODE(path.stat().st_mode) for path in modes] == [0o700, 0o700, 0o600, 0o600]


@pytest.mark.parametrize("lines", [1, 7, 5000])
def test_a_long_log_keeps_its_beginning_and_its_end(tmp_path, lines):
    files = opened(tmp_path, actor_bytes=20_000)
    text = b"".join(b"line %05d\n" % number for number in range(5000))
    for start in range(0, len(text), 11 * lines):
        files.append("j", 0, [piece(text[start : start + 11 * lines])])
        assert (tmp_path / "j/0.log").stat().st_size <= 20_000
    log = Transcript(list(read_entries((tmp_path / "j/0.log").read_bytes())))
    assert log.end == len(text)
    head, mark, tail = log.shown(View()).partition(b"[... ")
    cut, _, tail = tail.partition(b" bytes cut ...]\n")
    assert mark
    assert text.startswith(head)
    assert text.endswith(tail)
    assert len(head) + int(cut) + len(tail) == len(text)
    assert len(head) > 2000
    assert len(tail) > 1000


def test_one_line_without_an_end_is_kept_within_the_limit(tmp_path):
    files = opened(tmp_path, actor_bytes=100_000)
    for _ in range(20):
        files.append("j", 0, [piece(b"%" * 50_000)])
    assert (tmp_path / "j/0.log").stat().st_size <= 100_000
    assert b" bytes cut ...]" in shown(tmp_path)


def test_a_limit_of_0_keeps_nothing(tmp_path):
    files = opened(tmp_path, actor_bytes=0)
    files.append("j", 0, [piece(b"x")])
    assert list(tmp_path.iterdir()) == []


def test_output_that_comes_again_after_a_restart_is_there_once(tmp_path):
    files = opened(tmp_path)
    files.append("j", 0, [piece(b"1\n")._replace(command=4), piece(b"2\n")._replace(command=7)])
    again = [
        piece(text, ONCE)._replace(command=number) for text, number in ((b"2\n", 7), (b"3\n", 9))
    ]
    files.append("j", 0, again)
    files.append("j", 0, again)
    assert shown(tmp_path) == b"1\n2\n3\n"


def test_of_a_whole_output_only_what_is_missing_is_added(tmp_path):
    files = opened(tmp_path)
    files.append("j", 0, [piece(b"1\n"), piece(b"1\n2\n", WHOLE)])
    files.append("j", 1, [piece(b"1\n"), piece(b"1\n", WHOLE)])
    assert [shown(tmp_path, actor=actor) for actor in (0, 1)] == [b"1\n2\n", b"1\n"]
    assert (tmp_path / "j/1.log").read_bytes().count(b"\n") == 1


def test_a_flood_is_cut_before_it_becomes_lines(tmp_path):
    pieces = [piece(b"%06d\n" % number) for number in range(10_000)]
    kept = excerpt(pieces, 1000)
    assert sum(len(one.text) for one in kept) < 2100
    assert [one.kind for one in kept].count("cut") == 1
    files = opened(tmp_path, actor_bytes=100_000)
    files.append("j", 0, [piece(b"first\n"), piece(b"\n" * 10**7), piece(b"last\n")])
    text = shown(tmp_path)
    assert text.startswith(b"first\n\n")
    assert text.endswith(b"\n\nlast\n")


@pytest.mark.parametrize("actor_bytes", [3000, 10**6])
def test_who_reads_a_log_again_and_again_sees_what_is_there(tmp_path, actor_bytes):
    files = opened(tmp_path, actor_bytes=actor_bytes)
    again = LogReader(tmp_path, files.shortened)
    for number in range(300):
        files.append("j", 0, [piece(b"line %d\n" % number)])
        if number % 7 == 0:
            assert again.read("j", 0).entries == LogReader(tmp_path, {}).read("j", 0).entries
    with (tmp_path / "j/0.log").open("ab") as file:
        file.write(b"half a li")
    assert again.read("j", 0).end == LogReader(tmp_path, {}).read("j", 0).end


# ---------------------------------------------------------------- packed


def test_a_packed_log_is_read_like_any_other_and_by_gzip(tmp_path):
    files = opened(tmp_path)
    for actor in (2, 10, 0):
        files.append("j", actor, [piece(b"of %d\n" % actor)])
    before = {actor: read_log(tmp_path, "j", actor) for actor in (0, 2, 10)}
    files_before = b"".join((tmp_path / f"j/{actor}.log").read_bytes() for actor in before)
    files.pack("j")
    assert [path.name for path in tmp_path.iterdir()] == ["j.log.gz"]
    packed = tmp_path / "j.log.gz"
    assert gzip.decompress(packed.read_bytes()) == files_before
    assert {actor: read_log(tmp_path, "j", actor) for actor in before} == before
    assert read_log(tmp_path, "j", 1) == b""
    assert read_log(tmp_path, "k", 1) is None
    assert list(read_index(packed)) == [0, 2, 10]


@pytest.mark.parametrize("damage", [b"", b"PK", b"\x1f\x8b\x08\x04" + bytes(24), None])
def test_a_damaged_file_is_named(tmp_path, damage):
    whole = member(7, random.Random(1).randbytes(1000))
    path = tmp_path / "j.log.gz"
    if damage is None:
        path.write_bytes(whole[:500] + b"~~~" + whole[503:])
    else:
        path.write_bytes(damage + whole[len(damage) :] if damage else whole[:-20])
    with pytest.raises(ValueError, match=r"j\.log\.gz is damaged "):
        read_log(tmp_path, "j", 7)


def test_what_a_killed_daemon_left_is_put_in_order(tmp_path):
    files = opened(tmp_path)
    for job in ("runs", "ended", "packed"):
        files.append(job, 0, [piece(job.encode())])
    files.pack("packed")
    (tmp_path / "packed").mkdir()  # as if it had been killed before all of it was removed
    (tmp_path / "ended.log.gz.new").write_bytes(b"half")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("not a log")
    with (tmp_path / "runs/0.log").open("ab") as file:
        file.write(b"half a line")
    files = opened(tmp_path, {"runs"})
    files.append("runs", 0, [piece(b" on\n")])
    assert shown(tmp_path, "runs") == b"runs on\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "ended.log.gz",
        "mine",
        "packed.log.gz",
        "runs",
    ]
    assert shown(tmp_path, "packed") == b"packed"
    assert shown(tmp_path, "ended") == b"ended"


# ---------------------------------------------------------------- all of them


def test_the_logs_of_the_oldest_jobs_go_first_and_those_of_running_jobs_never(tmp_path):
    limits = {"total_bytes": 5000, "actor_bytes": 5000}
    files = opened(tmp_path, **limits)
    noise = random.Random(1).randbytes(1300).replace(b"\n", b"")  # which gzip makes no smaller
    for job in ("a", "b", "c"):
        files.append(job, 0, [piece(noise)])
    for job in ("b", "a"):
        files.pack(job)
    files = opened(tmp_path, {"c"}, **limits)
    files.append("c", 0, [piece(noise)])
    assert [read_log(tmp_path, job, 0) is None for job in "abc"] == [False, True, False]
    files.append("d", 0, [piece(noise)])
    assert [read_log(tmp_path, job, 0) is None for job in "abcd"] == [True, True, False, False]
    with pytest.raises(NoRoom, match="running jobs take all of total_bytes, 5000"):
        files.append("d", 0, [piece(noise)])
    files.drop("c")
    files.append("d", 0, [piece(noise)])


# ---------------------------------------------------------------- the keeper


def at_once(call, *args):
    return maybeDeferred(call, *args)


def a_keeper(folder, writes=at_once):
    clock = Clock()
    return OutputKeeper(folder, OutputLimits(), clock, writes, at_once), clock


def result(coroutine):
    found = []
    Deferred.fromCoroutine(coroutine).addCallback(found.append)
    return found[0]


def test_output_is_written_some_time_later_or_when_it_is_asked_for(tmp_path):
    keeper, clock = a_keeper(tmp_path)
    keeper.write("j", 0, piece(b"1"))
    assert read_log(tmp_path, "j", 0) is None
    clock.advance(FLUSH_S)
    assert shown(tmp_path) == b"1"
    keeper.write("j", 0, piece(b"2"))
    assert result(keeper.read("j", 0)).shown(View()) == b"12"
    assert clock.getDelayedCalls() == []


def test_what_a_full_disk_loses_is_said_once_and_in_the_log(tmp_path):
    keeper, clock = a_keeper(tmp_path)
    (tmp_path / "j").write_text("in the way")  # no file can be written below it
    with capturedLogs() as said:
        for _ in range(2):
            keeper.write("j", 0, piece(b"lost\n"))
            clock.advance(FLUSH_S)
    (only,) = map(formatEvent, said)
    assert "cannot be written: Not a directory" in only
    lost = b"[... output is lost here: Not a directory ...]\n"
    (tmp_path / "j").unlink()
    assert result(keeper.read("j", 0)).shown(View()) == lost
    with capturedLogs() as said:
        keeper.write("j", 0, piece(b"back\n"))
        clock.advance(FLUSH_S)
    assert list(map(formatEvent, said)) == ["the logs of jobs can be written again"]
    assert shown(tmp_path) == lost + b"back\n"


def test_a_job_whose_logs_could_not_be_packed_is_packed_later(tmp_path):
    keeper, clock = a_keeper(tmp_path)
    keeper.write("j", 0, piece(b"x"))
    (tmp_path / "j.log.gz.new").mkdir(parents=True)
    keeper.end("j")
    assert shown(tmp_path) == b"x"
    (tmp_path / "j.log.gz.new").rmdir()
    keeper.write("k", 0, piece(b"x"))
    clock.advance(FLUSH_S)
    assert (tmp_path / "j.log.gz").exists()


def test_a_disk_that_is_too_slow_loses_output_and_not_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(keeper_module, "MOST_WAITING", 5 * (keeper_module.PIECE_BYTES + 8))
    queue = []

    def slowly(call, *args):
        done = Deferred()
        queue.append(lambda: done.callback(call(*args)))
        return done

    keeper, clock = a_keeper(tmp_path, slowly)
    for number in range(50):
        keeper.write("j", 0, piece(b"line %02d\n" % number))
        clock.advance(FLUSH_S)
    assert len(queue) == 1
    while queue:
        queue.pop(0)()
        clock.advance(FLUSH_S)
    keeper.write("j", 0, piece(b"on\n"))
    clock.advance(FLUSH_S)
    while queue:
        queue.pop(0)()
    text = shown(tmp_path)
    assert text.startswith(b"line 00\nline 01\n")
    assert text.endswith(b"[... output is lost here: the disk is too slow ...]\non\n")
    assert len(text) < 200


def test_a_loud_actor_keeps_what_its_log_would_and_costs_the_others_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(keeper_module, "MOST_WAITING", 10 * OutputLimits().actor_bytes)
    keeper, clock = a_keeper(tmp_path)
    for number in range(20_000):
        keeper.write("j", 0, piece(b"line %06d\n" % number * 100))
    keeper.write("j", 1, piece(b"heard\n"))
    clock.advance(FLUSH_S)
    text = shown(tmp_path)
    assert text.startswith(b"line 000000\n")
    assert text.endswith(b"line 019999\n")
    kept = len(re.sub(rb"\[\.\.\. \d+ bytes cut \.\.\.\]\n", b"", text))
    (cut,) = re.findall(rb"(\d+) bytes cut", text)
    assert kept + int(cut) == 20_000 * 1200
    assert shown(tmp_path, actor=1) == b"heard\n"


def test_a_fault_while_logs_are_written_stops_nothing(tmp_path, monkeypatch):
    keeper, clock = a_keeper(tmp_path)
    monkeypatch.setattr(keeper._files, "append", lambda *args: 1 / 0)
    with capturedLogs() as said:
        keeper.write("j", 0, piece(b"x"))
        clock.advance(FLUSH_S)
    assert said[0]["log_failure"].type is ZeroDivisionError
    monkeypatch.undo()
    keeper.write("j", 0, piece(b"y"))
    clock.advance(FLUSH_S)
    assert shown(tmp_path) == b"y"


def test_logs_are_deleted_with_the_records_of_their_jobs(tmp_path):
    keeper, _ = a_keeper(tmp_path)
    for job in ("a", "b"):
        keeper.write(job, 0, piece(b"x"))
        keeper.end(job)
    keeper.forget(["a", "never was"])
    assert [path.name for path in tmp_path.iterdir()] == ["b.log.gz"]
