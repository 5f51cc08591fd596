"""A damaged journal: what the daemon says of it, what a check finds, what a repair saves."""

import json
import random
import sqlite3
from contextlib import closing

import pytest
from kit.cli import inside as mu
from kit.cli import refusal
from kit.parts import make_spec

from mu.doctor.journal import examine_journal
from mu.findings import FAIL, OK, WARN
from mu.home import lock
from mu.jobs.history import NoHistory, read
from mu.jobs.recovery import find
from mu.journal.archive import Archive
from mu.journal.check import check
from mu.journal.database import JournalError, open_database
from mu.journal.ledger import Past
from mu.journal.records import Alive, NobodyCame, Ordered, write_record
from mu.journal.salvage import repair
from mu.states import MachineState

PAGE = 4096
JOBS = [f"{n:012x}" for n in range(12)]
ENDED = JOBS[::3]


def make_journal(path):
    """Write a journal of twelve jobs, four of them ended, on some thirty pages."""
    chance = random.Random(5)
    with closing(open_database(path)) as database:
        for job in JOBS:
            add(database, job, Ordered(1.0, "uniq", {"text": "x" * 300}, job, ""))
        for turn in range(300):
            records = [NobodyCame(1.0, 1, "x" * chance.randrange(300))] * chance.randrange(1, 3)
            if turn % 97 == 0:
                records *= 15  # more than a page
            add(database, chance.choice(JOBS), *records)
        for place, job in enumerate(ENDED):
            past = Past.of(float(place), {"id": job, "pad": "x" * 900}, [], job, "")
            database.execute(
                "insert into past values (?, ?, ?, ?, ?, ?)",
                (job, past.ended, 1, past.told, past.workers, past.identity),
            )
        database.execute("insert into facts values ('ports', '{\"worker\": 1}')")
    return contents(path)


def add(database, job, *records):
    lines = "\n".join(map(write_record, records)).encode("ascii")
    database.execute("insert into records (job, lines) values (?, ?)", (job, lines))


