"""Functions of Python on this machine: mu's `map`, and Lithops' localhost executor, Ray and Dask.

All run in the same run, one after the other, each in a process of its own, with as many workers as the
machine has processors. A trivial call adds 1; the others sleep for 50 ms. Cold is from the start of
the client's process, with nothing running, to the last of the first 50 results: of mu, the daemon's start
and the function's deployment are a part of it. The others follow in the same process.

The peers are looked for in the virtual environment --peers; with --install, they are installed there.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "demo"))

from rich.console import Console
from rich.table import Table
from stage import Daemon

PEERS = {"lithops": "lithops", "ray": "ray", "dask": "dask[distributed]"}
WORK = """
import json, sys, time
BEGUN = time.monotonic()

def plus(x):
    return x + 1

def nap(x):
    time.sleep(0.05)
    return x + 1

def measure(gather):
    for name, fn, calls in (
        ("cold", plus, 50), ("warm", plus, 50), ("naps", nap, 200), ("many", plus, 2000)
    ):
        begun = BEGUN if name == "cold" else time.monotonic()
        assert list(gather(fn, range(calls))) == list(range(1, calls + 1))
        print(json.dumps([name, calls, time.monotonic() - begun]), flush=True)
"""
PROGRAMS = {
    "mu": """
from work import measure
if __name__ == "__main__":
    from mu.client import Client
    client = Client()
    measure(lambda fn, items: client.map(fn, items, progress=False, workers=CORES))
""",
    "lithops": """
from work import measure
if __name__ == "__main__":
    import lithops
    executor = lithops.LocalhostExecutor(log_level="ERROR", worker_processes=CORES)
    measure(lambda fn, items: executor.get_result(executor.map(fn, list(items))))
""",
    "ray": """
from work import measure
if __name__ == "__main__":
    import ray
    ray.init(num_cpus=CORES, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    def gather(fn, items):
        remote = ray.remote(fn)
        return ray.get([remote.remote(item) for item in items])
    measure(gather)
    ray.shutdown()
""",
    "dask": """
from work import measure
if __name__ == "__main__":
    from dask.distributed import Client, LocalCluster
    cluster = LocalCluster(n_workers=CORES, threads_per_worker=1, dashboard_address=None)
    with cluster, Client(cluster) as client:
        measure(lambda fn, items: client.gather(client.map(fn, items, pure=False)))
""",
}


@dataclass(frozen=True, slots=True)
class Line:
    """A kind of call, what mu is compared with, and how many times as fast it must be."""

    name: str
    title: str
    peer: str
    must: float


LINES = (
    Line("cold", "50 trivial calls, cold", "lithops", 5.0),
    Line("warm", "50 trivial calls, warm", "lithops", 1.0),
    Line("many", "2,000 trivial calls", "dask", 1.0),
    Line("naps", "200 calls of 50 ms", "dask", 0.9),
)


def rates(
    name: str, python: str, folder: Path, limit_s: float, env: Mapping[str, str]
) -> dict[str, float]:
    """Run a program; return calls per second by the kind of call, as far as it got in time."""
    script = folder / f"run_{name}.py"
    script.write_text(PROGRAMS[name].replace("CORES", str(os.cpu_count() or 1)))
    child = subprocess.Popen(
        [python, str(script)],
        env={**os.environ, **env, "PATH": f"{Path(python).parent}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=(folder / f"{name}.log").open("wb"),
        start_new_session=True,
        text=True,
    )
    try:
        told, _ = child.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, 9)
        told, _ = child.communicate()
        print(f"{name} was stopped after {limit_s:g} s", file=sys.stderr)
    found = dict(_rows(told))
    if not found:
        print(f"{name}: {(folder / f'{name}.log').read_text()[-500:]}", file=sys.stderr)
    return found


def _rows(told: str) -> Iterator[tuple[str, float]]:
    for line in told.splitlines():
        if line.startswith("["):
            name, calls, seconds = json.loads(line)
            yield name, calls / seconds


def rates_of_mu(folder: Path, limit_s: float) -> dict[str, float]:
    """Do the same with a new daemon, whose start counts as cold."""
    begun = time.monotonic()
    daemon = Daemon(folder / "daemon")
    started_s = time.monotonic() - begun
    try:
        env = {"MU_HOME": str(daemon.home)}
        found = rates("mu", sys.executable, folder, limit_s, env)
    finally:
        daemon.stop()
    return found | {"cold": 50 / (started_s + 50 / found["cold"]), "served": found["cold"]}


def installed(python: Path, package: str) -> bool:
    ran = subprocess.run([python, "-c", f"import {package}"], capture_output=True)
    return ran.returncode == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--peers", type=Path, default=Path(".venv-peers"), metavar="FOLDER")
    parser.add_argument("--install", action="store_true", help="install the peers there")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds for each program")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    python = options.peers.absolute() / "bin" / "python"
    if options.install and not python.exists():
        venv.create(options.peers, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PEERS.values()], check=True)
    with tempfile.TemporaryDirectory(prefix="mu-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "work.py").write_text(WORK)
        found = {"mu": rates_of_mu(folder, options.limit)}
        for peer in PEERS:
            if python.exists() and installed(python, peer):
                found[peer] = rates(peer, str(python), folder, options.limit, {})
            else:
                print(f"{peer} is not installed in {options.peers}: --install", file=sys.stderr)
    if options.json:
        print(json.dumps(found))
        return
    Console().print(table_of(found))


def table_of(found: Mapping[str, Mapping[str, float]]) -> Table:
    table = Table("calls per second", *found, "must", "holds")
    for line in LINES:
        mine, peer = found["mu"].get(line.name), found.get(line.peer, {}).get(line.name)
        figures = [f"{row[line.name]:,.1f}" if line.name in row else "-" for row in found.values()]
        must = f"{line.must:g} times {line.peer}"
        holds = "?" if not (mine and peer) else "yes" if mine >= line.must * peer else "NO"
        table.add_row(line.title, *figures, must, holds)
    table.add_row("50 trivial calls, cold, daemon running", f"{found['mu'].get('served', 0):,.1f}")
    return table


if __name__ == "__main__":
    main()
