"""A discrete-event simulation of one coordinator: what gives out first as workers grow, to 100,000 and beyond.

The costs are in costs.json, each with where it was measured. Workers are launched within AWS's windows, shake
hands, say hello, and run their commands; the daemon, HAProxy and the launches queue for what there is
of them. `--check` compares it with real runs (swarm.py against a daemon) of 100, 1,000 and 10,000 workers, with
costs taken from runs of 1,000.
"""

import argparse
import heapq
import json
import random
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict, deque
from collections.abc import Generator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import simpy

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "demo"))

WINDOW_S = 10.0
"""How busy something is, is counted in windows of this length."""
GROWTH_S = 10.0
"""The window of AWS's limit of growth."""

Steps = Generator[simpy.Event, Any, None]


@dataclass(frozen=True)
class Costs:
    """What things cost, in the units of their names; ms and us are of the processor."""

    launch_ms: float
    launch_s: float
    start_s: float
    tls_ms: float
    accept_ms: float
    hello_ms: float
    handover_ms: float
    command_us: float
    ping_us: float
    command_bytes: float
    worker_kib: float
    haproxy_kib: float
    relay_ms_per_mb: float
    client_tls_ms: float
    client_command_us: float

    @classmethod
    def read(cls) -> "Costs":
        return cls(**{name: row["value"] for name, row in cls.rows().items()})

    @staticmethod
    def rows() -> dict[str, dict[str, Any]]:
        """Return each cost as costs.json has it: its value, and where that is from."""
        rows: dict[str, dict[str, Any]] = json.loads((HERE / "costs.json").read_text())
        return rows


@dataclass(frozen=True)
class Load:
    """A job, and what it runs on. Its workers run `commands` commands in `work_s` seconds."""

    workers: int
    regions: int = 8
    functions: int = 2
    """In each region."""
    places: int = 1000
    """Concurrent executions in each region: the account's quota."""
    growth: int = 1000
    """How many workers of a function may start in GROWTH_S."""
    in_flight: int = 64
    """Launch requests under way in each region."""
    commands: int = 5
    work_s: float = 60.0
    relay_mb: float = 0.0
    """What each worker sends through the relay, in the daemon's process."""
    haproxies: int = 0
    heartbeat_s: float = 15.0


class Cores:
    """Some processors with one queue."""

    def __init__(self, env: simpy.Environment, count: int) -> None:
        self._env = env
        self._free = [0.0] * count  # when each is free
        self._windows: defaultdict[int, float] = defaultdict(float)
        self._count = count
        self.busy_s = 0.0
        self.longest_wait_s = 0.0

    def use(self, seconds: float) -> simpy.Event:
        """Return an event at the end of some work of this length, which begins when a processor is free."""
        now = self._env.now
        begins = max(now, heapq.heappop(self._free))
        heapq.heappush(self._free, begins + seconds)
        self.busy_s += seconds
        self.longest_wait_s = max(self.longest_wait_s, begins - now)
        self._windows[int(begins / WINDOW_S)] += seconds
        return self._env.timeout(begins + seconds - now)

    @property
    def peak(self) -> float:
        """Of the busiest window, how much was used: at most about 1."""
        return max(self._windows.values(), default=0.0) / WINDOW_S / self._count


