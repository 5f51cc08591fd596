"""Nothing is lost with the coordinator: killed or stopped in the middle, the next one goes on."""

import resource
import signal
import sqlite3
import time
from contextlib import closing

import pytest
from kit.cli import inside as mu
from kit.faults import workers_of
from kit.film import chunk, kill, order, processes, put_film, wait_until
from kit.haproxy import behind_haproxy, start_haproxy
from stage import Daemon, StageError, free_ports_conf

CONF = free_ports_conf(worker="hold_s = 60")
BOTH_WAYS = pytest.mark.parametrize("start_own", ["own port", "haproxy"], indirect=True)


class Restarted:
    """A daemon with the function, and each that was started after it in the same folder."""

    def __init__(self, folder, s3, joiner, conf=CONF):
        self.folder, self.s3, self.conf = folder, s3, conf
        self.last = Daemon(folder, s3.env, conf)
        self.last.create_function("png2y4m", joiner)

    def again(self):
        self.last = Daemon(self.folder, self.s3.env, self.conf)
        return self.last

    def starter(self):
        """Return a function that returns the running daemon once, and then starts it again."""
        running = [self.last if self.last.process.runs else self.again()]
        return lambda: running.pop() if running else self.again()

    def clear(self):
        for job in self.last.ask("/jobs"):
            self.last.ask(f"/jobs/{job['id']}", method="DELETE")
        wait_until(lambda: not workers_of(self.last))

    def close(self):
        self.last.stop()
        wait_until(lambda: not processes(str(self.folder)))


@pytest.fixture(scope="module")
def restarted(tmp_path_factory, s3, joiner):
    daemons = Restarted(tmp_path_factory.mktemp("restarted"), s3, joiner)
    yield daemons
    daemons.close()


@pytest.fixture
def start(restarted):
    """The first call returns a daemon, each further one starts the same again."""
    yield restarted.starter()
    restarted.clear()


@pytest.fixture
def start_own(request, tmp_path, s3, joiner):
    """The same in a home folder of the test's own; with the parameter `haproxy`, behind that."""
    fronted = getattr(request, "param", "") == "haproxy"
    daemons = Restarted(tmp_path, s3, joiner, behind_haproxy(CONF) if fronted else CONF)
    front = start_haproxy(daemons.last) if fronted else None
    yield daemons.starter()
    daemons.clear()
    if front is not None:
        front.stop()
    daemons.close()


def slow_film(s3, name, chunks):
    """A film whose every chunk takes a moment to join."""
    put_film(s3, name, [text for n in range(chunks) for text in (f"nap {n}\n", f"{n}\n")])


def joined(s3, name, chunks):
    return [chunk(s3, name, n) for n in range(chunks)] == [f"nap {n}\n{n}\n" for n in range(chunks)]


def half_way(daemon, job):
    return daemon.wait(job["id"], until=lambda job: job["counts"]["running"] == job["workers"])


@pytest.mark.parametrize(
    "after_s",
    [0.1, *(pytest.param(after_s, marks=pytest.mark.soak) for after_s in (0.0, 0.3, 0.5))],
)
@BOTH_WAYS
def test_a_killed_daemons_job_ends_with_the_same_outputs(start_own, s3, after_s):
    name = f"killed-{after_s}"
    slow_film(s3, name, 6)
    first = start_own()
    ordered = first.ask("/jobs", order(name, workers=6))
    time.sleep(after_s)
    first.process.kill()
    second = start_own()
    assert second.ports == first.ports
    job = second.wait(ordered["id"])
    assert (job["state"], job["error"]) == ("done", None)
    assert job["created"] == ordered["created"]
    assert joined(s3, name, 6)
    workers = second.ask(f"/jobs/{job['id']}/workers")
    assert [worker["attempt"] for worker in workers] == [1] * 6
    assert job["launches"]["accepted"] in (6, 7)


