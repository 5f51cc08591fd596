"""One link of a chain: from the end of the neighbour's program until our program has the state.

Each actor of a chain on this machine waits for its neighbour's state, reads it and writes its own,
which has the size of a VP8 decoder's state at 352x288 and at 1280x720. The same bytes then go from
one process to another over a bare TCP connection, with zlib, in the same run. The second figure is
what the first actor of xcenc needs from its first reply to its end, besides its transfers: its programs take no time.
"""

import argparse
import json
import random
import socket
import statistics
import sys
import tempfile
import zlib
from contextlib import ExitStack
from multiprocessing import get_context
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from time import time
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "demo"))

import itertools

from stage import Daemon, S3Server

from mu.events import Answered
from mu.functions.bundle import bundle
from mu.journal.archive import Archive
from mu.journal.records import CommandUsed, Happened, read_record
from mu.messages import HELLO

SIZES = {"352x288": (352, 288), "1280x720": (1280, 720)}
PLUGIN = """
from twisted.plugin import IPlugin
from zope.interface import implementer

from mu.parameters import Parameter
from mu.plugins import Pipeline
from mu.states import connect_command


@implementer(IPlugin)
class Links(Pipeline):
    name, description = "links", "For a benchmark."
    uses_relay = relay_keep = True
    may_run_twice = False
    parameters = (Parameter("state", str, "the file with a state"),)

    async def begin(self, worker):
        me = worker.actor
        await worker.ask(connect_command(worker.job, me, me + 1))
        await worker.seti("run_iter", me)
        await worker.seti("expect_statefile", 1)
        await worker.seti("send_statefile", 2)
        before = f"cmp ##TMPDIR##/{me - 1}.state {worker.job.params.state};" if me else ""
        own = f"##INSTATEWAIT## {{ read go; date +%s%N; {before} sleep 0.3;"
        own += f" cp {worker.job.params.state} ##TMPDIR##/final.state; date +%s%N; }}"
        return [int(at) for at in (await worker.run(own)).output.split()]

    def finish(self, job, outcomes):
        return [outcome.result for outcome in outcomes]


links = Links()
"""
QUICK = """#!/bin/sh
# Stands in for an encoder that takes no time: writes what follows -o and -O, and vpxenc's output.
for last; do
    case $before in -o|-O) echo x >$last;; esac
    before=$last
done
case $0 in *xc-dump) echo x >$2;; *xc-enc) cat >/dev/null;; esac
"""


