"""Copying files while programs run, compared with one after the other, on an S3 server far away.

The server is rclone, behind a proxy that delays its answers. Each pipeline runs as it is, and as
with workers that do not number their replies, which copy and run one after the other. The times are
those of an actor, from the journal: for map from the worker's hello to the end, for png2y4m from the
first frame that is asked for to the last that has arrived.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "demo"))

from stage import Daemon, S3Server

from mu.events import Answered
from mu.functions.bundle import bundle
from mu.journal.archive import Archive
from mu.journal.records import Assigned, AttemptEnded, Happened, read_record

IN_TURN = """
from twisted.plugin import IPlugin
from zope.interface import implementer

from mu.pipelines.map import Map
from mu.pipelines.png2y4m import Png2Y4M


def in_turn(pipeline):
    def begin(self, worker):
        worker.numbered = False
        return pipeline.begin(self, worker)

    name = pipeline.name + "-in-turn"
    made = type("InTurn", (pipeline,), {"name": name, "begin": begin})
    return implementer(IPlugin)(made)()


map_in_turn = in_turn(Map)
png2y4m_in_turn = in_turn(Png2Y4M)
"""
JOIN = "#!/bin/sh\ncat $(dirname $1)/*.png > $2\n"
BUCKET = "bench"
BODY = b"x" * 10_000


# ---------------------------------------------------------------- a server far away


class DelayingProxy:
    """Forwards connections to a port, and delays what comes back by some seconds."""

    def __init__(self, port: int, delay_s: float) -> None:
        self._target = port
        self._delay_s = delay_s
        self._loop = asyncio.new_event_loop()
        Thread(target=self._loop.run_forever, daemon=True).start()
        listening = asyncio.start_server(self._serve, "127.0.0.1", 0)
        server = asyncio.run_coroutine_threadsafe(listening, self._loop).result()
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def _serve(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        far, out = await asyncio.open_connection("127.0.0.1", self._target)
        answers: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        writing = asyncio.create_task(self._write(answers, back))
        asking = asyncio.create_task(forward(near, out))
        while data := await far.read(65536):
            answers.put_nowait((self._loop.time() + self._delay_s, data))
        answers.put_nowait((self._loop.time() + self._delay_s, b""))
        await asyncio.gather(writing, asking)

    async def _write(
        self, answers: asyncio.Queue[tuple[float, bytes]], back: asyncio.StreamWriter
    ) -> None:
        data = None
        while data != b"":
            due, data = await answers.get()
            await asyncio.sleep(due - self._loop.time())
            back.write(data)
        back.close()


async def forward(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while data := await source.read(65536):
        target.write(data)
        await target.drain()
    target.close()


# ---------------------------------------------------------------- what the journal says


def course(home: Path, job: str) -> list[tuple[float, str]]:
    """Return the replies of the job's worker with their times, from its assignment to its end."""
    archive = Archive(home / "journal.db", read_only=True)
    found: list[tuple[float, str]] = []
    for line in archive.lines(job):
        match read_record(line):
            case Happened(event=Answered(at=at, text=text)):
                found.append((at, text))
            case Assigned(at=at) | AttemptEnded(at=at):
                found.append((at, ""))
    archive.close()
    return found


def whole_s(replies: list[tuple[float, str]]) -> float:
    return replies[-1][0] - replies[0][0]


def retrieval_s(replies: list[tuple[float, str]]) -> float:
    """Return the time from the last setting to the last frame."""
    last = ("OK:SET(outkey", "OK:SETI(nonblock")
    begun = max(at for at, text in replies if text.startswith(last))
    return max(at for at, text in replies if text.startswith("OK:RETRIEVE(")) - begun


