"""The page at 10,000 actors: what its viewers cost the daemon, and how fast its timeline zooms.

Simulated workers (swarm.py) answer 1,000 commands a second in all. Clients on the other core follow the
job's events, and leave, again and again: the figure is the median of the differences in the daemon's CPU
time between windows with them and those beside without. Then each worker of
a job answers 20 commands, and Chromium, if there is one, shows the ended job: the time of one step of
zoom or scroll.
"""

import argparse
import os
import selectors
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "demo"))

from coordinator import COMMANDS_A_SECOND, Server, write_identity
from stage import Daemon, free_ports_conf
from swarm import WARM_S, WINDOW_S

from mu.net.certificates import Identity

COMMANDS = 20
STEPS = 30


class Viewers:
    """Clients that follow the events of a job, and read all they get."""

    def __init__(self, daemon: Daemon, job: str, number: int) -> None:
        self.bytes = 0
        self._over = threading.Event()
        self._selector = selectors.DefaultSelector()
        for _ in range(number):
            viewer = socket.create_connection(("127.0.0.1", daemon.ports["control"]))
            head = f"GET /jobs/{job}/events HTTP/1.1\r\nHost: localhost\r\n"
            viewer.sendall(f"{head}Authorization: Bearer {daemon.token}\r\n\r\n".encode())
            self._selector.register(viewer, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while not self._over.wait(0.02):
            for key, _ in self._selector.select(0):
                self.bytes += len(key.fileobj.recv(2**20))  # type: ignore[union-attr]

    def stop(self) -> None:
        self._over.set()
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]


def start(folder: Path, workers: int, rounds: int) -> tuple[Daemon, str]:
    """Start a daemon and a job whose workers are simulated; return it and the job's id."""
    conf = free_ports_conf(
        worker="hello_s = 600", local="enabled = no", jobs="max_workers = 100000"
    )
    daemon = Daemon(folder, conf=conf)
    params = {"text": "hello", "rounds": rounds}
    order = {"pipeline": "hello", "workers": workers, "engine": "external", "params": params}
    job = daemon.ask("/jobs", order)
    event = job["event"]
    write_identity(folder, event["cacert"], Identity(event["srvcrt"], event["srvkey"]))
    return daemon, job["id"]


