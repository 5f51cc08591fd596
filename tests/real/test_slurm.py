"""The engine slurm of plugins/mu-slurm, on a real cluster of two nodes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
from contextlib import suppress
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from kit.film import chunk, order, put_film
from kit.slurm import Cluster, NoSlurm
from kit.texts import one_pass, prose
from stage import Daemon, free_ports_conf

from mu.functions.bundle import bundle

SLOW_SBATCH = """#!/bin/sh
# sbatch, whose answer takes long while there is a file `hang`.
told="$({sbatch} "$@")" || exit
while [ -e {folder}/hang ]; do echo "$told" >> {folder}/submitted; sleep 1; done
echo "$told"
"""


class Site:
    """The cluster, its shared folder, and the daemons that use it."""

    def __init__(self, folder: Path, s3, joiner: Path, accounting: bool = False) -> None:
        self.folder, self.s3 = folder, s3
        self.shared = folder / "shared"
        functions = self.shared / "functions"
        functions.mkdir(parents=True)
        (functions / "png2y4m.zip").write_bytes(joiner.read_bytes())
        bundle(functions / "worker.zip")
        (folder / "cluster").mkdir()
        self.cluster = Cluster(folder / "cluster", accounting=accounting)
        self.running: list[Daemon] = []

    def start(self, name: str, options: str = "", **more: str) -> Daemon:
        conf = free_ports_conf(local="enabled = no", launch="engine = slurm", **more)
        conf += f"[slurm]\nfolder = {self.shared}\npython = {sys.executable}\npoll_s = 1\n"
        conf += f"node_hour_usd = 36\nworkers_per_node = 10\n{options}"
        path = f"{self.folder}/bin:{self.cluster.env['PATH']}"
        env = {**self.s3.env, **self.cluster.env, "PATH": path}
        self.running.append(Daemon(self.folder / name, env, conf))
        return self.running[-1]

    def order(self, *given, **more) -> dict:
        return order(*given, **{"event": {"env": self.s3.env}, **more})

    def batches(self) -> list[Path]:
        return sorted(self.shared.glob("daemon-*/batches/mu-*"))

    def tasks(self) -> list[list[str]]:
        """Return array, index, state and name of all tasks that Slurm remembers."""
        form = "%F %K %T %j"
        told = self.cluster.run("squeue", "--array", "--states=all", "--noheader", f"-o{form}")
        return [line.split() for line in told.splitlines()]

    def tasks_of(self, job: dict) -> list[list[str]]:
        """Return the tasks of the batches of a job that have not ended."""
        names = set()
        for path in self.batches():
            with suppress(OSError):  # it is being written, or removed
                if json.loads((path / "batch").read_text())["job"] == job["id"]:
                    names.add(path.name)
        return [task for task in self.tasks() if task[3] in names]

    def stop(self) -> None:
        try:
            for daemon in self.running:
                if daemon.process.runs:
                    daemon.stop()
        finally:
            self.cluster.stop()


@pytest.fixture(scope="module")
def site(tmp_path_factory, s3, joiner):
    yield from made(tmp_path_factory.mktemp("slurm"), s3, joiner)


def made(*how):
    """Yield a site, unless there can be none here."""
    if "slurm" not in entry_points(group="mu.engines").names:
        pytest.skip("mu-slurm is not installed: pip install -e plugins/mu-slurm")
    try:
        site = Site(*how)
    except NoSlurm as error:
        pytest.skip(str(error))
    yield site
    site.stop()


@pytest.fixture(scope="module")
def mu(site):
    """A daemon for the tests that leave it as it is."""
    return site.start("daemon", worker="hold_s = 60")


def await_(ready, what: str, seconds: float = 30.0):
    until = time.monotonic() + seconds
    while not (found := ready()):
        assert time.monotonic() < until, f"{what} within {seconds:g} s"
        time.sleep(0.1)
    return found


# ---------------------------------------------------------------- jobs


def test_a_job_becomes_an_array_whose_files_only_we_can_read(mu, site, s3):
    put_film(s3, "watched", ["one", "nap", "three", "four"])
    job = mu.ask("/jobs", site.order("watched", 2))
    tasks = await_(lambda: site.tasks_of(job), "no array")
    assert {task[0] for task in tasks} == {tasks[0][0]}
    assert sorted(task[1] for task in tasks) == ["0", "1"]
    (folder,) = [path for path in site.batches() if path.name == tasks[0][3]]
    assert oct(folder.stat().st_mode & 0o777) == "0o700"
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in folder.iterdir()} == {
        "batch": "0o600",
        "event": "0o600",
        "launches": "0o600",
    }
    assert "srvkey" not in (folder / "launches").read_text()
    done = mu.wait(job["id"])
    assert (done["state"], done["launches"]) == ("done", {"accepted": 2}), done["error"]
    assert chunk(s3, "watched", 0) == "onenap"
    assert chunk(s3, "watched", 1) == "threefour"
    assert 0 < done["cost_usd"] < 0.1
    await_(lambda: folder not in site.batches(), "its files are not removed")


def test_map_runs_on_the_cluster(mu, site, s3):
    for name in ("a", "b", "c"):
        s3.client().put_object(Bucket="films", Key=f"words/{name}", Body=b"z\ny\n")
    params = {"bucket": "films", "prefix": "words/", "out_prefix": "sorted/"}
    params |= {"command": "test ! -e /tmp/pytest-of-root; rm -rf /tmp/mu_none/*; sort {in} > {out}"}
    job = {"pipeline": "map", "workers": 2, "function": "worker", "params": params}
    done = mu.wait(mu.ask("/jobs", {**job, "event": {"env": s3.env}})["id"])
    assert done["state"] == "done", done["error"]
    assert s3.client().get_object(Bucket="films", Key="sorted/c")["Body"].read() == b"y\nz\n"


def test_chain_passes_states_through_the_relay(mu, s3):
    text = prose(200_000)
    s3.client().put_object(Bucket="films", Key="big.txt", Body=text)
    params = {"bucket": "films", "key": "big.txt", "out_prefix": "index/", "every": 10}
    job = {"pipeline": "chain", "workers": 3, "function": "worker", "params": params}
    done = mu.wait(mu.ask("/jobs", {**job, "event": {"env": s3.env}})["id"])
    assert done["state"] == "done", done["error"]
    assert done["result"]["total"] == one_pass(text, 10)[1]


# ---------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("options", "field", "says"),
    [
        ({"x": 1}, "x", "engine_options.x is unknown; engine slurm has partition, account, time_s"),
        ({"cpus": 0}, "cpus", "engine_options.cpus must be at least 1, got 0"),
        ({"cpus": "two"}, "cpus", "engine_options.cpus must be a whole number, got 'two'"),
        ({"sbatch": "--array=1"}, "sbatch", "must not have --array, which mu sets"),
        ({"sbatch": "script"}, "sbatch", "must be options such as --qos=long, got 'script'"),
        ({"folder": "/"}, "folder", "engine_options.folder is unknown"),
    ],
)
def test_options_that_cannot_be_right_are_refused_with_the_order(mu, options, field, says):
    with pytest.raises(urllib.error.HTTPError) as refused:
        mu.ask("/jobs", {"pipeline": "hello", "engine_options": options})
    error = json.loads(refused.value.msg)["error"]
    assert error["field"] == f"engine_options.{field}"
    assert says in error["message"]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"engine_options": {"partition": "nope"}}, "invalid partition specified: nope"),
        ({"engine_options": {"memory_mb": 10**6}}, "Memory specification can not be satisfied"),
        ({"engine_options": {"sbatch": "--no-such=1"}}, "unrecognized option '--no-such=1'"),
        ({"function": "missing"}, "there is no bundle of function 'missing'"),
    ],
)
def test_what_slurm_refuses_fails_the_job_with_its_words(mu, more, says):
    job = mu.ask("/jobs", {"pipeline": "hello", "function": "worker", **more})
    done = mu.wait(job["id"])
    assert done["state"] == "failed"
    assert done["error"].startswith("engine slurm refused to launch: ")
    assert says in done["error"]


# ---------------------------------------------------------------- queues and ends


def test_a_queue_is_shown_and_a_cancelled_job_leaves_it(mu, site, s3):
    put_film(s3, "queued", ["slow"] * 6)
    job = site.order("queued", 6, 1, engine_options={"cpus": 8})
    job = mu.ask("/jobs", job)

    def waits() -> list[str]:
        return [
            row["waits_for"] for row in mu.ask(f"/jobs/{job['id']}/workers") if row["waits_for"]
        ]

    await_(lambda: "a place: 4 pending (Resources)" in waits(), "the queue is not shown")
    assert len(site.tasks_of(job)) == 6
    mu.ask(f"/jobs/{job['id']}", method="DELETE")
    await_(lambda: not site.tasks_of(job), "its tasks are not cancelled")
    pending = [task for task in site.tasks() if task[2] == "PENDING"]
    assert pending == []


def begun(mu, job: dict) -> bool:
    """Whether the job's only worker runs its program."""
    rows = mu.ask(f"/jobs/{job['id']}/workers")
    return any(str(row["label"]).startswith("Convert (") for row in rows)


