"""After a break: 1,000 workers whose connections are lost at once, and a daemon that is killed.

One job of live workers, each at its 100th command. First all drop their connections and resume:
the time until each has been welcomed, has answered, and has its next command; beside it as many
bare TLS connects (bare.py). Then the daemon is killed and started again: the time until it is ready
(it listens, ports.json is there), beside the same start with an empty journal; and the time until
all go on, from that start.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "demo"))

from coordinator import Server, write_identity
from stage import Daemon, free_ports_conf

from mu.net.certificates import Authority, Identity

CONF = free_ports_conf(worker="hello_s = 600", local="enabled = no")
SETTLE_S = 1.0
"""By then all that was written is on disk, and the processes are at rest."""


class Swarm:
    """A swarm of workers that last, on the second core."""

    def __init__(self, folder: Path, port: int, workers: int, answers: int) -> None:
        command = [sys.executable, str(HERE / "swarm.py"), str(folder), str(port), str(workers)]
        self._popen = subprocess.Popen(
            [*command, "0", str(answers)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        os.sched_setaffinity(self._popen.pid, {1})
        self.wait()

    def resume(self) -> None:
        """Have all drop their connections and go on; wait() tells when they have."""
        assert self._popen.stdin
        self._popen.stdin.write("\n")
        self._popen.stdin.flush()

    def wait(self) -> float:
        assert self._popen.stdout
        return float(*json.loads(self._popen.stdout.readline()).values())

    def close(self) -> None:
        self._popen.kill()
        self._popen.communicate()


def connect_bare(workers: int) -> float:
    """Return the seconds that as many bare TLS connects take."""
    with tempfile.TemporaryDirectory(prefix="mu-bench-") as name:
        folder = Path(name)
        authority = Authority.at_home(folder)
        write_identity(folder, authority.pem, authority.mint_job("bench", 3600))
        bare = subprocess.Popen(
            [sys.executable, str(HERE / "bare.py"), name, "1"], stdout=subprocess.PIPE, text=True
        )
        assert bare.stdout
        try:
            port = bare.stdout.readline().strip()
            Server(bare.pid)
            swarm = [sys.executable, str(HERE / "swarm.py"), name, port, str(workers)]
            told = subprocess.run(
                ["taskset", "-c", "1", *swarm], input="\n", stdout=subprocess.PIPE, text=True
            ).stdout
            return float(json.loads(told.splitlines()[0])["connected_s"])
        finally:
            bare.kill()
            bare.wait()


def start(folder: Path) -> tuple[Daemon, float, float]:
    """Return a daemon, and the seconds and those of CPU until it was ready."""
    begun = time.monotonic()
    daemon = Daemon(folder, conf=CONF)
    return daemon, time.monotonic() - begun, Server(daemon.process.pid).cpu_s


def start_empty() -> tuple[float, float]:
    """Return what a start takes with a home that has all but jobs."""
    with tempfile.TemporaryDirectory(prefix="mu-bench-") as name:
        start(Path(name))[0].process.kill()
        daemon, *took = start(Path(name))
        daemon.stop()
        return took[0], took[1]


def measure(workers: int, events: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="mu-bench-") as name:
        folder = Path(name)
        daemon, _, _ = start(folder)
        swarm = None
        try:
            params = {"text": "hello", "rounds": 2 * events}
            order = {"pipeline": "hello", "workers": workers, "engine": "external"}
            event = daemon.ask("/jobs", order | {"params": params})["event"]
            write_identity(folder, event["cacert"], Identity(event["srvcrt"], event["srvkey"]))
            # an attempt begins with two events, entering and the hello
            swarm = Swarm(folder, daemon.ports["worker"], workers, events - 2)
            time.sleep(SETTLE_S)
            swarm.resume()
            resumed = swarm.wait()
            time.sleep(SETTLE_S)
            size = (daemon.home / "journal.db").stat().st_size
            daemon.process.kill()
            begun = time.monotonic()
            swarm.resume()  # they try until a daemon is there
            daemon, ready, ready_cpu = start(folder)
            swarm.wait()
            went_on = time.monotonic() - begun
            counts = daemon.ask("/jobs")[0]["counts"]
            if counts["running"] != workers:
                raise SystemExit(f"not all workers came back: {counts}")
        finally:
            if swarm is not None:
                swarm.close()
            daemon.process.kill()
    empty, empty_cpu = start_empty()
    return {
        "resumed_s": resumed,
        "connects_s": connect_bare(workers),
        "ready_s": ready,
        "ready_cpu_s": ready_cpu,
        "empty_s": empty,
        "empty_cpu_s": empty_cpu,
        "went_on_s": went_on,
        "journal_mib": size / 2**20,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--events", type=int, default=100, help="of each worker")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    runs = [measure(options.workers, options.events) for _ in range(options.repeat)]
    told = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    if options.json:
        print(json.dumps(told))
        return
    print(
        "resume: {workers} connections lost at once, all go on after {resumed_s:.2f} s;"
        " as many bare TLS connects take {connects_s:.2f} s, ratio {ratio:.2f}".format(
            workers=options.workers, ratio=told["resumed_s"] / told["connects_s"], **told
        )
    )
    print(
        "restart: {workers} actors with {events} events each ({journal_mib:.0f} MiB): ready after"
        " {ready_s:.2f} s ({ready_cpu_s:.2f} of CPU), with an empty journal {empty_s:.2f} s"
        " ({empty_cpu_s:.2f}); all go on after {went_on_s:.2f} s".format(
            workers=options.workers, events=options.events, **told
        )
    )


if __name__ == "__main__":
    main()
