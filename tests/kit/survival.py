"""A daemon that lives through fault schedules, and the checks that nothing was lost."""

import json
import random
import sqlite3
from pathlib import Path
from typing import Any

from stage import Daemon, free_ports_conf

from kit.faults import Proxy, S3Faults, Schedule, workers_of
from kit.film import chunk, order, put_film, wait_until
from kit.haproxy import behind_haproxy, start_haproxy
from kit.local import processes_of
from kit.parts import recorded_job
from mu.config import read_config
from mu.jobs.orders import read_order
from mu.jobs.recovery import recover
from mu.jobs.spec import JobSpec
from mu.journal.records import Assigned, AttemptEnded, Happened, Ordered, Planned, read_record
from mu.journal.replay import replay
from mu.machine import Machine
from mu.registry import Registry
from mu.states.context import JobFacts
from mu.states.script import ScriptWorker, first_state

FUNCTION_S = 60


NEVER_SAID = (
    "asks for those after them",
    "were acknowledged; only",
    "without a welcome",
    "Traceback",
)
"""By workers: what ends a session whose coordinator has lost something."""


PREFIXES = 5
"""Moments of each job at which a crash is imagined."""


class Stage:
    """A daemon that comes and goes, and one S3 for all its lives."""

    def __init__(
        self, folder: Path, s3: Any, joiner: Path, hold_s: float, fronted: bool = False
    ) -> None:
        self._folder = folder
        self._conf = free_ports_conf(
            worker=f"hold_s = {hold_s}\nheartbeat_s = {hold_s / 2}\nsilence_s = {2 * hold_s}",
            jobs="retry_pause_s = 0.1",
            launch=f"hello_timeout_s = {5 * hold_s}",
            journal="commit_s = 1",  # so that much is not on disk yet when the daemon is killed
        )
        if fronted:
            self._conf = behind_haproxy(self._conf)
        self.home = folder / "home"
        self.s3 = s3
        self.s3_faults = S3Faults(s3, seed=1, slow_s=0.5)
        self.proxy: Proxy
        self.daemon: Daemon | None = None
        self.start()
        self.haproxy = start_haproxy(self.running) if fronted else None
        self.running.create_function("png2y4m", joiner, Timeout=FUNCTION_S)
        self.running.lambda_client().put_function_event_invoke_config(
            FunctionName="png2y4m", MaximumRetryAttempts=0
        )

    @property
    def running(self) -> Daemon:
        assert self.daemon is not None
        return self.daemon

    @property
    def log(self) -> str:
        return (self._folder / "daemon.log").read_text(errors="replace")

    def function_logs(self) -> set[Path]:
        return set((self.home / "local" / "logs").glob("*/*.log"))

    def start(self) -> None:
        self.daemon = Daemon(self._folder, self.s3_faults.env, self._conf)

    def kill(self) -> None:
        self.running.process.kill()
        self.daemon = None

    def stop(self) -> None:
        self.running.stop()
        self.daemon = None

    def clear(self) -> None:
        """Let nothing run, whatever a test that failed has left."""
        if self.daemon is None:
            self.start()
        for job in self.running.ask("/jobs"):
            if not job["finished"]:
                self.running.ask(f"/jobs/{job['id']}", method="DELETE")
        wait_until(lambda: not workers_of(self), FUNCTION_S + 5)

    def close(self) -> None:
        """Stop it for good; what it began is gone, too."""
        self.clear()
        self.stop()
        if self.haproxy is not None:
            self.haproxy.stop()
        self.s3_faults.close()
        try:
            wait_until(lambda: not processes_of(self.home))
        except AssertionError as error:
            raise AssertionError(f"these stay: {processes_of(self.home)}") from error
        assert not list((self.home / "local" / "sandboxes").iterdir())

    def __str__(self) -> str:
        return f"{self.proxy}\n{self.s3_faults}\nthe daemon's log:\n{self.log[-6000:]}"


