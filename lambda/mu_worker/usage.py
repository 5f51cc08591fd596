"""Measures what commands use: CPU time, memory, /tmp and transfers, for the protocol's USED.

Memory is that of the worker and of everything that it started, sampled while a slow command runs:
soon after its start, and then less and less often. What cannot be measured is left out.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf
from resource import RUSAGE_SELF, getrusage, struct_rusage
from time import monotonic

FIRST_SAMPLE_S, LONGEST_SAMPLE_S = 0.05, 1.0
"""When memory is first sampled, and the longest time between two samples; each is twice the last."""
FULL = 0.9
"""The share of the function's memory above which a killed program counts as out of memory."""
TMP = "/tmp"
_PAGE_MB = os.sysconf("SC_PAGESIZE") / 2**20


@dataclass(slots=True)
class _SlowCommand:
    """A slow command: what is known so far of what it used."""

    begun: float
    known: dict[str, float] = field(default_factory=dict)
    peak_mb: float = 0.0
    kills: int | None = None
    """How many processes the system had killed for want of memory before it began."""


class UsageMeter:
    """Notes what slow commands use. If it is not `on`, it measures and returns nothing.

    `memory_mb` is the function's memory; None: unknown. Sizes are in MB of 2**20 bytes.
    """

    def __init__(self, on: bool, memory_mb: float | None) -> None:
        self._on = on
        self._memory_mb = memory_mb
        self._running: dict[int, _SlowCommand] = {}
        self._own_tmp = on and _has_own_tmp()
        self._tmp_mb: float | None = None
        self._busy_s = 0.0  # in which any slow command ran, and that no command has told
        self._ticks = (0, 0)  # of CPUs meanwhile: idle ones, and all
        self._counted = 0.0, (0, 0)  # when, and the ticks then
        self._pause_s = FIRST_SAMPLE_S
        self.due = inf
        """When to call `tick`, in monotonic seconds; inf: never."""

    def begin(self, number: int) -> None:
        """A slow command begins."""
        if not self._on:
            return
        now = self._count()
        self._running[number] = _SlowCommand(now, kills=_oom_kills())
        self._pause_s = FIRST_SAMPLE_S
        self.due = now + FIRST_SAMPLE_S

    def note(self, number: int, **known: float) -> None:
        """Note what else is known of a command."""
        if number in self._running:
            self._running[number].known |= known

    def note_state(self, number: int) -> None:
        """Note that the neighbour's state has arrived, for which the program of a command waited."""
        running = self._running.get(number)
        if running is not None:
            running.known.setdefault("wait_s", monotonic() - running.begun)

    def note_program(self, number: int, used: struct_rusage) -> None:
        """Note what the program of a command used, which has ended.

        Its largest process begins with this worker's size (see getrusage(2)), so only a larger one
        says something: this much, beside the worker, even if no sample saw it.
        """
        largest, own = used.ru_maxrss, getrusage(RUSAGE_SELF).ru_maxrss
        peak_mb = largest / 1024 + _resident_mb("self") if largest > own else 0.0
        self.note(number, cpu_s=used.ru_utime + used.ru_stime, peak_mb=peak_mb)

    def tick(self) -> None:
        """Take a sample, if it is due."""
        now = monotonic()
        if now >= self.due:
            self._sample()
            self._pause_s = min(2 * self._pause_s, LONGEST_SAMPLE_S)
            self.due = now + self._pause_s

    def end(self, number: int) -> dict[str, float]:
        """Return what a command that ends has used; empty: it is unknown, or no slow command."""
        running = self._running.get(number)
        if running is None:
            return {}
        self._count()
        self._sample()
        del self._running[number]
        if not self._running:
            self.due = inf
        told = running.known | self._busy()
        if peak_mb := self._peak_mb(running):
            told["peak_mb"] = peak_mb
        return {name: round(value, 3) for name, value in (told | self.tmp()).items()}

    def tmp(self) -> dict[str, float]:
        """Return the most that /tmp has held so far; empty: it is unknown."""
        return {} if self._tmp_mb is None else {"tmp_mb": round(self._tmp_mb, 3)}

    def why_killed(self, number: int) -> str:
        """Return a clause about a running command whose program was killed; empty: unknown."""
        running = self._running.get(number)
        if running is None or not self._memory_mb:
            return ""
        self._sample()
        peak_mb, kills = self._peak_mb(running), _oom_kills()
        killed = kills is not None and running.kills is not None and kills > running.kills
        if peak_mb >= FULL * self._memory_mb or (killed and _has_own_machine()):
            why = "killed: out of memory"
        else:
            why = "killed, perhaps because the machine was out of memory" if killed else "killed"
        return f"{why} (peak {peak_mb:,.0f} of {self._memory_mb:,.0f} MB)"

    @staticmethod
    def _peak_mb(running: _SlowCommand) -> float:
        """Return the largest sample, or what its largest process shows."""
        return max(running.peak_mb, running.known.get("peak_mb", 0.0))

    def _count(self) -> float:
        """Count the time since the last call, if a command was running; return the time."""
        (before, (idle, ticks)), now = self._counted, (monotonic(), _cpu_ticks())
        if self._running:
            self._busy_s += now[0] - before
            self._ticks = self._ticks[0] + now[1][0] - idle, self._ticks[1] + now[1][1] - ticks
        self._counted = now
        return now[0]

    def _busy(self) -> dict[str, float]:
        """Return the counted time, and the part of it that the machine's CPUs were idle."""
        busy_s, (idle, ticks) = self._busy_s, self._ticks
        self._busy_s, self._ticks = 0.0, (0, 0)
        return {"busy_s": busy_s} | ({"idle_s": busy_s * idle / ticks} if ticks > 0 else {})

    def _sample(self) -> None:
        used = resident_mb(self._memory_mb or inf)
        for running in self._running.values():
            running.peak_mb = max(running.peak_mb, used)
        if self._own_tmp:
            room = os.statvfs(TMP)
            used = (room.f_blocks - room.f_bfree) * room.f_frsize / 2**20
            self._tmp_mb = max(self._tmp_mb or 0.0, used)