def swarm_of(
    folder: Path, daemon: Daemon, workers: int, pause_s: float, *options: str
) -> subprocess.Popen[str]:
    """Return a swarm that has connected, and waits for a line."""
    command = [sys.executable, str(HERE / "swarm.py"), str(folder), str(daemon.ports["worker"])]
    swarm = subprocess.Popen(
        [*command, str(workers), str(pause_s), *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert swarm.stdout
    os.sched_setaffinity(swarm.pid, {1})
    swarm.stdout.readline()
    return swarm


def go(swarm: subprocess.Popen[str]) -> None:
    assert swarm.stdin
    swarm.stdin.write("go\n")
    swarm.stdin.flush()


def measure_viewers(workers: int, number: int, pairs: int) -> dict[str, list[float]]:
    """Return, for each pair of windows, the daemon's use of a core without viewers and with them.

    The job and its commands are the same in all windows, and the two of a pair follow one another, so
    the machine's variation is in both. Every other pair has the viewers first. `kib_s` is for each.
    """
    told: dict[str, list[float]] = {"without": [], "watched": [], "kib_s": []}
    with tempfile.TemporaryDirectory(prefix="mu-bench-") as name:
        daemon, job = start(Path(name), workers, 1000)
        pause_s = workers / COMMANDS_A_SECOND
        try:
            server = Server(daemon.process.pid)
            swarm = swarm_of(Path(name), daemon, workers, pause_s, "--stay")
            go(swarm)
            while daemon.ask(f"/jobs/{job}")["counts"]["running"] < workers:
                time.sleep(WARM_S)
            time.sleep(pause_s + WARM_S)
            for turn in range(pairs):
                for watched in (False, True) if turn % 2 else (True, False):
                    core, kib_s = measure_window(server, daemon, job, number if watched else 0)
                    told["watched" if watched else "without"].append(core)
                    if watched:
                        told["kib_s"].append(kib_s)
            swarm.kill()
            swarm.wait()
        finally:
            daemon.process.kill()
    return told


def measure_window(server: Server, daemon: Daemon, job: str, number: int) -> tuple[float, float]:
    """Return the daemon's share of a core with this number of viewers, and KiB/s for each viewer."""
    viewers = Viewers(daemon, job, number)
    time.sleep(WARM_S)  # for their snapshots, or until those before have gone
    used, got, began = server.cpu_s, viewers.bytes, time.monotonic()
    time.sleep(WINDOW_S)
    seconds = time.monotonic() - began
    used, got = server.cpu_s - used, viewers.bytes - got
    viewers.stop()
    if number and not got:
        raise RuntimeError("the daemon is too slow: its viewers got nothing")
    return used / seconds, got / 1024 / seconds / max(1, number)


def measure_steps(workers: int, chromium: str) -> dict[str, Any]:
    """Return the milliseconds that the page needs for a job that has ended."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory(prefix="mu-bench-") as name, sync_playwright() as player:
        daemon, job = start(Path(name), workers, COMMANDS)
        try:
            swarm = swarm_of(Path(name), daemon, workers, 0)
            go(swarm)
            daemon.wait(job, 300)
            swarm.wait()
            command = [str(Path(sys.executable).with_name("mu")), "--home", str(daemon.home)]
            link = subprocess.check_output([*command, "open", "--print", job], text=True)
            browser = player.chromium.launch(executable_path=chromium)
            page = browser.new_page()
            page.goto(link.strip())
            page.wait_for_selector(".actors tbody tr")
            page.locator(".tools .legend", has_text="echo").wait_for()
            page.locator("canvas.timeline").focus()
            told: dict[str, Any] = page.evaluate(STEP, STEPS)
            browser.close()
            return {what: statistics.median(times) for what, times in told.items()}
        finally:
            daemon.process.kill()


STEP = """async (steps) => {
  const canvas = document.querySelector("canvas.timeline");
  const keys = {zoom: ["+", "-"], move: ["ArrowLeft", "ArrowRight"]};
  const told = {};
  for (const [what, pair] of Object.entries(keys)) {
    told[what] = [];
    for (let step = 0; step < steps; step += 1) {
      const begun = performance.now();
      canvas.dispatchEvent(new KeyboardEvent("keydown", {key: pair[step % 10 < 5 ? 0 : 1]}));
      await new Promise((drawn) => requestAnimationFrame(() => setTimeout(drawn)));
      told[what].push(performance.now() - begun);
    }
  }
  return told;
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=10_000)
    parser.add_argument("--viewers", type=int, default=50)
    parser.add_argument("--pairs", type=int, default=6, help="of windows, with and without viewers")
    parser.add_argument("--no-page", action="store_true", help="do not measure the page")
    options = parser.parse_args()
    told = measure_viewers(options.workers, options.viewers, options.pairs)
    more = [with_ - none for with_, none in zip(told["watched"], told["without"], strict=True)]
    without, share, kib_s = map(statistics.median, (told["without"], more, told["kib_s"]))
    print(f"{options.workers} actors, {COMMANDS_A_SECOND} commands/s in all")
    print(
        f"the daemon: {without:.1%} of a core, with {options.viewers} viewers {share:.1%} more"
        f" ({min(more):.1%} to {max(more):.1%} in {len(more)} pairs of windows of {WINDOW_S:g} s)"
    )
    print(f"each viewer gets {kib_s:.0f} KiB/s", flush=True)
    if options.no_page:
        return
    found = filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))
    chromium = next(found, None)
    if chromium is None:
        print("no Chromium: the page was not measured")
        return
    for what, ms in measure_steps(options.workers, chromium).items():
        print(f"a step of {what} on the page: {ms:.0f} ms (median)")


if __name__ == "__main__":
    main()
