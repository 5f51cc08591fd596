"""The coordinator under load: mu's daemon beside a bare Twisted TLS server, in the same run.

Simulated workers (swarm.py, a process on the second core) answer an echo list; the server is pinned
to the first. The bare server has the same TLS, the same framing and the same dialogue, and nothing
else. Saturated: every worker answers at once. Waiting: 1,000 commands a second in all, however
many workers. Brief: each worker has one command, so that this is the cost of a hello and a goodbye,
with the records of an actor's beginning and end. Machines are noisy: each figure is the median of several runs taken in turn.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "demo"))

from stage import Daemon, free_ports_conf
from swarm import WINDOW_S

from mu.net.certificates import Authority, Identity

COMMANDS_A_SECOND = 1000


class Server:
    """A process on the first core, with all its threads, and what it has used."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        for task in self._tasks():
            os.sched_setaffinity(int(task.name), {0})

    def _tasks(self) -> list[Path]:
        return list(Path(f"/proc/{self.pid}/task").iterdir())

    @property
    def cpu_s(self) -> float:
        used = [int((task / "schedstat").read_text().split()[0]) for task in self._tasks()]
        return sum(used) / 1e9

    @property
    def kib(self) -> float:
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * 4.0


def drive(
    server: Server, folder: Path, port: int, workers: int, pause_s: float, *options: str
) -> dict[str, float]:
    """Let a swarm work on the server; return the figures."""
    command = [sys.executable, str(HERE / "swarm.py"), str(folder), str(port), str(workers)]
    swarm = subprocess.Popen(
        [*command, str(pause_s), *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert swarm.stdin
    assert swarm.stdout
    os.sched_setaffinity(swarm.pid, {1})
    before = server.kib
    connected = json.loads(swarm.stdout.readline())["connected_s"]
    time.sleep(0.3)
    kib = (server.kib - before) / workers
    used = server.cpu_s
    swarm.stdin.write("go\n")
    swarm.stdin.flush()
    commands = 0
    if pause_s:  # neither hellos nor goodbyes count
        commands = json.loads(swarm.stdout.readline())["commands"]
        used = server.cpu_s
    done = json.loads(swarm.stdout.readline())
    used = server.cpu_s - used
    swarm.wait(10)
    seconds = done.get("seconds", WINDOW_S)
    return {
        "commands_s": (done["commands"] - commands) / seconds,
        "us": 1e6 * used / (done["commands"] - commands),
        "kib": kib,
        "accepts_s": workers / connected,
        "swarm_busy": done.get("cpu_s", 0.0) / seconds,
    }


def rounds_for(workers: int, pause_s: float, commands: int) -> int:
    return round(3 * WINDOW_S / pause_s) if pause_s else max(1, commands // workers)


def measure_mu(
    workers: int, pause_s: float, commands: int, *options: str, journal: str = "yes"
) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="mu-bench-") as name:
        folder = Path(name)
        conf = free_ports_conf(
            worker="hello_s = 600",
            local="enabled = no",
            jobs="max_workers = 100000",
            journal=f"enabled = {journal}",
        )
        daemon = Daemon(folder, conf=conf)
        try:
            order = {
                "pipeline": "hello",
                "workers": workers,
                "engine": "external",
                "params": {"text": "hello", "rounds": rounds_for(workers, pause_s, commands)},
            }
            event = daemon.ask("/jobs", order)["event"]
            write_identity(folder, event["cacert"], Identity(event["srvcrt"], event["srvkey"]))
            server = Server(daemon.process.pid)
            return drive(server, folder, daemon.ports["worker"], workers, pause_s, *options)
        finally:
            daemon.stop()


def measure_forgetful(workers: int, pause_s: float, commands: int) -> dict[str, float]:
    """Measure mu without its journal."""
    return measure_mu(workers, pause_s, commands, journal="no")


def measure_told(workers: int, pause_s: float, commands: int) -> dict[str, float]:
    """Measure mu with workers that tell what each command used."""
    return measure_mu(workers, pause_s, commands, "--used")


def measure_bare(workers: int, pause_s: float, commands: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="mu-bench-") as name:
        folder = Path(name)
        authority = Authority.at_home(folder)
        write_identity(folder, authority.pem, authority.mint_job("bench", 3600))
        rounds = rounds_for(workers, pause_s, commands)
        bare = subprocess.Popen(
            [sys.executable, str(HERE / "bare.py"), name, str(rounds)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert bare.stdout
        try:
            port = int(bare.stdout.readline())
            return drive(Server(bare.pid), folder, port, workers, pause_s)
        finally:
            bare.kill()
            bare.wait()


def write_identity(folder: Path, cacert: str, identity: Identity) -> None:
    (folder / "ca.pem").write_text(cacert)
    (folder / "job.pem").write_text(identity.certificate)
    (folder / "job.key").write_text(identity.key)


def medians(runs: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


KINDS: dict[str, Callable[..., dict[str, float]]] = {
    "mu": measure_mu,
    "bare": measure_bare,
    "forgetful": measure_forgetful,
    "told": measure_told,
}


def compare(
    kinds: list[str], workers: int, pause_s: float, commands: int, repeat: int
) -> dict[str, dict[str, float]]:
    """Return the medians of each kind, measured in turn."""
    runs = [
        {kind: KINDS[kind](workers, pause_s, commands) for kind in kinds} for _ in range(repeat)
    ]
    return {kind: medians([run[kind] for run in runs]) for kind in kinds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--commands", type=int, default=150_000, help="of a saturated run")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--journal", action="store_true", help="only what the journal costs")
    parser.add_argument("--used", action="store_true", help="only what telling the use costs")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    few, many = options.workers // 10, options.workers
    told: dict[str, Any] = {}
    for name, workers, pause_s, commands in (
        ("saturated", many, 0.0, options.commands),
        ("brief", many, 0.0, many),
        (f"waiting, {few}", few, few / COMMANDS_A_SECOND, 0),
        (f"waiting, {many}", many, many / COMMANDS_A_SECOND, 0),
    ):
        if (options.journal or options.used) and name != "saturated":
            continue
        kinds = ["mu", "forgetful"] if options.journal else ["mu", "bare", "forgetful"]
        kinds = kinds if name == "saturated" else ["mu", "bare"]
        kinds = ["mu", "told"] if options.used else kinds
        told[name] = compare(kinds, workers, pause_s, commands, options.repeat)
    if options.json:
        print(json.dumps(told))
        return
    if options.used:
        print_used(told["saturated"], many)
        return
    if not options.journal:
        print_table(told, few, many)
    print_journal(told["saturated"], many)


def print_journal(told: dict[str, dict[str, float]], workers: int) -> None:
    kept, forgetful = told["mu"], told["forgetful"]
    print(
        f"the journal's cost, {workers} workers saturated: {kept['commands_s']:,.0f} commands/s"
        f" ({kept['us']:.1f} us CPU each), without it {forgetful['commands_s']:,.0f}"
        f" ({forgetful['us']:.1f}): ratios {kept['commands_s'] / forgetful['commands_s']:.2f}"
        f" and {kept['us'] / forgetful['us']:.2f}"
    )


def print_used(told: dict[str, dict[str, float]], workers: int) -> None:
    silent, telling = told["mu"], told["told"]
    print(
        f"{workers} workers saturated: {silent['us']:.1f} us CPU per command, {telling['us']:.1f} if its"
        f" worker tells what it used: ratio {telling['us'] / silent['us']:.2f}"
    )


def print_table(told: dict[str, Any], few: int, many: int) -> None:
    full = told["saturated"]
    rows = [
        (f"saturated, {many} workers: commands/s", full, "commands_s", "{:,.0f}"),
        (f"saturated, {many} workers: CPU us per command", full, "us", "{:.1f}"),
        (f"brief, {many} workers: CPU us per worker", told["brief"], "us", "{:.1f}"),
        (f"waiting, {few} workers: CPU us per command", told[f"waiting, {few}"], "us", "{:.1f}"),
        (f"waiting, {many} workers: CPU us per command", told[f"waiting, {many}"], "us", "{:.1f}"),
        ("KiB per connection", full, "kib", "{:.1f}"),
        ("accepts/s", full, "accepts_s", "{:,.0f}"),
    ]
    print(f"{'coordinator':44} {'mu':>10} {'bare':>10} {'mu/bare':>8}")
    for label, pair, name, form in rows:
        mu, bare = pair["mu"][name], pair["bare"][name]
        print(f"{label:44} {form.format(mu):>10} {form.format(bare):>10} {mu / bare:8.2f}")
    growth = told[f"waiting, {many}"]["mu"]["us"] / told[f"waiting, {few}"]["mu"]["us"]
    print(f"waiting: cost per command at {many} workers / at {few}: {growth:.2f}")
    print(
        f"the swarm's core was busy {full['mu']['swarm_busy']:.0%} (mu), {full['bare']['swarm_busy']:.0%} (bare)"
    )


if __name__ == "__main__":
    main()
