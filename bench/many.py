"""10,000 workers that are connected and wait: what they cost the daemon, and how fast it answers.

Simulated workers (swarm.py, on the second core) say hello, get a command, and answer nothing but pings.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "demo"))

from coordinator import HERE, Server, write_identity
from stage import Daemon, free_ports_conf

from mu.net.certificates import Identity

GETS = (
    "/jobs",
    "/jobs/{}",
    "/jobs/{}/workers?limit=100",
    "/jobs/{}/workers?limit=100&after={last}",
)
TRIES = 7


def measure(workers: int, seconds: float) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="mu-bench-") as name:
        folder = Path(name)
        conf = free_ports_conf(
            worker="hello_s = 600", local="enabled = no", jobs="max_workers = 100000"
        )
        daemon = Daemon(folder, conf=conf)
        try:
            order = {"pipeline": "hello", "workers": workers, "engine": "external"}
            job = daemon.ask("/jobs", order)
            event = job["event"]
            write_identity(folder, event["cacert"], Identity(event["srvcrt"], event["srvkey"]))
            server = Server(daemon.process.pid)
            kib, used = server.kib, server.cpu_s
            swarm = subprocess.Popen(
                [
                    *(sys.executable, str(HERE / "swarm.py"), str(folder)),
                    *(str(daemon.ports["worker"]), str(workers), "3600", "--stay"),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            try:
                assert swarm.stdin
                assert swarm.stdout
                connected = json.loads(swarm.stdout.readline())["connected_s"]
                swarm.stdin.write("go\n")
                swarm.stdin.flush()
                while daemon.ask(f"/jobs/{job['id']}")["counts"]["running"] < workers:
                    time.sleep(0.2)
                time.sleep(2)
                told = {
                    "connected_s": connected,
                    "cpu_ms": 1e3 * (server.cpu_s - used) / workers,
                    "kib": (server.kib - kib) / workers,
                }
                used = server.cpu_s
                time.sleep(seconds)
                told["share"] = (server.cpu_s - used) / seconds
                for path in GETS:
                    url = path.format(job["id"], last=workers - 200)
                    told[path] = min(answered_ms(daemon, url) for _ in range(TRIES))
                return told
            finally:
                swarm.kill()
                swarm.wait()
        finally:
            daemon.stop()


def answered_ms(daemon: Daemon, path: str) -> float:
    began = time.perf_counter()
    daemon.ask(path)
    return 1e3 * (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=45, help="of waiting")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    told = measure(options.workers, options.seconds)
    if options.json:
        print(json.dumps(told))
        return
    print(
        f"{options.workers:,} workers waiting: {told['kib']:.1f} KiB each, {told['share']:.1%} of a core"
        f" with heartbeats; to connect them all and say hello took {told['cpu_ms']:.1f} ms of CPU each"
    )
    for path in GETS:
        print(f"GET {path.format('ID', last='N'):42} {told[path]:7.1f} ms")


if __name__ == "__main__":
    main()
