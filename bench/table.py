"""All benchmarks in one table: each figure, its peer's in the same run, the ratio, and whether it is good enough.

The peers are a bare Twisted server, boto3 in 64 threads, as many bare starts of Python, a bare file, bare
connects, the daemon's own port, a bare relay, the same work one file after the other, and bare TCP with zlib; times are of the processor, but for
those at hello, of connections, of copying and of links. Each benchmark runs once, in under ten minutes together;
alone, each repeats its runs and tells more.
Only ratios can be compared between machines, and only those of a quiet machine can be trusted.
"""

import argparse
import json
import os
import platform
import re
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs/performance.md"
COMMANDS = {
    "coordinator": ["coordinator.py", "--repeat", "1"],
    "accepts": ["accepts.py", "--repeat", "1"],
    "used": ["coordinator.py", "--used", "--repeat", "1"],
    "many": ["many.py", "--seconds", "20"],
    "launch": ["launch.py", "--runs", "1"],
    "hello": ["hello.py", "--workers", "200"],
    "journal": ["journal.py", "--repeat", "1"],
    "restart": ["restart.py", "--repeat", "1"],
    "timeline": ["timeline.py", "--repeat", "1"],
    "relay": ["relay.py", "--repeat", "1", "--stopped", "64"],
    "overlap": ["overlap.py", "--runs", "1"],
    "link": ["link.py", "--runs", "2"],
}
QUIET = 0.9
"""A machine is quiet if its processors are idle for this share of a second or more."""
STEADY = 1.25
"""It is steady if the slowest of several equal pieces of work takes at most this many times the fastest."""


@dataclass(frozen=True)
class Line:
    """One line of the table. `ratio` is ours / peer's; without a peer, ours."""

    name: str
    unit: str
    ours: float
    peer: float | None
    must: float
    aim: float
    more_is_better: bool = False

    @property
    def ratio(self) -> float:
        return self.ours if self.peer is None else self.ours / self.peer

    @property
    def holds(self) -> str:
        good = [
            self.ratio >= limit if self.more_is_better else self.ratio <= limit
            for limit in (self.must, self.aim)
        ]
        return "aim" if good[1] else "yes" if good[0] else "NO"


def coordinator_lines(told: Any) -> Iterator[Line]:
    for name, run in told.items():
        pair = run["mu"]["us"], run["bare"]["us"]
        if name == "brief":
            yield Line("a worker of one command", "us", *pair, 3, 2)
        else:
            limits = (1.1, 0.75) if name == "saturated" else (1.1, 0.8)
            yield Line(f"{name}: a command", "us", *pair, *limits)
    full = told["saturated"]
    pair = full["mu"]["commands_s"], full["bare"]["commands_s"]
    yield Line("saturated: commands", "/s", *pair, 0.9, 1.2, True)
    journal = full["mu"]["us"], full["forgetful"]["us"]
    yield Line("a command, journal on and off", "us", *journal, 1.10, 1.05)


def accepts_lines(told: Any) -> Iterator[Line]:
    pair = told["haproxy_per_cpu_s"], told["alone_per_cpu_s"]
    yield Line("accepts behind HAProxy, own port", "/CPU s", *pair, 1.6, 2.0, True)


def used_lines(told: Any) -> Iterator[Line]:
    full = told["saturated"]
    pair = full["told"]["us"], full["mu"]["us"]
    yield Line("a command that tells its use", "us", *pair, 1.3, 1.15)


def many_lines(told: Any) -> Iterator[Line]:
    yield Line("10,000 waiting: each", "KiB", told["kib"], None, 45, 35)
    yield Line("10,000 waiting: of a core", "%", 100 * told["share"], None, 4, 3)
    slowest = max(ms for name, ms in told.items() if name.startswith("/"))
    yield Line("10,000 waiting: slowest GET", "ms", slowest, None, 20, 10)


def launch_lines(told: Any) -> Iterator[Line]:
    mu, peer = told["mu"], told["boto3"]
    yield Line("launches", "/s", mu["per_s"], peer["per_s"], 10, 21, True)
    yield Line("a launch", "ms", mu["cpu_ms"], peer["cpu_ms"], 0.1, 0.046)


def hello_lines(told: Any) -> Iterator[Line]:
    pair = told["last_hello_s"], told["peer_s"]
    yield Line("200 real workers at hello", "s", *pair, 1.1, 1.0)
    cpu = told["daemon_cpu_ms_per_worker"]
    yield Line("the daemon's part of each", "ms", cpu, None, 2, 1.5)


def journal_lines(told: Any) -> Iterator[Line]:
    for jobs, run in told.items():
        pair = run["journal"]["us"], run["bare"]["us"]
        yield Line(f"a record, jobs: {int(jobs):,}", "us", *pair, 3, 2)


def restart_lines(told: Any) -> Iterator[Line]:
    pair = told["resumed_s"], told["connects_s"]
    yield Line("1,000 connections resume", "s", *pair, 1.5, 1.1)
    cpu = told["ready_cpu_s"] - told["empty_cpu_s"]
    yield Line("restart with 100,000 events", "s", cpu, None, 1.5, 0.8)


def timeline_lines(told: Any) -> Iterator[Line]:
    for name, run in told["reading"].items():
        yield Line(f"timeline of {name}", "s", run["cpu_s"], None, 2, 1)


