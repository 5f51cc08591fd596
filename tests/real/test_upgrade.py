"""An upgrade loses nothing: journals and functions of earlier versions work with this one."""

import json
import sqlite3
from pathlib import Path

import pytest
from kit.film import chunk, order, put_film
from stage import Daemon, free_ports_conf

from mu.jobs.usage import Usage

DATA = Path(__file__).parent / "data"
VERSIONS = sorted(path.stem.removeprefix("journal-") for path in DATA.glob("journal-*.sql"))
CONF = free_ports_conf(
    mu="on_stop = cancel",
    worker="hold_s = 1",
    jobs="retry_pause_s = 0.1",
    journal="keep_days = 36500",  # the recordings grow old
)


def load_journal(version: str, path: Path) -> None:
    """Write the recorded journal to a new file."""
    with sqlite3.connect(path) as database:
        database.executescript((DATA / f"journal-{version}.sql").read_text())
        database.execute("delete from facts where name = 'ports'")  # they may be in use here
    database.close()


def running_and_ended(path: Path):
    """Return the jobs that a journal says are running, by pipeline, and the past table's rows."""
    database = sqlite3.connect(path)
    jobs = dict(database.execute("select job, lines from records group by job order by number"))
    ended = {job: json.loads(told) for job, told in database.execute("select job, told from past")}
    database.close()
    running = {}
    for job in jobs.keys() - ended.keys():
        _, _, _, what, *_ = json.loads(jobs[job].split(b"\n")[0])
        running[what["pipeline"]] = job
    return running, ended


@pytest.fixture(scope="module", params=VERSIONS)
def upgraded(request, tmp_path_factory, s3):
    """Today's daemon on the journal and the functions of an earlier version; and what was in it."""
    folder = tmp_path_factory.mktemp("upgraded")
    for number in range(4):  # another test may have made such chunks
        s3.client().delete_object(Bucket="films", Key=f"kept-y4m_02/{number:08d}.y4m")
    put_film(s3, "kept", [f"{number}\n" for number in range(1, 9)])
    first = Daemon(folder, s3.env, CONF)
    for name in ("hello", "png2y4m", "linpack"):
        first.create_function(name, DATA / f"function-{request.param}.zip")
    first.stop()
    journal = first.home / "journal.db"
    for name in ("", "-wal", "-shm"):
        Path(f"{journal}{name}").unlink(missing_ok=True)
    load_journal(request.param, journal)
    running, ended = running_and_ended(journal)
    daemon = Daemon(folder, s3.env, CONF)
    yield daemon, running, ended
    daemon.stop()


def test_a_job_of_states_is_resumed_and_ends(upgraded, s3):
    daemon, running, _ = upgraded
    job = daemon.wait(running["png2y4m"])
    assert (job["state"], job["error"]) == ("done", None)
    actors = daemon.ask(f"/jobs/{job['id']}/workers")
    assert [actor["attempt"] for actor in actors] == [1, 1, 3, 2]
    # Their machines agreed with the journal: only their workers were missing.
    errors = [failure["error"] for actor in actors for failure in actor["failures"]]
    assert len(errors) == 3
    assert all(error.startswith("Convert (converting and uploading): ") for error in errors)
    assert all("did not come back within" in error for error in errors)
    assert [chunk(s3, "kept", number) for number in (2, 3)] == ["5\n6\n", "7\n8\n"]
    uploaded = s3.client().list_objects_v2(Bucket="films", Prefix="kept-y4m_02/")
    assert uploaded["KeyCount"] == 2  # the finished actors did not run again
    assert len(job["result"]["keys"]) == 4


def test_a_job_of_a_script_is_resumed_and_ends(upgraded):
    daemon, running, _ = upgraded
    job = daemon.wait(running["linpack"])
    assert (job["state"], job["error"]) == ("done", None)
    actors = daemon.ask(f"/jobs/{job['id']}/workers")
    assert [actor["attempt"] for actor in actors] == [2, 2]
    for actor in actors:
        (failure,) = actor["failures"]
        assert "did not come back within" in failure["error"]
    assert [run["output"] for run in job["result"]["runs"]] == ["worked\n"] * 4


def test_a_job_whose_launches_were_throttled_is_resumed_and_ends(upgraded):
    daemon, running, _ = upgraded
    job = daemon.wait(running["hello"])
    assert (job["state"], job["result"]) == ("done", {"said_hello": 8})
    actors = daemon.ask(f"/jobs/{job['id']}/workers")
    assert {actor["attempt"] for actor in actors} == {1}


def test_ended_jobs_are_shown_as_they_were(upgraded):
    daemon, _, ended = upgraded
    assert {job["state"] for job in ended.values()} == {"done", "failed"}
    for job_id, told in ended.items():
        added = {"counts": {"cancelled": 0} | told["counts"], "rerun": None}
        added |= {"cost_usd_at_most": None, "max_cost_usd": 0.0}
        done, failed = told["counts"]["done"], told["counts"]["failed"]
        added["inputs"] = {"total": told["workers"], "done": done, "failed": failed}
        added |= {"name": "", "functions": [], "regions": [], "used": Usage().json()}
        assert daemon.ask(f"/jobs/{job_id}") == told | added


def test_a_deployed_function_takes_new_jobs(upgraded, s3):
    daemon, _, _ = upgraded
    job = daemon.ask("/jobs", {"pipeline": "hello", "workers": 2, "params": {"rounds": 3}})
    assert daemon.wait(job["id"])["state"] == "done"
    put_film(s3, "new", ["a\n", "b\n"])
    job = daemon.ask("/jobs", order("new", workers=1))
    assert daemon.wait(job["id"])["state"] == "done"
    assert chunk(s3, "new", 0) == "a\nb\n"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_worker_of_an_earlier_version_comes_back_to_a_restarted_daemon(version, tmp_path):
    conf = free_ports_conf(mu="on_stop = cancel")
    first = Daemon(tmp_path, conf=conf)
    first.create_function("hello", DATA / f"function-{version}.zip")
    job = first.ask("/jobs", {"pipeline": "hello", "workers": 2, "params": {"rounds": 1500}})
    first.wait(job["id"], until=lambda job: job["counts"]["running"] == 2)
    first.process.kill()
    second = Daemon(tmp_path, conf=conf)
    assert second.wait(job["id"])["state"] == "done"
    actors = second.ask(f"/jobs/{job['id']}/workers")
    assert [(actor["attempt"], actor["failures"]) for actor in actors] == [(1, []), (1, [])]
    second.stop()