def state_of(width: int, height: int) -> bytes:
    """Return three frames of noise on a gradient: about as large and compressible as a real state."""
    chance = random.Random(1)
    noise = bytes(chance.choices((0, 1, 2, 3), (97, 1, 1, 1), k=2**20))
    plane = bytes(
        (noise[at % 2**20] + at // width // 8) % 256 for at in range(width * height * 3 // 2)
    )
    return plane * 3


# ---------------------------------------------------------------- the bare peer


def receive(port: Pipe, folder: str) -> None:
    """Take states over a bare connection, and say when each is a file."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port.send(server.getsockname()[1])
        taken, _ = server.accept()
        with taken, taken.makefile("rb") as stream:
            while head := stream.read(12):
                state = zlib.decompress(stream.read(int(head)))
                partial = Path(folder, "bare.part")
                partial.write_bytes(state)
                partial.rename(Path(folder, "bare.state"))
                port.send(time())


def bare_s(folder: Path, state: Path, runs: int) -> list[float]:
    """Return how long each transfer of a state takes, from file to file."""
    context = get_context("fork")
    here, there = context.Pipe()
    child = context.Process(target=receive, args=(there, str(folder)))
    child.start()
    spent: list[float] = []
    with socket.create_connection(("127.0.0.1", here.recv())) as sock:
        for _ in range(runs):
            begun = time()
            packed = zlib.compress(state.read_bytes(), 1)
            sock.sendall(b"%012d" % len(packed) + packed)
            spent.append(here.recv() - begun)
    child.join()
    return spent


# ---------------------------------------------------------------- jobs


def links_s(daemon: Daemon, state: Path, actors: int) -> list[float]:
    """Return how long each link of a chain takes."""
    order = {
        "pipeline": "links",
        "workers": actors,
        "function": "xc",
        "params": {"state": state.name},
    }
    job = finished(daemon, order)
    times: Any = job["result"]
    return [(own[0] - before[1]) / 1e9 for before, own in itertools.pairwise(times)]


def own_s(daemon: Daemon) -> float:
    """Return what the first actor of xcenc needs besides its transfers; its programs take no time."""
    params = {"bucket": "bench", "video": "v", "keyframe_distance": 3}
    job = finished(daemon, {"pipeline": "xcenc", "workers": 3, "function": "xc", "params": params})
    replies: list[tuple[float, str]] = []
    transfers: list[tuple[float, float]] = []
    archive = Archive(daemon.home / "journal.db", read_only=True)
    for line in archive.lines(str(job["id"])):
        match read_record(line):
            case Happened(actor=0, event=Answered(at=at, text=text)) if text != HELLO:
                replies.append((at, text))
            case CommandUsed(actor=0, at=at, told={"transfer_s": seconds}):
                transfers.append((at - seconds, at))
    archive.close()
    begun, ended = replies[0][0], replies[-1][0]
    return ended - begun - sum(end - max(begin, begun) for begin, end in transfers)


def finished(daemon: Daemon, order: dict[str, object]) -> dict[str, object]:
    job = daemon.wait(daemon.ask("/jobs", order)["id"])
    if job["state"] != "done":
        raise SystemExit(f"the job is {job['state']}: {job['error']}")
    return dict(job)


def start(folder: Path, stack: ExitStack) -> Daemon:
    """Start a daemon with the pipeline, and the function with its programs and states."""
    s3 = S3Server(folder / "s3", folder / "s3.log")
    stack.callback(s3.stop)
    client = s3.client()
    client.create_bucket(Bucket="bench")
    for number in range(3):
        client.put_object(Bucket="bench", Key=f"v/{number:08d}.y4m", Body=b"x" * 10_000)
    plugins = folder / "plugins" / "twisted" / "plugins"
    plugins.mkdir(parents=True)
    (plugins / "links.py").write_text(PLUGIN)
    daemon = Daemon(folder / "daemon", {**s3.env, "PYTHONPATH": str(folder / "plugins")})
    stack.callback(daemon.stop)
    quick = folder / "quick"
    quick.write_text(QUICK)
    quick.chmod(0o755)
    programs = dict.fromkeys(("vpxenc", "xc-enc", "xc-dump"), quick)
    states = {}
    for name, size in SIZES.items():
        (folder / name).write_bytes(state_of(*size))
        states[name] = folder / name
    made = bundle(folder / "xc.zip", executables={**programs, **states})
    daemon.create_function("xc", made.path)
    return daemon


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--actors", type=int, default=6, help="of each chain")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    links: dict[str, list[float]] = {name: [] for name in SIZES}
    bare: dict[str, list[float]] = {name: [] for name in SIZES}
    own: list[float] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mu-bench-")))
        daemon = start(folder, stack)
        own_s(daemon)  # the first of a function is slower
        for _ in range(options.runs):
            own.append(own_s(daemon))
            for name in SIZES:
                links[name] += links_s(daemon, folder / name, options.actors)
                bare[name] += bare_s(folder, folder / name, options.actors)
    figures = {"own_ms": 1000 * statistics.median(own)}
    for name in SIZES:
        link, peer = statistics.median(links[name]), statistics.median(bare[name])
        figures |= {f"{name}_ms": 1000 * link, f"{name}_bare_ms": 1000 * peer}
        figures[f"{name}_ratio"] = link / peer
    if options.json:
        print(json.dumps(figures))
        return
    told = "; ".join(
        f"{name} {figures[f'{name}_ms']:.1f} ms, bare TCP and zlib {figures[f'{name}_bare_ms']:.1f} ms,"
        f" ratio {figures[f'{name}_ratio']:.1f}"
        for name in SIZES
    )
    print(
        f"link: {told}; an actor of xcenc besides programs and transfers {figures['own_ms']:.1f} ms"
    )


if __name__ == "__main__":
    main()
