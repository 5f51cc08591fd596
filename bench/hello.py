"""The time from one POST to every worker's hello, with the local engine, real TLS and a real bundle.

The baseline is the same number of bare Python processes that import what a worker needs before its
hello, two at a time: the minimum that starting workers would cost without a warm parent.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "demo"))

from stage import Daemon

from mu.functions.bundle import bundle

BASELINE = [sys.executable, "-c", "import json, os, select, socket, ssl, subprocess"]
CORES = 2
SETTLE_S = 1.0
"""By then all sandboxes have ended."""


def cpu_seconds(pid: int) -> float:
    """Return the user and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def sandbox_seconds(home: Path) -> float:
    """Return the processor time of the sandboxes that have ended, in the engine of this home."""
    used = 0
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            command = (process / "cmdline").read_bytes()
            if b"mu.engines.local.warm_parent" in command and str(home).encode() in command:
                fields = (process / "stat").read_text().rpartition(")")[2].split()
                used += int(fields[13]) + int(fields[14])
    return used / 100


def measure(workers: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="mu-bench-") as folder:
        zipped = bundle(Path(folder) / "hello.zip").path
        daemon = Daemon(Path(folder) / "daemon")
        try:
            daemon.create_function("hello", zipped)
            daemon.wait(daemon.ask("/jobs", {"pipeline": "hello"})["id"])  # warms up the engine
            before = cpu_seconds(daemon.process.pid)
            sandboxes = sandbox_seconds(daemon.home)
            ordered = daemon.ask("/jobs", {"pipeline": "hello", "workers": workers})
            job = daemon.wait(ordered["id"], 120)
            used = cpu_seconds(daemon.process.pid) - before
            time.sleep(SETTLE_S)
            sandboxes = sandbox_seconds(daemon.home) - sandboxes
        finally:
            daemon.stop()
    if job["state"] != "done":
        raise SystemExit(f"the job is {job['state']}: {job['error']}")
    return {
        "launched_s": job["launched"] - job["created"],
        "first_hello_s": job["first_hello"] - job["created"],
        "last_hello_s": job["last_hello"] - job["created"],
        "done_s": job["finished"] - job["created"],
        "daemon_cpu_ms_per_worker": 1000 * used / workers,
        "worker_cpu_ms": 1000 * sandboxes / workers,
    }


def measure_baseline(processes: int) -> dict[str, float]:
    begun, before = time.monotonic(), _children_seconds()
    with ThreadPoolExecutor(CORES) as pool:
        list(pool.map(lambda _: subprocess.run(BASELINE, check=True), range(processes)))
    return {
        "peer_s": time.monotonic() - begun,
        "peer_cpu_ms": 1000 * (_children_seconds() - before) / processes,
    }


def _children_seconds() -> float:
    used = getrusage(RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=200)
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    figures = measure(options.workers)
    figures |= measure_baseline(options.workers)
    figures["ratio"] = figures["last_hello_s"] / figures["peer_s"]
    figures["cpu_ratio"] = figures["worker_cpu_ms"] / figures["peer_cpu_ms"]
    if options.json:
        print(json.dumps(figures))
        return
    print(
        "hello: {workers} workers at hello {last_hello_s:.2f} s after the order"
        " (first {first_hello_s:.2f}, all launched {launched_s:.2f}, done {done_s:.2f}),"
        " daemon {daemon_cpu_ms_per_worker:.1f} ms CPU each;"
        " bare Python starts {peer_s:.2f} s, ratio {ratio:.2f}; a worker's sandbox used"
        " {worker_cpu_ms:.1f} ms of CPU in all, a bare start {peer_cpu_ms:.1f}, ratio"
        " {cpu_ratio:.2f}".format(workers=options.workers, **figures)
    )


if __name__ == "__main__":
    main()