def survive(stage: Stage, seed: int, workers: int, life_s: float) -> Schedule:
    """Run a job through the schedule of that seed, and look whether anything was lost."""
    stage.clear()
    schedule = Schedule(seed, life_s)
    name = f"day-{seed}-{workers}"
    chance = random.Random(f"frames {seed}")
    films = [
        [
            f"{'nap ' * (n == 0 and chance.random() < 0.3)}{actor} {n}\n"
            for n in range(schedule.frames)
        ]
        for actor in range(workers)
    ]
    put_film(stage.s3, name, [frame for film in films for frame in film])
    before, functions_before = len(stage.log), stage.function_logs()
    stage.s3_faults.worsen(*schedule.s3)
    with Proxy(stage.running.ports["worker"], seed, schedule.network) as stage.proxy:
        more = {"event": {"port": stage.proxy.port}, "spares": schedule.spares, "retries": 20}
        ordered = stage.running.ask("/jobs", order(name, workers, schedule.frames, **more))
        job = schedule.run(stage, ordered["id"], seconds=300)
        story = f"{schedule}\n{stage}"
        stage.proxy.calm()
        assert (job["state"], job["error"]) == ("done", None), story
        joined = [chunk(stage.s3, name, n, schedule.frames) for n in range(workers)]
        assert joined == list(map("".join, films)), story
        try:
            wait_until(lambda: not workers_of(stage))
        except AssertionError as error:
            raise AssertionError(
                f"workers stay after the job: {error}\n{schedule}\n{stage}"
            ) from None
    if schedule.afterwards:
        stage.kill()
        stage.start()
        assert stage.running.ask(f"/jobs/{job['id']}") == job, story
    assert job["created"] == ordered["created"]
    assert "Traceback" not in stage.log[before:], story
    for path in stage.function_logs() - functions_before:
        said = path.read_text(errors="replace")
        assert not any(words in said for words in NEVER_SAID), f"{said}\n{story}"
    try:
        check_journal(stage.home, job["id"], seed)
    except Exception as error:
        error.add_note(story)
        raise
    return schedule


def check_journal(home: Path, job_id: str, seed: int) -> None:
    """Every attempt replays, and at no moment of the job a crash would have lost any."""
    groups = groups_of(home, job_id)
    ordered, *records = [record for group in groups for record in group]
    assert isinstance(ordered, Ordered)
    spec = spec_of(home, ordered)
    replay_all(job_id, ordered, spec, records)
    cuts = range(1, len(groups) + 1)
    for cut in random.Random(f"cuts {seed}").sample(cuts, min(PREFIXES, len(cuts))):
        _, *some = [record for group in groups[:cut] for record in group]
        recover_some(job_id, ordered, spec, some)


def groups_of(home: Path, job_id: str) -> list[list[Any]]:
    """Return the job's records as they went to the disk together."""
    database = sqlite3.connect(home / "journal.db")
    rows = database.execute("select lines from records where job = ? order by number", (job_id,))
    groups = [[read_record(line) for line in row[0].decode().split("\n")] for row in rows]
    database.close()
    return groups


def spec_of(home: Path, ordered: Ordered) -> JobSpec:
    body = json.dumps(ordered.order).encode()
    config = read_config(home.parent / "mu.conf")
    return read_order(body, config, Registry.installed().pipelines, {"local"}, ordered.key)


def replay_all(job_id: str, ordered: Ordered, spec: JobSpec, records: list[Any]) -> None:
    (planned,) = [record for record in records if isinstance(record, Planned)]
    facts = JobFacts(job_id, spec.params, len(planned.inputs), "", ordered.uniq)
    courses: dict[tuple[int, int], list[Happened]] = {}
    for record in records:
        match record:
            case Assigned():
                assert (record.actor, record.attempt) not in courses
                courses[record.actor, record.attempt] = []
            case Happened():
                courses[record.actor, record.attempt].append(record)
    ends = {
        (record.actor, record.attempt): record
        for record in records
        if isinstance(record, AttemptEnded)
    }
    assert set(ends) == set(courses)
    assert {actor for (actor, _), end in ends.items() if end.error is None} == set(
        range(len(planned.inputs))
    )
    for (actor, attempt), course in courses.items():
        worker = ScriptWorker(facts, actor, planned.inputs[actor])
        machine = Machine(worker, first_state(spec.pipeline.begin))
        replay(machine, course)
        end = ends[actor, attempt]
        if end.error is None:
            assert machine.finished
            assert machine.finished.result == end.result
        else:
            assert "after the restart" not in end.error
            assert "do not match the" not in end.error


def recover_some(job_id: str, ordered: Ordered, spec: JobSpec, records: list[Any]) -> None:
    """Take up the job where these records end, as a daemon would."""
    job = recorded_job(spec, job_id, created=ordered.at)
    job.clock.advance(ordered.at + 60)  # type: ignore[attr-defined]
    recover(job, records, ordered.at + 60)
    told = [failure for worker in job.workers() for failure in worker["failures"]]
    assert not [failure for failure in told if "after the restart" in failure["error"]]