@pytest.mark.parametrize(
    "start_own", ["own port", pytest.param("haproxy", marks=pytest.mark.soak)], indirect=True
)
def test_workers_go_on_while_no_daemon_is_there(start_own, s3):
    slow_film(s3, "alone", 4)
    first = start_own()
    job = half_way(first, first.ask("/jobs", order("alone", workers=4)))
    first.process.kill()
    time.sleep(1.5)  # longer than a nap: the replies wait for the next daemon
    second = start_own()
    assert second.wait(job["id"])["state"] == "done"
    workers = second.ask(f"/jobs/{job['id']}/workers")
    assert [worker["attempt"] for worker in workers] == [1] * 4
    assert joined(s3, "alone", 4)


def test_a_daemon_may_be_killed_again_and_again(start, s3):
    slow_film(s3, "often", 5)
    daemon = start()
    ordered = daemon.ask("/jobs", order("often", workers=5))
    for _ in range(3):
        time.sleep(0.2)
        daemon.process.kill()
        daemon = start()
    job = daemon.wait(ordered["id"])
    assert (job["state"], job["error"]) == ("done", None)
    assert joined(s3, "often", 5)


def test_files_that_are_copied_side_by_side_are_copied_once_in_spite_of_restarts(start, s3):
    client = s3.client()
    for number in range(16):
        client.put_object(
            Bucket="films", Key=f"beside/{number:02d}", Body=f"text {number}".encode()
        )
    daemon = start()
    command = "sleep 0.1; tr a-z A-Z < {in} > {out}"
    params = {"bucket": "films", "prefix": "beside/", "out_prefix": "up/", "command": command}
    ordered = {"pipeline": "map", "function": "png2y4m", "workers": 2, "params": params}
    job = half_way(daemon, daemon.ask("/jobs", ordered))
    for _ in range(2):
        time.sleep(0.3)
        daemon.process.kill()
        daemon = start()
    assert daemon.wait(job["id"])["result"]["done"] == 16
    workers = daemon.ask(f"/jobs/{job['id']}/workers")
    assert [(worker["attempt"], worker["failures"]) for worker in workers] == [(1, [])] * 2
    outputs = [
        client.get_object(Bucket="films", Key=f"up/{number:02d}")["Body"].read()
        for number in range(16)
    ]
    assert outputs == [f"TEXT {number}".encode() for number in range(16)]


@BOTH_WAYS
def test_a_clean_stop_keeps_running_jobs_for_the_next_start(start_own, s3):
    slow_film(s3, "kept", 3)
    first = start_own()
    job = half_way(first, first.ask("/jobs", order("kept", workers=3)))
    assert first.process.stop() in (0, -signal.SIGTERM)
    assert "1 running jobs will resume" in first.process.log.read_text()
    second = start_own()
    assert second.ports == first.ports
    assert second.wait(job["id"])["state"] == "done"
    assert joined(s3, "kept", 3)
    assert "Traceback" not in second.process.log.read_text()


def test_what_failed_before_a_kill_is_rerun_after_it_and_the_rerun_survives_another(start, s3):
    put_film(s3, "rerun", ["a\n", "b\n", "nap 1\n", "bad\n"])
    first = start()
    old = first.wait(first.ask("/jobs", order("rerun", workers=2))["id"])
    assert (old["state"], old["counts"]["failed"]) == ("failed", 1)
    first.process.kill()
    put_film(s3, "rerun", ["changed\n", "changed\n", "nap 1\n", "1\n"])
    second = start()
    job = half_way(second, second.ask("/jobs", {"rerun": old["id"]}))
    second.process.kill()
    third = start()
    assert third.ask(f"/jobs/{old['id']}") == old
    again = third.wait(job["id"])
    assert (again["state"], again["rerun"], again["workers"]) == ("done", old["id"], 1)
    assert again["result"] == {"keys": [f"rerun-y4m_02/{n:08d}.y4m" for n in range(2)]}
    assert [chunk(s3, "rerun", n) for n in range(2)] == ["a\nb\n", "nap 1\n1\n"]


def test_what_had_ended_is_told_after_a_restart(start, s3):
    put_film(s3, "past", ["a\n", "b\n", "fine\n", "bad\n"])
    first = start()
    ended = first.wait(first.ask("/jobs", order("past", workers=2))["id"])
    workers = first.ask(f"/jobs/{ended['id']}/workers")
    first.process.kill()
    second = start()
    assert ended in second.ask("/jobs")
    assert second.ask(f"/jobs/{ended['id']}/workers") == workers
    assert "RETVAL(3)" in ended["error"]
    assert second.ask(f"/jobs/{ended['id']}", method="DELETE") == ended


