"""A timeline of 10,000 actors with 20 commands each, from the journal; and what recording it costs.

The first figure is the processor time from the journal's file to the answer's bytes, with the garbage
collector as the daemon sets it. The second one is the processor time of a session and its journal for
each command, with the names of commands and states in the records, and without; of what a command
costs the daemon in the same run (coordinator.py). In the worst case measured here, each reply
constructs a state and sends one command. The same run also has workers that tell what each command used.
"""

import argparse
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

from coordinator import measure_mu, measure_told

from mu.events import Answered, Effect, Entered, Event, Finish, Send, digest
from mu.jobs.timelines import pack
from mu.journal.allowance import JobAllowance
from mu.journal.archive import Archive
from mu.journal.database import open_database
from mu.journal.records import (
    Assigned,
    AttemptEnded,
    Happened,
    Launched,
    Launching,
    Ordered,
    Planned,
    _write,
    write_event,
    write_record,
)
from mu.journal.writer import _store
from mu.machine import Machine
from mu.messages import Hello, Use
from mu.parameters import Params
from mu.service import GC_THRESHOLDS
from mu.session import ReplyKind, Session
from mu.session_effects import Append
from mu.states import JobFacts, OnePassState, ScriptWorker
from mu.states.script import first_state
from mu.timeline.answer import timeline_json
from mu.timeline.course import JobCourse

ACTORS, COMMANDS = 10_000, 20
START = 1795500000.123456
REPLIES = {
    "set": "OK:SET(quality)",
    "retrieve": "OK:RETRIEVE(films/frames/00001234.png)",
    "run": "OK:RETVAL(0):OUTPUT():COMMAND(./convert 00001234.png 00001234.y4m)",
    "upload": "OK:UPLOAD(films/chunks/00001234.y4m)",
}
EVENTS = 20_000
A_GROUP = 500
"""Records in a commit."""


# ---------------------------------------------------------------- reading