def failures_of(mu, job: dict) -> str:
    """Return why attempts at the job's only actor failed."""
    (row,) = mu.ask(f"/jobs/{job['id']}/workers")
    return "; ".join(failure["error"] for failure in row["failures"])


def test_a_task_that_slurm_requeues_is_cancelled_and_its_worker_replaced(mu, site, s3):
    put_film(s3, "requeued", ["slow", "two"])
    job = mu.ask("/jobs", site.order("requeued", 1, retries=1))
    await_(lambda: begun(mu, job), "no worker")
    put_film(s3, "requeued", ["one", "two"])
    ((array, index, _, _),) = site.tasks_of(job)
    task = f"{array}_{index}"
    site.cluster.run("scontrol", "update", f"jobid={task}", "requeue=1")
    site.cluster.run("scontrol", "requeue", task)
    done = mu.wait(job["id"])
    assert done["state"] == "done", done["error"]
    # And not: its program was ended, which Slurm does first.
    assert failures_of(mu, job).endswith(f"its worker ended: Slurm requeued task {task}")
    assert [one[2] for one in site.tasks() if one[:2] == [array, index]] == ["CANCELLED"]
    assert chunk(s3, "requeued", 0) == "onetwo"


def test_a_worker_that_is_preempted_is_replaced(mu, site, s3):
    put_film(s3, "preempted", ["slow"])
    options = {"sbatch": "--nodelist=n1"}
    job = mu.ask("/jobs", site.order("preempted", 1, 1, retries=1, engine_options=options))
    await_(lambda: begun(mu, job), "no worker")
    put_film(s3, "preempted", ["one"])
    urgent = ["--partition=urgent", "--nodelist=n1", "--exclusive", "--output=/dev/null"]
    site.cluster.run("sbatch", *urgent, "--wrap=sleep 1")
    done = mu.wait(job["id"])
    assert done["state"] == "done", done["error"]
    assert re.search(r"its worker ended: Slurm's task \d+_0 is PREEMPTED", failures_of(mu, job))


