"""Workers that connect and say hello: the CPU time for each, at the daemon's own port and behind HAProxy.

Simulated workers (swarm.py) connect once. The score is that of the server process which works most, since
each has a core at most: the daemon alone, or the daemon and HAProxy's processes.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "demo"))

from coordinator import Server, write_identity
from stage import Daemon, Process, free_port, free_ports_conf, listens

from mu.cli.haproxy import configuration
from mu.config import read_config
from mu.net.certificates import Identity


def measure(workers: int, haproxies: int) -> dict[str, float]:
    """Return the milliseconds of CPU for each worker, by process; without `haproxies`: of the daemon alone."""
    with tempfile.TemporaryDirectory(prefix="mu-bench-") as name:
        folder = Path(name)
        conf = free_ports_conf(
            worker="hello_s = 600", local="enabled = no", jobs="max_workers = 100000"
        )
        if haproxies:
            port = free_port()
            conf = conf.replace("[worker]\nport = 0\n", f"[worker]\nport = {port}\nhaproxy = yes\n")
        daemon = Daemon(folder, conf=conf)
        processes = {"daemon": daemon.process}
        try:
            if haproxies:
                processes |= start_haproxies(daemon, haproxies)
            job = daemon.ask(
                "/jobs", {"pipeline": "hello", "workers": workers, "engine": "external"}
            )
            event = job["event"]
            write_identity(folder, event["cacert"], Identity(event["srvcrt"], event["srvkey"]))
            servers = {name: Server(process.pid) for name, process in processes.items()}
            before = {name: server.cpu_s for name, server in servers.items()}
            let_all_say_hello(daemon, job["id"], folder, workers)
            return {
                name: 1e3 * (server.cpu_s - before[name]) / workers
                for name, server in servers.items()
            }
        finally:
            for process in processes.values():
                process.stop()


def start_haproxies(daemon: Daemon, count: int) -> dict[str, Process]:
    """Start HAProxy with the configuration that `mu init --haproxy` writes."""
    folder = daemon.conf.parent
    written = folder / "mu-haproxy.cfg"
    written.write_text(configuration(read_config(daemon.conf)))
    command = ["haproxy", "-db", "-f", str(written)]
    started = {
        f"HAProxy {number}": Process("HAProxy", command, folder / f"haproxy-{number}.log", {})
        for number in range(1, count + 1)
    }
    for process in started.values():
        process.wait_for(lambda: listens(daemon.ports["worker"]), "answer on its port")
    time.sleep(0.5)  # until the last one listens, too
    return started


def let_all_say_hello(daemon: Daemon, job_id: str, folder: Path, workers: int) -> None:
    command = [sys.executable, str(HERE / "swarm.py"), str(folder), str(daemon.ports["worker"])]
    swarm = subprocess.Popen(
        [*command, str(workers), "3600", "--stay"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert swarm.stdin
    assert swarm.stdout
    try:
        swarm.stdout.readline()
        swarm.stdin.write("go\n")
        swarm.stdin.flush()
        while daemon.ask(f"/jobs/{job_id}")["counts"]["running"] < workers:
            time.sleep(0.2)
    finally:
        swarm.kill()
        swarm.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2000)
    parser.add_argument("--haproxies", type=int, default=2, help="processes of HAProxy")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    modes = {"alone": 0, "haproxy": options.haproxies}
    runs = [
        {mode: measure(options.workers, count) for mode, count in modes.items()}
        for _ in range(options.repeat)
    ]
    told = {
        mode: {name: statistics.median(run[mode][name] for run in runs) for name in runs[0][mode]}
        for mode in modes
    }
    scores = {f"{mode}_per_cpu_s": 1e3 / max(ms.values()) for mode, ms in told.items()}
    if options.json:
        print(json.dumps(told | scores))
        return
    for mode, each in told.items():
        parts = ", ".join(f"{name} {ms:.2f} ms" for name, ms in each.items())
        print(f"{mode:8} {scores[f'{mode}_per_cpu_s']:6,.0f} workers per CPU second: {parts} each")
    print(f"ratio {scores['haproxy_per_cpu_s'] / scores['alone_per_cpu_s']:.2f}")


if __name__ == "__main__":
    main()