# ---------------------------------------------------------------- the jobs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--delay-ms", type=float, default=30, help="of each of S3's answers")
    parser.add_argument("--work-ms", type=float, default=50, help="of the program for an input")
    parser.add_argument("--inputs", type=int, default=20, help="of map's worker")
    parser.add_argument("--frames", type=int, default=24, help="of png2y4m's worker")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mu-bench-") as name:
        figures = measure(Path(name), options)
    if options.json:
        print(json.dumps(figures))
        return
    print(
        f"overlap: S3 answers after {options.delay_ms:g} ms."
        f" map, {options.inputs} inputs of {options.work_ms:g} ms of work for a worker:"
        f" {figures['map_s']:.2f} s, one after the other {figures['map_in_turn_s']:.2f} s,"
        f" ratio {figures['map_ratio']:.2f};"
        f" png2y4m, the retrieval of {options.frames} frames: {figures['png2y4m_s']:.2f} s,"
        f" one after the other {figures['png2y4m_in_turn_s']:.2f} s,"
        f" ratio {figures['png2y4m_ratio']:.2f}"
    )


def measure(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Return the times of an actor in each pipeline, and the ratios: medians of all runs."""
    command = f"sleep {options.work_ms / 1000}; cp {{in}} {{out}}"
    jobs = {
        "map": ({"prefix": "texts/", "out_prefix": "out/", "command": command}, whole_s),
        "png2y4m": ({"video": "film", "frames": options.frames}, retrieval_s),
    }
    times: dict[str, list[float]] = {}
    with ExitStack() as stack:
        daemon = start(folder, options, stack)
        for _ in range(options.runs):
            for pipeline, (params, seconds_of) in jobs.items():
                for way in ("", "-in-turn"):
                    spent = seconds_of(course(daemon.home, run(daemon, pipeline + way, params)))
                    times.setdefault(f"{pipeline}{way.replace('-', '_')}_s", []).append(spent)
    figures = {name: statistics.median(spent) for name, spent in times.items()}
    for pipeline in jobs:
        figures[f"{pipeline}_ratio"] = figures[f"{pipeline}_in_turn_s"] / figures[f"{pipeline}_s"]
    return figures


def start(folder: Path, options: argparse.Namespace, stack: ExitStack) -> Daemon:
    """Start the S3 server with the inputs, and a daemon with the function and all pipelines."""
    s3 = S3Server(folder / "s3", folder / "s3.log")
    stack.callback(s3.stop)
    client = s3.client()
    client.create_bucket(Bucket=BUCKET)
    for number in range(options.inputs):
        client.put_object(Bucket=BUCKET, Key=f"texts/{number:04d}.txt", Body=BODY)
    for number in range(options.frames):
        client.put_object(Bucket=BUCKET, Key=f"film-png16/{1 + number:08d}.png", Body=BODY)
    proxy = DelayingProxy(urlsplit(s3.url).port or 0, options.delay_ms / 1000)
    plugins = folder / "plugins" / "twisted" / "plugins"
    plugins.mkdir(parents=True)
    (plugins / "in_turn.py").write_text(IN_TURN)
    env = {**s3.env, "AWS_ENDPOINT_URL_S3": proxy.url, "PYTHONPATH": str(folder / "plugins")}
    daemon = Daemon(folder / "daemon", env)
    stack.callback(daemon.stop)
    join = folder / "join"
    join.write_text(JOIN)
    join.chmod(0o755)
    made = bundle(folder / "join.zip", executables=[join], command="./join ##INFILE## ##OUTFILE##")
    daemon.create_function("join", made.path)
    return daemon


def run(daemon: Daemon, pipeline: str, params: dict[str, object]) -> str:
    """Run a job with one worker; return its id. Its journal is then on disk."""
    given = {"bucket": BUCKET, **params}
    order = {"pipeline": pipeline, "function": "join", "params": given}
    job = daemon.wait(daemon.ask("/jobs", order)["id"])
    if job["state"] != "done":
        raise SystemExit(f"the job is {job['state']}: {job['error']}")
    return str(job["id"])


if __name__ == "__main__":
    main()
