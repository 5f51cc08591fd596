"""The journal: groups on disk, what waits for them, and what is read again."""

import os
import sqlite3
import subprocess
import sys
import textwrap
from dataclasses import replace

import pytest
from kit.journal import Bench

from mu.journal.archive import Archive
from mu.journal.database import VERSION, JournalError
from mu.journal.ledger import Past


@pytest.fixture
def bench(tmp_path):
    bench = Bench(tmp_path)
    yield bench
    if not bench.failures:
        bench.close()


def past(ended=5.0, told="{}"):
    return Past(ended, told, "[]", "{}")


def test_what_was_written_is_read_in_its_order_job_by_job(bench):
    for n in range(3):
        bench.journal.write("a", f"a{n}")
        bench.journal.write("b", f"b{n}")
    bench.commit()
    bench.journal.write("a", "a3")
    bench.commit()
    assert bench.read() == {"a": ["a0", "a1", "a2", "a3"], "b": ["b0", "b1", "b2"]}


def test_nobody_waits_for_what_is_on_disk_already(bench):
    called = []
    bench.journal.on_disk(called.append, "at once")
    assert called == ["at once"]


def test_who_waits_is_called_in_order_once_it_is_on_disk(bench):
    called = []
    bench.journal.write("a", "1")
    bench.journal.on_disk(called.append, "first")
    bench.clock.advance(0)  # the commit begins
    bench.journal.write("a", "2")
    bench.journal.on_disk(called.append, "second")
    assert called == []
    bench.clock.turn()
    assert called == ["first"]
    assert (bench.journal.synced, bench.journal.written) == (1, 2)
    bench.clock.advance(0)
    bench.clock.turn()
    assert called == ["first", "second"]


def test_what_nobody_waits_for_is_written_after_a_while(bench):
    bench.journal.write("a", "1")
    bench.clock.advance(0.9)
    assert bench.journal.synced == 0
    bench.clock.advance(0.2)
    bench.clock.turn()
    assert bench.journal.synced == 1
    bench.journal.write("a", "2")
    bench.clock.advance(1.1)
    bench.clock.turn()
    assert bench.read() == {"a": ["1", "2"]}


def test_who_can_wait_longer_is_called_after_the_next_commit_that_others_need(bench):
    called = []
    bench.journal.later_on_disk(called.append, "at once")
    bench.journal.write("a", "1")
    bench.journal.later_on_disk(called.append, "later")
    bench.clock.advance(0.9)
    assert called == ["at once"]
    bench.clock.advance(0.2)
    bench.clock.turn()
    assert called == ["at once", "later"]
    bench.journal.write("a", "2")
    bench.journal.on_disk(called.append, "soon")
    bench.clock.advance(0)  # the commit begins
    bench.journal.write("a", "3")
    bench.journal.later_on_disk(called.append, "last")
    bench.clock.turn()
    assert called[2:] == ["soon"]
    bench.clock.advance(0.9)
    assert called[3:] == []
    bench.clock.advance(0.2)
    bench.clock.turn()
    assert called[3:] == ["last"]


def test_a_fault_of_one_who_waits_does_no_harm_to_the_next(bench):
    called = []
    bench.journal.write("a", "1")
    bench.journal.on_disk(lambda: 1 / 0)
    bench.journal.on_disk(called.append, 1)
    bench.clock.advance(0)
    bench.clock.turn()
    assert called == [1]


def test_a_job_that_ended_is_past_and_runs_no_more(bench):
    bench.journal.write("a", "1")
    bench.journal.write("b", "1")
    bench.journal.end("a", past(told='{"id": "a"}'))
    bench.commit()
    assert list(bench.read()) == ["b"]
    archive = Archive(bench.path)
    assert list(archive.ended()) == [('{"id": "a"}', "{}")]
    assert archive.workers("a") == "[]"
    assert list(archive.lines("a")) == ["1"]
    archive.close()


def notifications(bench):
    archive = Archive(bench.path)
    told = list(archive.notifications())
    archive.close()
    return told


def test_a_notification_is_kept_until_it_was_delivered_or_its_job_is_pruned(bench):
    for job, url in (("a", "http://a/"), ("b", "http://b/"), ("c", "")):
        bench.journal.write(job, "1")
        bench.journal.end(job, replace(past(5.0), notify_url=url))
    bench.commit()
    assert notifications(bench) == [("a", '["http://a/", 5.0]'), ("b", '["http://b/", 5.0]')]
    bench.journal.notified("a")
    bench.commit()
    assert [job for job, _ in notifications(bench)] == ["b"]
    bench.journal.prune(0, 1000.0, 10**9)
    bench.journal.write("live", "1")
    bench.commit()
    assert notifications(bench) == []


def test_the_lag_is_the_age_of_the_oldest_record_that_is_not_on_disk(bench):
    assert bench.journal.lag_s == 0
    bench.journal.write("a", "1")
    bench.clock.advance(0.25)
    bench.journal.write("b", "1")
    assert bench.journal.lag_s == 0.25
    bench.journal.on_disk(lambda: None)
    bench.clock.advance(0)  # the commit begins
    bench.clock.advance(0.5)
    bench.journal.write("a", "2")
    assert bench.journal.lag_s == 0.75
    bench.clock.turn()
    assert bench.journal.lag_s == 0
    bench.clock.advance(0.5)
    assert bench.journal.lag_s == 0.5


