"""A job of 10,000 actors with one echo each, from its POST to its end, undisturbed and with the daemon killed.

Its workers are simulated (swarm.py, a process on the second core); the daemon is pinned to the first. The
daemon is killed when half of the actors are done, and started again at once.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "demo"))

from coordinator import Server, write_identity
from stage import Daemon, free_ports_conf

from mu.net.certificates import Identity

CONF = free_ports_conf(worker="hello_s = 600", local="enabled = no", jobs="max_workers = 100000")
LOOK_S = 0.1


def measure(actors: int, killed: bool) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="mu-bench-") as name:
        folder = Path(name)
        daemon = Daemon(folder, conf=CONF)
        server = Server(daemon.process.pid)
        begun, used, away = time.monotonic(), 0.0, 0.0
        params = {"text": "hello", "rounds": 1}
        order: dict[str, Any] = {
            "pipeline": "hello",
            "workers": actors,
            "engine": "external",
            "params": params,
        }
        order["retries"] = 0  # so that an actor that loses its worker fails the job
        job = daemon.ask("/jobs", order)
        event = job["event"]
        write_identity(folder, event["cacert"], Identity(event["srvcrt"], event["srvkey"]))
        command = [sys.executable, str(HERE / "swarm.py"), name, str(daemon.ports["worker"])]
        swarm = subprocess.Popen(
            [*command, str(actors), "0", "1", "--whole"], stdout=subprocess.PIPE
        )
        os.sched_setaffinity(swarm.pid, {1})
        try:
            if killed:
                daemon.wait(job["id"], 600, lambda told: told["counts"]["done"] >= actors / 2)
                used = server.cpu_s
                daemon.process.kill()
                since = time.monotonic()
                daemon = Daemon(folder, conf=CONF)
                server, away = Server(daemon.process.pid), time.monotonic() - since
            ended: dict[str, Any] = daemon.wait(job["id"], 600)
            took = time.monotonic() - begun
            used += server.cpu_s
            if ended["counts"]["done"] != actors:
                raise SystemExit(f"not all actors are done: {ended['counts']}, {ended['error']}")
        finally:
            swarm.kill()
            swarm.communicate()
            daemon.process.kill()
    return {"done_s": took, "cpu_s": used, "away_s": away}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--actors", type=int, default=10_000)
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    told = {name: measure(options.actors, name == "killed") for name in ("whole", "killed")}
    if options.json:
        print(json.dumps(told))
        return
    whole, killed = told["whole"], told["killed"]
    print(
        f"{options.actors:,} actors with one echo each: done {whole['done_s']:.1f} s after the order"
        f" ({whole['cpu_s']:.1f} s of the daemon's CPU)"
    )
    print(
        f"with the daemon killed halfway: done {killed['done_s']:.1f} s after the order"
        f" ({killed['cpu_s']:.1f} s of CPU), the daemon was away for {killed['away_s']:.1f} s"
    )


if __name__ == "__main__":
    main()