def test_the_workers_of_a_node_that_fails_are_replaced(mu, site, s3):
    put_film(s3, "failing", ["slow"])
    options = {"sbatch": "--nodelist=n2"}
    job = mu.ask("/jobs", site.order("failing", 1, 1, retries=1, engine_options=options))
    await_(lambda: begun(mu, job), "no worker")
    put_film(s3, "failing", ["one"])
    site.cluster.kill_node("n2")
    site.cluster.run("scontrol", "update", "nodename=n2", "state=down", "reason=killed")
    try:
        await_(lambda: failures_of(mu, job), "the worker is not given up")
    finally:
        site.cluster.start_node("n2")
        site.cluster.run("scontrol", "update", "nodename=n2", "state=resume")
    done = mu.wait(job["id"])
    assert done["state"] == "done", done["error"]
    said = failures_of(mu, job)
    assert re.search(r": its worker ended: Slurm's task \d+_0 is NODE_FAIL \(NodeDown\)$", said), (
        said
    )


# ---------------------------------------------------------------- the daemon


def test_a_daemon_killed_before_sbatch_has_answered_submits_nothing_twice(site, s3):
    put_film(s3, "twice", ["one", "two"])
    (site.folder / "bin").mkdir()
    wrapper = site.folder / "bin" / "sbatch"
    real = subprocess.run(["which", "sbatch"], capture_output=True, text=True).stdout.strip()
    wrapper.write_text(SLOW_SBATCH.format(sbatch=real, folder=site.folder))
    wrapper.chmod(0o755)
    (site.folder / "hang").touch()
    options = "sbcast = yes\nmemory_mb = 400\n"
    try:
        killed = site.start("killed", options)
        job = killed.ask("/jobs", site.order("twice", 2, 1))
        submitted = site.folder / "submitted"
        await_(submitted.exists, "nothing was submitted")
        killed.process.kill()
        (array,) = set(submitted.read_text().split())
    finally:
        (site.folder / "hang").unlink()
    next_one = site.start("killed", options)
    done = next_one.wait(job["id"])
    assert done["state"] == "done", done["error"]
    assert done["launches"] == {"accepted": 2}
    assert [row["attempt"] for row in next_one.ask(f"/jobs/{job['id']}/workers")] == [1, 1]
    assert max(int(task[0]) for task in site.tasks()) == int(array)
    next_one.stop()