@pytest.mark.parametrize(
    ("keep", "max_age_s", "max_bytes", "left"),
    [
        (9, 1000.0, 10**9, ["a", "b", "c"]),
        (2, 1000.0, 10**9, ["b", "c"]),
        (9, 95.0, 10**9, ["b", "c"]),
        (9, 1000.0, 2500, ["b", "c"]),
        (0, 1000.0, 10**9, []),
    ],
)
def test_old_jobs_are_pruned_by_number_age_and_size(bench, keep, max_age_s, max_bytes, left):
    bench.clock.advance(100)
    for place, job in enumerate("abc"):
        bench.journal.write(job, "x" * 1000)
        bench.journal.end(job, past(float(10 * place), f'{{"id": "{job}"}}'))
    bench.journal.write("live", "x" * 10_000)
    bench.commit()
    bench.journal.prune(keep, max_age_s, max_bytes)
    bench.journal.write("live", "y")
    bench.commit()
    archive = Archive(bench.path)
    assert [told[8] for told, _ in archive.ended()] == left
    assert [job for job in "abc" if list(archive.lines(job))] == left
    assert archive.running() == ["live"]
    archive.close()


def test_a_newer_version_is_refused_with_what_to_do(tmp_path):
    path = tmp_path / "journal.db"
    database = sqlite3.connect(path)
    database.execute(f"pragma user_version = {VERSION + 1}")
    database.close()
    with pytest.raises(JournalError, match=f"version {VERSION + 1}.*reads version {VERSION}.*move"):
        Archive(path)


def test_a_file_that_is_no_journal_is_refused_with_what_to_do(tmp_path):
    path = tmp_path / "journal.db"
    path.write_bytes(b"rubbish" * 1000)
    with pytest.raises(JournalError, match=r"journal\.db is damaged: .*--repair.*move it away"):
        Archive(path)


def test_facts_are_kept(tmp_path):
    archive = Archive(tmp_path / "journal.db")
    assert archive.fact("ports") == ""
    archive.note("ports", "1")
    archive.note("ports", "2")
    archive.close()
    again = Archive(tmp_path / "journal.db")
    assert again.fact("ports") == "2"
    again.close()


def test_a_failed_commit_is_told_and_nobody_who_waits_is_called(bench):
    bench.journal.write("a", "1")
    bench.commit()
    database = sqlite3.connect(bench.path)
    database.execute("drop table records")
    database.close()
    called = []
    bench.journal.write("a", "2")
    bench.journal.on_disk(called.append, 1)
    bench.clock.advance(0)
    bench.clock.turn()
    assert called == []
    assert "journal.db: no such table" in bench.failures[0]


def test_a_torn_end_is_cut_to_the_last_whole_group(tmp_path):
    """A process writes groups and kills itself; what it leaves is torn further, byte by byte."""
    path = tmp_path / "journal.db"
    script = """
        import os, signal, sys, time
        sys.path[:0] = ["tests"]
        from pathlib import Path
        from kit.journal import Bench
        bench = Bench(Path(sys.argv[1]))
        for group in range(5):
            for n in range(50):
                bench.journal.write("a", f"{group}")
            bench.commit()
        os.kill(os.getpid(), signal.SIGKILL)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script), str(tmp_path)], check=False)
    log = path.with_name("journal.db-wal")
    whole = log.read_bytes()
    groups = set()
    for length in range(len(whole), 0, -997):
        path.with_name("journal.db-shm").unlink(missing_ok=True)
        other = tmp_path / f"cut{length}"
        other.mkdir()
        (other / "journal.db").write_bytes(path.read_bytes())
        (other / "journal.db-wal").write_bytes(whole[:length])
        try:
            archive = Archive(other / "journal.db")
        except JournalError:
            pytest.fail(f"a log of {length} bytes cannot be read")
        lines = list(archive.lines("a"))
        archive.close()
        count = len(lines) // 50
        assert lines == [str(group) for group in range(count) for _ in range(50)]
        groups.add(count)
    assert groups == set(range(6))
    assert os.path.getsize(path) > 0


@pytest.mark.parametrize("name", ["journal.db", "journal.db-wal"])
def test_nothing_is_on_disk_once_a_file_was_removed(bench, name):
    told = []
    bench.journal.write("a", "1")
    bench.commit()
    gone = bench.path.with_name(name)
    gone.unlink()
    bench.journal.write("a", "2")
    bench.journal.on_disk(told.append, "too late")
    bench.clock.advance(0)
    bench.clock.turn()
    assert told == []
    assert [reason.partition(": ")[2] for reason in bench.failures] == [
        f"{gone} was removed while mu was running"
    ]


def test_a_reader_elsewhere_leaves_the_journal_whole_after_one_here(bench):
    """Had the daemon dropped its locks, a reader that closes the file last would delete its log."""
    bench.journal.write("a", "before")
    bench.commit()
    assert list(bench.journal.lines("a")) == ["before"]
    read = [sys.executable, "-c", READ, str(bench.path)]
    subprocess.run(read, check=True, capture_output=True)
    bench.journal.write("a", "after")
    bench.commit()
    seen = subprocess.run(read, check=True, capture_output=True, text=True).stdout
    assert seen.split() == ["before", "after"]


READ = """
import sqlite3, sys
for (lines,) in sqlite3.connect(sys.argv[1]).execute("select lines from records order by number"):
    print(lines.decode())
"""