class Simulation:
    """One job from its order to its end, in seconds since then."""

    def __init__(self, costs: Costs, load: Load, seed: int = 1) -> None:
        self._costs, self._load = costs, load
        self._chance = random.Random(seed)
        self._env = simpy.Environment()
        self.daemon = Cores(self._env, 1)
        self.tls = Cores(self._env, load.haproxies) if load.haproxies else None
        self.launched_s = self.connected_s = self.done_s = 0.0
        self._connected = self.most_connected = 0
        self.hello_s: list[float] = []
        """How long each worker waited from its start to its first command."""

    def run(self) -> None:
        for region in range(self._load.regions):
            self._env.process(self._launch_all(region))
        self._env.run()
        self.done_s = self._env.now

    def _launch_all(self, region: int) -> Steps:
        """Launch the workers of a region, functions in turn, as places and windows allow."""
        load, env = self._load, self._env
        places = simpy.Resource(env, load.places)
        lane = simpy.Resource(env, load.in_flight)
        starts: list[deque[float]] = [deque() for _ in range(load.functions)]
        for number in range(region, load.workers, load.regions):
            place = places.request()
            yield place
            recent = starts[number // load.regions % load.functions]
            if len(recent) == load.growth:
                wait = recent.popleft() + GROWTH_S - env.now
                if wait > 0:
                    yield env.timeout(wait)
            recent.append(env.now)
            request = lane.request()
            yield request
            env.process(self._live(places, place, lane, request))

    def _live(
        self, places: simpy.Resource, place: Any, lane: simpy.Resource, request: Any
    ) -> Steps:
        """Launch a worker, and play it to its end."""
        costs, load, env, chance = self._costs, self._load, self._env, self._chance
        yield self.daemon.use(costs.launch_ms / 1e3)
        yield env.timeout(costs.launch_s * chance.uniform(0.5, 1.5))
        lane.release(request)
        self.launched_s = env.now
        yield env.timeout(costs.start_s * chance.uniform(0.5, 1.5))
        began = env.now
        if self.tls is not None:
            yield self.tls.use(costs.tls_ms / 1e3)
        accept_ms = costs.accept_ms if self.tls is None else costs.handover_ms
        yield self.daemon.use((accept_ms + costs.hello_ms) / 1e3)
        self.connected_s = env.now
        self.hello_s.append(env.now - began)
        self._connected += 1
        self.most_connected = max(self.most_connected, self._connected)
        pause = load.work_s / load.commands
        for _ in range(load.commands):
            yield env.timeout(pause * chance.uniform(0.5, 1.5))
            pings = pause // load.heartbeat_s
            relayed = load.relay_mb / load.commands * costs.relay_ms_per_mb / 1e3
            yield self.daemon.use((costs.command_us + pings * costs.ping_us) / 1e6 + relayed)
        self._connected -= 1
        places.release(place)

    def told(self) -> dict[str, float]:
        """Return the figures of the run."""
        costs, load = self._costs, self._load
        places = load.regions * load.places
        kib = costs.worker_kib + (costs.haproxy_kib if load.haproxies else 0.0)
        return {
            "workers": load.workers,
            "launched_s": self.launched_s,
            "done_s": self.done_s,
            "at_once": self.most_connected,
            "hello_s": max(self.hello_s),
            "daemon": self.daemon.peak,
            "tls": self.tls.peak if self.tls else 0.0,
            "places": load.workers / places,
            "gib": self.most_connected * kib / 2**20,
            "journal_mb_s": load.commands
            * load.workers
            * costs.command_bytes
            / 1e6
            / max(self.done_s, 1e-9),
            "relay_mb_s": load.relay_mb * load.workers / max(self.done_s, 1e-9),
        }


def simulate(costs: Costs, load: Load) -> dict[str, float]:
    simulation = Simulation(costs, load)
    simulation.run()
    return simulation.told()


def first_to_give_out(told: dict[str, float]) -> str:
    """Return the name of the limited resource that is used most."""
    names = {"daemon": "the daemon's core", "tls": "HAProxy's cores", "places": "places"}
    return names[max(names, key=lambda name: told[name])]


def scenarios(most: int) -> dict[str, Load]:
    """Return the loads of docs/scale.md, with up to `most` workers."""
    each = -(-most // Load.regions)
    raised = Load(most, places=each * 5 // 4, functions=max(2, -(-each // Load.growth)))
    fronted = replace(raised, haproxies=2)
    return {
        "1,000 places a region": Load(most),
        "a quarter more places than workers": raised,
        "and HAProxy on 2 cores": fronted,
        "and a command every 3 s each": replace(fronted, commands=20),
        "and 10 MB each by the relay": replace(fronted, relay_mb=10),
    }


SUSTAINED = 0.7
"""How much of the daemon's core may be used for long: beyond that, answers wait."""


def capacity(costs: Costs) -> dict[str, float]:
    """Return what one coordinator can drive, of each alone."""
    core_ms = 1e3 * SUSTAINED
    fronted_ms = costs.handover_ms + costs.hello_ms
    return {
        "workers that connect in a second, own port": core_ms / (costs.accept_ms + costs.hello_ms),
        "workers that connect in a second, HAProxy on 2 cores": min(
            core_ms / fronted_ms, 2 * core_ms / costs.tls_ms
        ),
        "workers that connect in a second, HAProxy on enough cores": core_ms / fronted_ms,
        "cores that HAProxy needs for that": costs.tls_ms / fronted_ms,
        "launches in a second": core_ms / costs.launch_ms,
        "commands in a second": 1e3 * core_ms / costs.command_us,
        "waiting workers, by their heartbeats": 15 * 1e3 * core_ms / costs.ping_us,
        "waiting workers in 16 GiB, own port": 16 * 2**20 / costs.worker_kib,
        "MB in a second by the relay in the daemon": core_ms / costs.relay_ms_per_mb,
    }


def capacity_table(costs: Costs) -> str:
    """Return the second table of docs/scale.md."""
    rows = [f"| {name} | {float(f'{value:.2g}'):,g} |" for name, value in capacity(costs).items()]
    return "\n".join(["| one coordinator | at most |", "|---|---|", *rows]) + "\n"


# ---------------------------------------------------------------- beside real runs

AT_ONCE = 64
"""How many handshakes the swarm has under way."""


def rehearse(costs: Costs, workers: int, rounds: int) -> dict[str, float]:
    """Simulate a swarm that connects, says hello and answers each echo at once (swarm.py, on a core)."""
    env = simpy.Environment()
    daemon, swarm = Cores(env, 1), Cores(env, 1)
    slots = simpy.Resource(env, AT_ONCE)

    def connect() -> Steps:
        slot = slots.request()
        yield slot
        yield swarm.use(costs.client_tls_ms / 2e3)
        yield daemon.use(costs.accept_ms / 1e3)
        yield swarm.use(costs.client_tls_ms / 2e3)
        slots.release(slot)

    def work() -> Steps:
        yield daemon.use(costs.hello_ms / 1e3)
        for _ in range(rounds):
            yield swarm.use(costs.client_command_us / 1e6)
            yield daemon.use(costs.command_us / 1e6)

    for _ in range(workers):
        env.process(connect())
    env.run()
    connected = env.now
    for _ in range(workers):
        env.process(work())
    env.run()
    return {"connected_s": connected, "worked_s": env.now - connected, "cpu_s": daemon.busy_s}


def run_really(workers: int, rounds: int) -> dict[str, float]:
    """Return what a real run of the same took."""
    from coordinator import Server, write_identity
    from stage import Daemon, free_ports_conf

    from mu.net.certificates import Identity

    with tempfile.TemporaryDirectory(prefix="mu-bench-") as name:
        folder = Path(name)
        conf = free_ports_conf(
            worker="hello_s = 600", local="enabled = no", jobs="max_workers = 100000"
        )
        daemon = Daemon(folder, conf=conf)
        try:
            params = {"text": "hello", "rounds": rounds}
            order = {"pipeline": "hello", "workers": workers, "engine": "external"}
            event = daemon.ask("/jobs", order | {"params": params})["event"]
            write_identity(folder, event["cacert"], Identity(event["srvcrt"], event["srvkey"]))
            server = Server(daemon.process.pid)
            before = server.cpu_s
            command = [sys.executable, str(HERE / "swarm.py"), name]
            swarm = subprocess.Popen(
                [*command, str(daemon.ports["worker"]), str(workers)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            assert swarm.stdin
            assert swarm.stdout
            used = Used(swarm.pid)
            connected = json.loads(swarm.stdout.readline())["connected_s"]
            accepted, shaken = server.cpu_s - before, used.cpu_s
            swarm.stdin.write("go\n")
            swarm.stdin.flush()
            done = json.loads(swarm.stdout.readline())
            journal = sum(file.stat().st_size for file in daemon.home.glob("journal.db*"))
            return {
                "connected_s": connected,
                "worked_s": done["seconds"],
                "cpu_s": server.cpu_s - before,
                "accept_cpu_s": accepted,
                "swarm_tls_s": shaken,
                "swarm_work_s": done["cpu_s"],
                "journal_bytes": journal,
            }
        finally:
            daemon.stop()


class Used:
    """The CPU time of a process with one thread."""

    def __init__(self, pid: int) -> None:
        self._file = Path(f"/proc/{pid}/schedstat")
        self._before = self._now()

    def _now(self) -> float:
        return int(self._file.read_text().split()[0]) / 1e9

    @property
    def cpu_s(self) -> float:
        return self._now() - self._before


ECHOES = 4
"""The echoes of each worker in the runs that are compared."""
FEW, MANY = 10, 40
"""The echoes of each worker in the runs that the costs are taken from."""


def take_costs(costs: Costs, workers: int = 1000) -> tuple[Costs, float]:
    """Return the costs with those that two real runs of this size tell.

    And how many times as long as simulated these took: above 1, others use the cores as well.
    """
    few, many = run_really(workers, FEW), run_really(workers, MANY)
    worked = [run["cpu_s"] - run["accept_cpu_s"] for run in (few, many)]
    command = (worked[1] - worked[0]) / workers / (MANY - FEW)
    swarms = (many["swarm_work_s"] - few["swarm_work_s"]) / workers / (MANY - FEW)
    taken = replace(
        costs,
        accept_ms=1e3 * statistics.mean(run["accept_cpu_s"] for run in (few, many)) / workers,
        hello_ms=1e3 * max(0.0, worked[0] / workers - FEW * command),
        command_us=1e6 * command,
        command_bytes=(many["journal_bytes"] - few["journal_bytes"]) / workers / (MANY - FEW),
        client_tls_ms=1e3 * statistics.mean(run["swarm_tls_s"] for run in (few, many)) / workers,
        client_command_us=1e6 * swarms,
    )
    real, simulated = (
        sum(run["connected_s"] + run["worked_s"] for run in runs)
        for runs in ((few, many), [rehearse(taken, workers, rounds) for rounds in (FEW, MANY)])
    )
    return taken, real / simulated


def check(costs: Costs) -> dict[str, Any]:
    """Return what the simulation and real runs say of 100, 1,000 and 10,000 workers, and the costs."""
    costs, stretch = take_costs(costs)
    rows = []
    for workers in (100, 1_000, 10_000):
        real, simulated = run_really(workers, ECHOES), rehearse(costs, workers, ECHOES)
        simulated |= {name: stretch * simulated[name] for name in ("connected_s", "worked_s")}
        error = {name: 100 * (simulated[name] / real[name] - 1) for name in simulated}
        rows.append({"workers": workers, "real": real, "simulated": simulated, "error": error})
    return {"costs": asdict(costs), "stretch": stretch, "rows": rows}


def print_check(told: dict[str, Any]) -> None:
    print(f"what took 1 s of a core took {told['stretch']:.2f} s\n")
    print(f"{'workers':>8} {'':12} {'real':>9} {'simulated':>9} {'error':>7}")
    for row in told["rows"]:
        for name, error in row["error"].items():
            real, simulated = row["real"][name], row["simulated"][name]
            print(f"{row['workers']:8,} {name:12} {real:9.2f} {simulated:9.2f} {error:+6.0f}%")
    for name, value in told["costs"].items():
        print(f"{name:20} {value:.4g}")


def table(rows: dict[str, dict[str, float]]) -> str:
    """Return the table of docs/scale.md."""
    lines = [
        "| load | all launched | all done | at once | longest wait for a hello | the daemon's core | HAProxy's cores"
        " | places | memory | gives out first |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, told in rows.items():
        tls = f"{told['tls']:.0%}" if told["tls"] else "-"
        lines.append(
            f"| {name} | {told['launched_s']:,.0f} s | {told['done_s']:,.0f} s | {told['at_once']:,}"
            f" | {told['hello_s']:,.1f} s | {told['daemon']:.0%} | {tls} | {told['places']:.0%}"
            f" | {told['gib']:.1f} GiB | {first_to_give_out(told)} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=100_000)
    parser.add_argument("--check", action="store_true", help="compare with real runs (minutes)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    costs = Costs.read()
    if options.check:
        told = check(costs)
        print(json.dumps(told)) if options.json else print_check(told)
        return
    rows = {name: simulate(costs, load) for name, load in scenarios(options.workers).items()}
    print(json.dumps(rows) if options.json else f"{table(rows)}\n{capacity_table(costs)}")


if __name__ == "__main__":
    main()