def test_a_worker_that_died_meanwhile_is_replaced(start, s3):
    slow_film(s3, "died", 3)
    first = start()
    job = half_way(first, first.ask("/jobs", order("died", workers=3, retries=1)))
    workers = workers_of(first)
    first.process.kill()
    kill(workers[0])
    second = start()
    job = second.wait(job["id"])
    assert (job["state"], job["error"]) == ("done", None)
    assert joined(s3, "died", 3)
    workers = second.ask(f"/jobs/{job['id']}/workers")
    assert sorted(worker["attempt"] for worker in workers) == [1, 1, 2]
    (failure,) = [failure for worker in workers for failure in worker["failures"]]
    assert "its worker ended: " in failure["error"]  # as the engine told the second daemon


def test_a_full_disk_ends_the_daemon_and_nothing_is_lost(start, s3):
    slow_film(s3, "full", 3)
    first = start()
    ordered = first.ask("/jobs", order("full", workers=3))
    log = first.home / "journal.db-wal"
    resource.prlimit(first.process.pid, resource.RLIMIT_FSIZE, (log.stat().st_size,) * 2)
    wait_until(lambda: not first.process.runs)
    assert "mu exits: cannot write " in first.process.log.read_text()
    second = start()
    job = second.wait(ordered["id"])
    assert (job["state"], job["error"]) == ("done", None)
    assert joined(s3, "full", 3)


def test_a_journal_of_a_newer_version_is_one_line_with_what_to_do(tmp_path, s3):
    (tmp_path / "home").mkdir()
    database = sqlite3.connect(tmp_path / "home" / "journal.db")
    database.execute("pragma user_version = 99")
    database.close()
    with pytest.raises(
        StageError, match=r"(?m)^mu: .*journal\.db has format version 99, but this mu"
    ):
        Daemon(tmp_path, s3.env, CONF)


def test_damage_in_the_journal_costs_the_damaged_jobs_and_not_the_start(start_own, s3):
    slow_film(s3, "damaged", 3)
    slow_film(s3, "whole", 3)
    first = start_own()
    damaged = first.ask("/jobs", order("damaged", workers=3))
    whole = first.ask("/jobs", order("whole", workers=3))
    first.process.kill()
    path = first.home / "journal.db"
    with sqlite3.connect(path) as database:
        mine = (damaged["id"],)
        database.execute(
            "delete from records where number = (select min(number) from records where job = ?)",
            mine,
        )
        database.execute("update facts set value = 'garbage' where name = 'ports'")
        database.execute(
            "insert into past values ('odd', 1.0, 1, 'not JSON', '[]', '{}')",
        )
    database.close()
    second = start_own()
    job = second.ask(f"/jobs/{damaged['id']}")
    assert job["state"] == "failed"
    assert job["error"].startswith("it cannot resume after the coordinator's restart: ")
    assert str(path) in job["error"]
    assert second.ask(f"/jobs/{whole['id']}")["state"] in ("launching", "running", "done")


def test_a_damaged_journal_is_named_and_repaired_and_its_jobs_resume(start_own, s3):
    slow_film(s3, "repaired", 3)
    first = start_own()
    ordered = half_way(first, first.ask("/jobs", order("repaired", workers=3)))
    first.process.kill()
    path = first.home / "journal.db"
    # Without this the first page may still be in the write-ahead log, which would undo the damage.
    with closing(sqlite3.connect(path)) as database:
        database.execute("pragma wal_checkpoint(truncate)")
    with path.open("r+b") as file:
        file.write(b"rubbish " * 8)
    with pytest.raises(StageError, match=r"(?m)^mu: .*journal\.db is damaged: .*--repair"):
        start_own()
    repaired = mu("--home", first.home, "doctor", "--journal", "--repair")
    assert (repaired.exit_code, "0 jobs lost something" in repaired.stdout) == (0, True)
    second = start_own()
    job = second.wait(ordered["id"])
    assert (job["state"], job["error"]) == ("done", None)
    workers = second.ask(f"/jobs/{job['id']}/workers")
    assert [worker["attempt"] for worker in workers] == [1] * 3