def relay_lines(told: Any) -> Iterator[Line]:
    mu, bare = told[0]["mu"], told[0]["bare"]
    pair = mu["messages_s"], bare["messages_s"]
    yield Line("relay, 1 KiB: messages", "/s", *pair, 1.2, 1.5, True)
    yield Line("relay, 1 MiB", "MB/s", mu["mb_s"], bare["mb_s"], 1.0, 1.1, True)


def overlap_lines(told: Any) -> Iterator[Line]:
    for name, must in (("map", 2.0), ("png2y4m", 3.0)):
        ours, peer = told[f"{name}_s"], told[f"{name}_in_turn_s"]
        yield Line(f"{name}, copying overlapped", "s", ours, peer, 1 / must, 0.3)


def link_lines(told: Any) -> Iterator[Line]:
    for size, must in (("352x288", 15), ("1280x720", 60)):
        yield Line(f"a link, a state of {size}", "ms", told[f"{size}_ms"], None, must, 0.7 * must)
        pair = told[f"{size}_ms"], told[f"{size}_bare_ms"]
        yield Line(f"a link of {size}, bare TCP", "ms", *pair, 2.5, 1.5)
    yield Line("an actor of xcenc besides", "ms", told["own_ms"], None, 30, 20)


LINES: dict[str, Callable[[Any], Iterator[Line]]] = {
    "coordinator": coordinator_lines,
    "accepts": accepts_lines,
    "used": used_lines,
    "many": many_lines,
    "launch": launch_lines,
    "hello": hello_lines,
    "journal": journal_lines,
    "restart": restart_lines,
    "timeline": timeline_lines,
    "relay": relay_lines,
    "overlap": overlap_lines,
    "link": link_lines,
}


def unrest() -> str:
    """Return why this machine's ratios cannot be trusted; empty: it is quiet."""
    before = _idle_s()
    time.sleep(1)
    idle = (_idle_s() - before) / (os.cpu_count() or 1)
    if idle < QUIET:
        return f"its processors are busy with other work for {1 - idle:.0%} of the time"
    took = sorted(_work_s() for _ in range(20))
    if took[-3] > STEADY * took[0]:  # a hiccup or two do not matter
        return f"equal pieces of work take {took[0] * 1e3:.0f} to {took[-3] * 1e3:.0f} ms"
    return ""


def _idle_s() -> float:
    fields = Path("/proc/stat").read_text().split(maxsplit=5)
    return int(fields[4]) / os.sysconf("SC_CLK_TCK")


def _work_s() -> float:
    began = time.perf_counter()
    sum(number * number for number in range(300_000))
    return time.perf_counter() - began


def run(name: str) -> list[Line]:
    command, *options = COMMANDS[name]
    done = subprocess.run(
        [sys.executable, str(HERE / command), *options, "--json"],
        stdout=subprocess.PIPE,
        check=True,
    )
    return list(LINES[name](json.loads(done.stdout)))


def show(lines: list[Line], console: Console) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for title in ("mu", "peer", "ratio", "must", "aim", "holds"):
        table.add_column(title, justify="right")
    for line in lines:
        table.add_row(*cells(line))
    console.print(table)


def cells(line: Line) -> list[str]:
    """Return what the table says in a line."""
    peer = "" if line.peer is None else f"{line.peer:,.4g}"
    ratio = "" if line.peer is None else f"{line.ratio:.2f}"
    sign = ">" if line.more_is_better else "<"
    limits = [f"{sign} {limit:.3g}" for limit in (line.must, line.aim)]
    return [line.name, f"{line.ours:,.4g} {line.unit}", peer, ratio, *limits, line.holds]


def machine() -> str:
    """Return what this machine and its software are."""
    info = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*: (.*)$", info, re.MULTILINE)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} cores ({model[1] if model else platform.machine()}), {memory:.0f} GiB,"
        f" Linux {platform.release().partition('-')[0]}, Python {platform.python_version()}, Twisted {version('twisted')},"
        f" {ssl.OPENSSL_VERSION}"
    )


def write_page(lines: list[Line], restless: str) -> None:
    """Write the figures into docs/performance.md, between its two marks."""
    before, start, rest = PAGE.read_text().partition("<!-- figures -->\n")
    _, end, after = rest.partition("<!-- end of figures -->\n")
    quiet = f"it was not quiet: {restless}" if restless else "quiet, one run"
    told = [f"Measured on {date.today()}: {machine()}; {quiet}.", ""]
    told += ["| | mu | peer | ratio | must | aim | holds |", "|---|--:|--:|--:|--:|--:|---|"]
    told += [f"| {' | '.join(cells(line))} |" for line in lines]
    PAGE.write_text(before + start + "\n".join(told) + "\n" + end + after)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "names", nargs="*", choices=[[], *COMMANDS], help="of benchmarks; default: all"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--page", action="store_true", help="write the figures into docs/performance.md as well"
    )
    options = parser.parse_args()
    console = Console(stderr=True)
    restless = unrest()
    lines: list[Line] = []
    columns = TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        for name in options.names or COMMANDS:
            task = progress.add_task(f"bench/{COMMANDS[name][0]}")
            lines += run(name)
            progress.remove_task(task)
    restless = restless or unrest()
    if options.page:
        write_page(lines, restless)
    if options.json:
        rows = [asdict(line) | {"ratio": line.ratio, "holds": line.holds} for line in lines]
        print(json.dumps({"quiet": not restless, "why": restless or None, "lines": rows}))
        return
    show(lines, Console())
    if restless:
        print(f"\nThis machine is not quiet, so its ratios cannot be trusted: {restless}.")


if __name__ == "__main__":
    main()