def resident_mb(limit_mb: float = inf) -> float:
    """Return the resident size of this process and its descendants; 0: unknown.

    If that exceeds the limit, pages that several processes share are counted about once.
    """
    pids = ["self", *_descendants()]
    sizes = sorted(map(_resident_mb, pids))
    used = sum(sizes)
    if used > limit_mb and len(pids) > 1:
        used = sizes[-1] + sum(sorted(map(_proportional_mb, pids))[:-1])
    return used


def _descendants() -> Iterator[str]:
    """Yield the pids of all descendants; none, if the system does not tell."""
    parents = ["self"]
    while parents:
        tasks = f"/proc/{parents.pop()}/task"
        try:
            for task in os.listdir(tasks):
                pids = _content(f"{tasks}/{task}/children").decode().split()
                yield from pids
                parents += pids
        except OSError:
            continue  # it has ended in the meantime


def _resident_mb(pid: str) -> float:
    try:
        return int(_content(f"/proc/{pid}/statm").split()[1]) * _PAGE_MB
    except (OSError, LookupError, ValueError):
        return 0.0


def _proportional_mb(pid: str) -> float:
    try:
        lines = _content(f"/proc/{pid}/smaps_rollup").splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(b"Pss:")), 0.0)


def _cpu_ticks() -> tuple[int, int]:
    """Return for how many ticks the machine's CPUs were idle, and for how many in all (proc(5))."""
    try:
        ticks = [int(field) for field in _content("/proc/stat").split(b"\n", 1)[0].split()[1:9]]
        return ticks[3] + ticks[4], sum(ticks)
    except (OSError, LookupError, ValueError):
        return 0, 0


def _has_own_machine() -> bool:
    """Return whether nothing but this function runs on its (virtual) machine, as on AWS."""
    return "AWS_LAMBDA_FUNCTION_NAME" in os.environ and "MU_SHARED_MACHINE" not in os.environ


def _oom_kills() -> int | None:
    """Return how many processes the machine has killed for want of memory; None: unknown."""
    try:
        with open("/proc/vmstat", "rb") as file:
            return next((int(line[9:]) for line in file if line.startswith(b"oom_kill ")), None)
    except (OSError, ValueError):
        return None


def _has_own_tmp() -> bool:
    """Return whether /tmp is a file system of this function's sandbox, so that its size is its use.

    A folder that is only mounted there shows the size of the file system in which it lies.
    """
    if "AWS_LAMBDA_FUNCTION_NAME" not in os.environ or os.environ.get("MU_SHARED_TMP") == "1":
        return False
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
            roots = [
                fields[3] for fields in map(str.split, file) if fields[4] == TMP
            ]  # see proc(5)
    except OSError:
        return False
    return roots[-1:] == ["/"]


def _content(path: str) -> bytes:
    """Return the beginning of a file of /proc, in half the time that open() takes."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.read(descriptor, 4096)
    finally:
        os.close(descriptor)