def contents(path):
    """Return the lines of each job, and what is told of the ended ones."""
    with closing(Archive(path)) as archive:
        ended = {json.loads(told)["id"]: told for told, _ in archive.ended()}
        return {job: list(archive.lines(job)) for job in archive.jobs()}, ended


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of a journal, and its contents."""
    path = tmp_path_factory.mktemp("whole") / "journal.db"
    told = make_journal(path)
    return path.read_bytes(), told


def saves_the_rest(path, damaged, told):
    """Repair a journal; each job is as it was, or is named with what it lost."""
    path.write_bytes(damaged)
    saved = repair(path)
    assert saved.kept.read_bytes() == damaged
    assert {file.name for file in path.parent.iterdir()} == {path.name, saved.kept.name}
    assert check(path).damage == []
    jobs, ended = contents(path)
    for job in JOBS:
        if saved.unnamed and job not in jobs:
            continue
        if job not in saved.lost:
            assert (job, jobs[job]) == (job, told[0][job])
            assert ended.get(job) == told[1].get(job)
        elif job in ended:
            assert ended[job] == told[1][job]
            assert refuses(path, job)
    with closing(Archive(path)) as archive:
        found, lost, _ = find(archive, lambda ordered: make_spec(MachineState))
    running = {*JOBS} - {*ENDED}
    assert {one.id for one in found} == (running & jobs.keys()) - saved.lost.keys()
    assert lost.keys() == running & saved.incomplete.keys()
    assert all("the journal was damaged, and" in reason for _, reason in lost.values())
    saved.kept.unlink()
    path.unlink()
    return saved


def refuses(path, job):
    with closing(Archive(path)) as archive:
        try:
            read(archive, job)
        except NoHistory as error:
            return "damaged" in str(error)
    return False


# ---------------------------------------------------------------- a repair


def test_a_journal_that_was_cut_keeps_all_but_its_last_pages(tmp_path, whole):
    data, told = whole
    for share in (0.99, 0.9, 0.75):
        saved = saves_the_rest(tmp_path / "journal.db", data[: int(len(data) * share)], told)
        assert saved.lost.keys() <= {*JOBS}
        assert saved.rows > 150


@pytest.mark.parametrize("damage", ["zeroed", "torn", "garbage"])
def test_any_page_may_be_damaged(tmp_path, whole, damage):
    data, told = whole
    chance = random.Random(7)
    intact = 0
    for start in range(0, len(data), PAGE if damage == "zeroed" else 3 * PAGE):
        new = {
            "zeroed": bytes(PAGE),
            "torn": data[start : start + PAGE // 2] + bytes(PAGE // 2),
            "garbage": chance.randbytes(PAGE),
        }[damage]
        saved = saves_the_rest(
            tmp_path / "journal.db", data[:start] + new + data[start + PAGE :], told
        )
        intact += not saved.lost
    assert intact > 0  # pages of the index alone


def test_several_pages_may_be_empty_or_copies_of_others(tmp_path, whole):
    data, told = whole
    pages = range(6, len(data) // PAGE)  # the roots come before
    for seed in range(12):
        chance = random.Random(seed)
        damaged = bytearray(data)
        for _ in range(4):
            start, other = (chance.choice(pages) * PAGE for _ in range(2))
            new = data[other : other + PAGE] if chance.random() < 0.5 else bytes(PAGE)
            damaged[start : start + PAGE] = new
        saves_the_rest(tmp_path / "journal.db", bytes(damaged), told)


def test_a_header_of_garbage_costs_nothing(tmp_path, whole):
    data, told = whole
    for length in (16, 100, PAGE):
        saved = saves_the_rest(tmp_path / "journal.db", b"rubbish " * 512 + data[PAGE:], told)
        assert saved.lost == {}
        saved = saves_the_rest(tmp_path / "journal.db", bytes(length) + data[length:], told)
        assert saved.lost == {}


def test_what_is_in_the_write_ahead_log_is_saved(tmp_path, whole):
    data, _ = whole
    path = tmp_path / "journal.db"
    path.write_bytes(data)
    database = open_database(path)
    add(database, "late", Ordered(1.0, "uniq", {}, "late", ""))
    damaged = tmp_path / "killed" / "journal.db"
    damaged.parent.mkdir()
    damaged.write_bytes(b"rubbish " * 2 + path.read_bytes()[16:])
    log = damaged.with_name("journal.db-wal")
    log.write_bytes(path.with_name("journal.db-wal").read_bytes())
    kept = log.read_bytes()
    database.close()
    saved = repair(damaged)
    assert saved.kept.with_name(saved.kept.name + "-wal").read_bytes() == kept
    assert "late" in contents(damaged)[0]


def test_a_file_of_which_nothing_can_be_read_is_left_as_it_is(tmp_path):
    path = tmp_path / "journal.db"
    path.write_bytes(b"rubbish" * 10_000)
    with pytest.raises(JournalError, match=r"nothing in .*journal\.db can be read: move it away"):
        repair(path)
    assert [file.name for file in tmp_path.iterdir()] == ["journal.db"]
    assert path.read_bytes() == b"rubbish" * 10_000


def test_a_job_whose_end_is_lost_does_not_begin_again(tmp_path, whole):
    data, told = whole
    damaged = bytearray(data)
    found = data.index(b'"pad"') // PAGE * PAGE
    damaged[found : found + PAGE] = bytes(PAGE)
    saved = saves_the_rest(tmp_path / "journal.db", bytes(damaged), told)
    lost = {job for job in ENDED if job in saved.lost}
    assert lost
    assert all("it had ended" in saved.lost[job] for job in lost)


# ---------------------------------------------------------------- a check


def test_a_sound_journal_is_told_to_be_so(tmp_path, whole):
    path = tmp_path / "journal.db"
    path.write_bytes(whole[0])
    (found,) = examine_journal(path)
    assert found.level == OK
    assert "8 running and 4 ended jobs" in found.sentence
    before = path.read_bytes()
    mended, found = examine_journal(path, mend=True)
    assert (mended.level, found.level) == (OK, OK)
    assert "nothing to repair" in mended.sentence
    assert path.read_bytes() == before


def test_a_damaged_file_is_told_with_what_to_do_and_repaired(tmp_path, whole):
    path = tmp_path / "journal.db"
    path.write_bytes(whole[0][: -2 * PAGE])
    *_, last = examine_journal(path)
    assert (last.level, "mu doctor --journal --repair" in last.remedy) == (FAIL, True)
    repaired, warned, *_, last = examine_journal(path, mend=True)
    assert "groups of records were saved" in repaired.sentence
    assert f"{path}.damaged-1" in repaired.remedy
    assert (warned.level, "cannot resume" in warned.sentence) == (WARN, True)
    assert (last.level, "the file is sound" in last.sentence) == (OK, True)
    assert [one.level for one in examine_journal(path)][-1] == OK


def test_a_bad_record_is_told_with_its_job(tmp_path):
    path = tmp_path / "journal.db"
    with closing(open_database(path)) as database:
        add(database, "good", Ordered(1.0, "uniq", {}, "", ""))
        add(database, "headless", Alive(1.0))
        add(database, "cut", Ordered(1.0, "uniq", {}, "", ""))
        event = b'["happened",0,1,"",["answered",1.0,"OK",0]]'
        database.execute("insert into records (job, lines) values ('cut', ?)", (event,))
    assert check(path).bad == {
        "headless": "the first of its records, and only that, must be its order",
        "cut": "an event of actor 0 is not of a running attempt",
    }


def test_nothing_is_repaired_while_a_daemon_runs(tmp_path, whole):
    path = tmp_path / "journal.db"
    path.write_bytes(whole[0][:-PAGE])
    with closing(lock(tmp_path)):
        (found,) = examine_journal(path, mend=True)
    assert (found.level, "not repaired while a daemon uses it" in found.sentence) == (FAIL, True)
    assert path.read_bytes() == whole[0][:-PAGE]


def test_the_command_checks_and_repairs(tmp_path, whole):
    path = tmp_path / "journal.db"
    path.write_bytes(whole[0][: -2 * PAGE])
    told = mu("--home", tmp_path, "doctor", "--journal", "--json")
    assert (told.exit_code, json.loads(told.stdout)[0]["level"]) == (1, FAIL)
    told = mu("--home", tmp_path, "doctor", "--journal", "--repair")
    assert (told.exit_code, "repaired:" in told.stdout) == (0, True)
    assert mu("--home", tmp_path, "doctor", "--journal").exit_code == 0
    assert "--repair needs --journal" in refusal("--home", tmp_path, "doctor", "--repair")


def test_a_home_without_a_journal_is_told_so(tmp_path):
    (found,) = examine_journal(tmp_path / "journal.db")
    assert (found.level, "there is no journal" in found.sentence) == (FAIL, True)


# ---------------------------------------------------------------- a daemon's start


def test_a_damaged_file_is_named_at_the_start_with_what_to_do(tmp_path, whole):
    path = tmp_path / "journal.db"
    path.write_bytes(whole[0][: -2 * PAGE])
    with pytest.raises(JournalError, match=r"journal\.db is damaged: .*doctor --journal --repair"):
        Archive(path)


def test_a_damaged_page_is_noticed_when_the_jobs_are_read(tmp_path, whole):
    data, _ = whole
    path = tmp_path / "journal.db"
    stopped = 0
    for start in range(PAGE, len(data), PAGE):
        path.write_bytes(data[:start] + bytes(PAGE) + data[start + PAGE :])
        try:
            with closing(Archive(path)) as archive:
                list(archive.ended())
                find(archive, lambda ordered: make_spec(MachineState))
        except JournalError as error:
            stopped += "doctor --journal --repair" in str(error)
        except sqlite3.Error as error:
            pytest.fail(f"the page at {start}: {error}")
    assert stopped > 10