def test_a_slurm_that_does_not_answer_is_no_death(site, mu, s3):
    put_film(s3, "silent", ["nap", "nap", "nap", "nap"])
    controller = site.cluster.pid("slurmctld")
    job = mu.ask("/jobs", site.order("silent", 1, 4))
    await_(lambda: begun(mu, job), "no worker")
    os.kill(controller, signal.SIGSTOP)
    try:
        done = mu.wait(job["id"])
        assert done["state"] == "done", done["error"]
    finally:
        os.kill(controller, signal.SIGCONT)
    (row,) = mu.ask(f"/jobs/{job['id']}/workers")
    assert row["attempt"] == 1


@pytest.fixture
def accounting_site(tmp_path, s3, joiner):
    yield from made(tmp_path, s3, joiner, True)


def test_accounting_tells_how_workers_ended_while_no_daemon_ran(accounting_site, s3):
    site = accounting_site
    put_film(s3, "forgotten", ["slow"])
    daemon = site.start("daemon")
    options = {"time_s": 2}
    job = daemon.ask("/jobs", site.order("forgotten", 1, 1, retries=0, engine_options=options))
    await_(lambda: begun(daemon, job), "no worker")
    ((array, index, _, _),) = site.tasks_of(job)
    daemon.process.kill()
    account = ("sacct", "--allocations", "--noheader", "--format=State")
    await_(lambda: "FAILED" in site.cluster.run(*account), "its end is not in the accounts")
    site.cluster.forget()
    assert site.tasks() == []
    done = site.start("daemon").wait(job["id"])
    assert done["state"] == "failed"
    assert f"Slurm's task {array}_{index} is FAILED (exit status 124)" in done["error"]


# ---------------------------------------------------------------- mu doctor


def examined(daemon: Daemon, site: Site, **asked) -> dict[str, dict]:
    told = daemon.ask("/doctor", {"engine": "slurm", **asked})
    return {finding["check"]: finding for finding in told}


def test_the_doctor_looks_around_on_a_node(mu, site):
    found = examined(mu, site, functions=["worker"])
    assert {finding["level"] for finding in found.values()} == {"ok"}, found
    assert found["way back"]["sentence"].endswith(f"connects to 127.0.0.1:{mu.ports['worker']}")
    assert "an array has up to 101 tasks" in found["Slurm"]["sentence"]
    missing = examined(mu, site, functions=["missing"])["function"]
    assert missing["level"] == "fail"


# ---------------------------------------------------------------- many


@pytest.mark.soak
def test_three_hundred_workers(mu, site):
    job = {"pipeline": "hello", "workers": 300, "function": "worker"}
    done = mu.wait(mu.ask("/jobs", job)["id"], 900)
    assert done["state"] == "done", done["error"]
    assert done["launches"]["accepted"] >= 300
