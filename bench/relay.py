"""Benchmarks mu's relay against a bare Twisted TLS relay with the same framing, in the same run.

The load comes from pairs of simulated workers (relay_swarm.py), in one process on the second core;
the relay is pinned to the first core. The bare relay only passes each message to the partner: it
keeps no frames, and knows neither jobs nor limits. Because machines are noisy, each figure is the
median of several alternating runs, and `mu/bare` is the median of their ratios.
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
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "demo"))

from coordinator import Server, write_identity
from stage import Process

from mu.net.certificates import Authority

KIB, MIB = 2**10, 2**20
PAIRS = 10
IN_FLIGHT = 16


class Relay:
    """A relay in a process of its own, on the first core."""

    def __init__(self, kind: str, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        authority = Authority.at_home(folder)
        authority.export_relay(folder, "127.0.0.1")
        write_identity(folder, authority.pem, authority.mint_job("bench", 3600))
        if kind == "bare":
            command = [sys.executable, str(HERE / "relay_bare.py"), str(folder)]
        else:
            (folder / "relay.conf").write_text(
                "[mu]\nhome = .\n[relay]\nhost = 127.0.0.1\nport = 0\n"
            )
            twistd = str(Path(sys.executable).with_name("twistd"))
            command = [twistd, "-n", "--pidfile=", "mu-relay", "--config", "relay.conf"]
        self.process = Process(f"the {kind} relay", command, folder / "log", {})
        self.port = self.process.wait_for(self._read_port, "ports.json")
        self.server = Server(self.process.pid)

    def _read_port(self) -> int:
        try:
            return int(json.loads((self.folder / "ports.json").read_text())["relay"])
        except (OSError, ValueError):
            return 0

    @property
    def peak_kib(self) -> int:
        status = Path(f"/proc/{self.server.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0])

    def drive(self, *args: Any) -> dict[str, float]:
        """Run a swarm; return its figures and the relay's CPU time."""
        command = [sys.executable, str(HERE / "relay_swarm.py"), str(self.folder), str(self.port)]
        swarm = subprocess.Popen(
            [*command, *map(str, args)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert swarm.stdin
        assert swarm.stdout
        os.sched_setaffinity(swarm.pid, {1})
        swarm.stdout.readline()  # all workers are connected
        time.sleep(0.7)  # and longer than settle_s, so that all are linked
        used = self.server.cpu_s
        swarm.stdin.write("go\n")
        swarm.stdin.flush()
        told: dict[str, float] = json.loads(swarm.stdout.readline())
        told["cpu_s"] = self.server.cpu_s - used
        swarm.wait(10)
        return told


def measure(kind: str, messages: int, mebibytes: int, stopped: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="mu-bench-") as name:
        relay = Relay(kind, Path(name) / "relay")
        try:
            small = relay.drive("flood", PAIRS, KIB, IN_FLIGHT, messages // PAIRS)
            pause = relay.drive("pace", PAIRS, KIB, 200, 5)
            large = relay.drive("flood", PAIRS, MIB, 2, mebibytes // PAIRS)
            told = {
                "messages_s": small["messages"] / small["seconds"],
                "us": 1e6 * small["cpu_s"] / small["messages"],
                "p99_ms": pause["p99_ms"],
                "mb_s": large["messages"] * MIB / 1e6 / large["seconds"],
                "ms_mb": 1e3 * large["cpu_s"] / (large["messages"] * MIB / 1e6),
                "busy": large["busy"],
                "small_busy": small["busy"],
            }
            if kind == "mu":
                before = relay.peak_kib
                taken = relay.drive("stopped", 1, MIB, 8, stopped)
                told |= {
                    "grown_mib": (relay.peak_kib - before) / KIB,
                    "peak_mib": relay.peak_kib / KIB,
                }
                told["taken_mib"] = taken["messages"]
            return told
        finally:
            relay.process.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=200_000, help="number of 1 KiB messages")
    parser.add_argument("--mebibytes", type=int, default=2000, help="number of 1 MiB messages")
    parser.add_argument("--stopped", type=int, default=1024, help="MiB to send to a stopped reader")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    sizes = options.messages, options.mebibytes, options.stopped
    runs = [[measure(kind, *sizes) for kind in ("mu", "bare")] for _ in range(options.repeat)]
    if options.json:
        print(json.dumps([{"mu": mu, "bare": bare} for mu, bare in runs]))
        return
    rows = [
        (f"1 KiB, {PAIRS} pairs, {IN_FLIGHT} in flight: messages/s", "messages_s", "{:,.0f}"),
        ("    CPU us per message", "us", "{:.1f}"),
        ("    p99 latency at a steady rate, ms", "p99_ms", "{:.2f}"),
        (f"1 MiB, {PAIRS} pairs: MB/s", "mb_s", "{:,.0f}"),
        ("    CPU ms per MB", "ms_mb", "{:.2f}"),
    ]
    print(f"{'relay':48} {'mu':>10} {'bare':>10} {'mu/bare':>8}")
    for label, name, form in rows:
        mu, bare = (statistics.median(pair[n][name] for pair in runs) for n in (0, 1))
        ratio = statistics.median(pair[0][name] / pair[1][name] for pair in runs)
        print(f"{label:48} {form.format(mu):>10} {form.format(bare):>10} {ratio:8.2f}")
    last = [pair[0] for pair in runs]
    for text, name in (
        ("stopped reader: accepted by the relay, MiB", "taken_mib"),
        ("    memory growth, MiB", "grown_mib"),
        ("    peak memory, MiB", "peak_mib"),
    ):
        print(f"{text:58} {max(run[name] for run in last):.0f}")
    busy = [
        f"{statistics.median(pair[0][name] for pair in runs):.0%}"
        for name in ("small_busy", "busy")
    ]
    print(f"CPU use of the swarm with mu: {busy[0]} (1 KiB), {busy[1]} (1 MiB)")


if __name__ == "__main__":
    main()