def records() -> Iterator[str]:
    """Yield the records of a job in which all actors work at the same time."""
    yield write_record(Ordered(START, "u", {"retries": 2}, "", "d"))
    yield write_record(Planned([{}] * ACTORS, list(range(ACTORS))))
    for actor in range(ACTORS):
        at = START + 1 + actor / 5000
        yield write_record(Launching(START + 0.5, f"{actor:016x}", actor))
        yield write_record(Launched(f"{actor:016x}", "accepted", at, invoked=at - 0.05))
    for actor in range(ACTORS):
        at = START + 2 + actor / 2000
        yield write_record(Assigned(at, actor, 1, f"{actor:032x}", f"{actor:016x}"))
        yield write_event(actor, 1, Entered(at, True), [])
        yield write_event(actor, 1, Answered(at, "OK:HELLO"), [Send("set:")], [(at, "First")])
    names = list(REPLIES) * (COMMANDS // len(REPLIES))
    for number, (name, following) in enumerate(zip(names, [*names[1:], ""], strict=True), 1):
        for actor in range(ACTORS):
            at = START + 2 + actor / 2000 + number * 3.217
            effects: list[Effect] = [Send(f"{following}:")] if following else [Finish()]
            answered = Answered(at, REPLIES[name], number)
            yield write_event(actor, 1, answered, effects, [(at, "Next")] if name == "set" else [])
    for actor in range(ACTORS):
        at = START + 70 + actor / 2000
        yield write_record(AttemptEnded(at, actor, 1, None, None, "Next", "OK", True))


def read(path: Path, commands: bool) -> dict[str, float]:
    """Return the processor time and size of an answer."""
    begun = time.process_time()
    archive = Archive(path, read_only=True)
    course = JobCourse().read(archive.lines("j"))
    answer = pack(timeline_json("j", course, START + 80, True, commands))
    archive.close()
    return {"cpu_s": time.process_time() - begun, "mb": len(answer) / 1e6}


def measure_reading(repeat: int) -> dict[str, dict[str, float]]:
    with tempfile.TemporaryDirectory(prefix="mu-bench-") as folder:
        path = Path(folder) / "journal.db"
        database = open_database(path)
        group: list[str] = []
        for line in records():
            group.append(line)
            if len(group) == A_GROUP:
                _store(database, {"j": group}, [], [])
                group = []
        _store(database, {"j": group}, [], [])
        database.close()
        told = {}
        for name in ("states", "commands"):
            runs = [read(path, name == "commands") for _ in range(repeat)]
            told[name] = {of: statistics.median(run[of] for run in runs) for of in runs[0]}
    return told


# ---------------------------------------------------------------- recording


class Next(OnePassState):
    """Sends a command at each reply, and constructs itself again."""

    expect = "OK:ECHO"
    command = "echo:hello"


Next.nextState = Next


class First(OnePassState):
    """Sends the first command."""

    expect = "OK:HELLO"
    command = "echo:hello"
    nextState = Next


class BenchPart:
    """An attempt without a job."""

    number, actor_number, job_id, pipeline_name, timeout_s = 1, 7, "j", "bench", 600.0

    def __init__(self) -> None:
        worker = ScriptWorker(JobFacts("bench", Params()), 7)
        self.machine = Machine(worker, first_state(lambda worker: First(worker, 7)))

    def answered(self, command: str, reply: str, seconds: float) -> None: ...
    def heard(self, text: str, at: float) -> None: ...
    def touched(self) -> None: ...
    def used(self, use: Use) -> None: ...
    def printed(self, command: int, output: bytes, at: float) -> None: ...
    def replied(self, command: int, text: str, at: float, kind: ReplyKind) -> None: ...
    def reconnected(self, received: int, at: float) -> None: ...
    def ended(self, finish: Finish, at: float, charged: bool) -> None: ...


class BenchDisk:
    """A journal that is always on disk."""

    keeps = True
    written = synced = 0


def without_names(
    actor: int, attempt: int, event: Event, effects: list[Effect], states: object = ()
) -> str:
    """Return the line of an event without its commands and states."""
    return _write(Happened(actor, attempt, digest(effects), event))


def us_per_command(database: Any) -> float:
    """Return the processor time of a session and its journal for one command."""
    session: Session[str] = Session(
        BenchPart(), "aa", BenchDisk(), 10.0, JobAllowance(2**40, 2**40).attempt()
    )
    session.begin(START)
    session.attach("line", Hello("aa", "", 0, 0, 0), START)
    replies = [b"RE:%d:OK:ECHO(hello)" % number for number in range(1, EVENTS + 1)]
    group: list[str] = []
    begun = time.process_time()
    for reply in replies:
        group += [one.line for one in session.receive(reply, START) if isinstance(one, Append)]
        if len(group) >= A_GROUP:
            _store(database, {"j": group}, [], [])
            group = []
    return 1e6 * (time.process_time() - begun) / EVENTS


def measure_recording(repeat: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="mu-bench-") as folder:
        database = open_database(Path(folder) / "journal.db")
        on, off = [], []
        for _ in range(repeat):
            on.append(us_per_command(database))
            with patch("mu.session.write_event", without_names):
                off.append(us_per_command(database))
        database.close()
    told = {"on": min(on), "off": min(off)}  # the difference is smaller than the noise
    runs = [
        (measure_mu(200, 0.0, 40_000)["us"], measure_told(200, 0.0, 40_000)["us"])
        for _ in range(repeat)
    ]
    command, telling = (statistics.median(one) for one in zip(*runs, strict=True))
    names, use = told["on"] - told["off"], telling - command
    told |= {"command": command, "telling": telling, "share": names / command}
    return told | {"whole_share": (names + use) / (command - names)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    recording = measure_recording(options.repeat)
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    reading = measure_reading(options.repeat)
    if options.json:
        print(json.dumps({"reading": reading, "recording": recording}))
        return
    print(
        "recording: {on:.2f} us of processor time for each command in the session and its journal,"
        " {off:.2f} us without names of commands and states; a command costs the daemon"
        " {command:.1f} us, so they are {share:.1%} of it".format(**recording)
    )
    print(
        "one whose worker tells what it used, such as run, costs {telling:.1f} us: with its names, recording"
        " adds {whole_share:.1%} to what a command costs without".format(**recording)
    )
    for name, told in reading.items():
        print(
            f"timeline of {ACTORS:,} actors with {COMMANDS} commands each, detail={name}:"
            f" {told['cpu_s']:.2f} s of processor time, {told['mb']:.2f} MB"
        )


if __name__ == "__main__":
    main()
