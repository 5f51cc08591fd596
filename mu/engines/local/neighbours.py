"""Tells our own engine process from strangers, by Linux's /proc: its lock, its age, its port."""

import fcntl
import os
from pathlib import Path

_LISTENING = "0A"


def is_locked(path: Path) -> bool:
    """Return whether a process holds the lock of this file, as an engine does while it lives."""
    try:
        file = path.open("r")
    except OSError:
        return False
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def started_at(pid: int) -> int:
    """Return when a process started, in the kernel's ticks. Raises OSError if there is none."""
    stat = Path(f"/proc/{pid}/stat").read_bytes()
    return int(stat.rpartition(b")")[2].split()[19])


def is_ours(pid: int, started: int | None) -> bool:
    """Return whether this process runs as our user, and started then.

    `started` is None for engines of earlier versions, which did not say it: those are recognised by
    their command line.
    """
    try:
        if Path(f"/proc/{pid}").stat().st_uid != os.geteuid():
            return False
        if started is None:
            return b"mu.engines.local" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return started_at(pid) == started
    except OSError:
        return False


def listens(pid: int, port: int) -> bool:
    """Return whether it is this process that listens on 127.0.0.1:port. It must be our user's."""
    address = f"0100007F:{port:04X}"
    sockets = set()
    with open("/proc/net/tcp", encoding="ascii") as table:
        for line in table:
            fields = line.split()
            if fields[1] == address and fields[3] == _LISTENING and int(fields[7]) == os.geteuid():
                sockets.add(f"socket:[{fields[9]}]")
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            try:
                if os.readlink(f"/proc/{pid}/fd/{name}") in sockets:
                    return True
            except FileNotFoundError:  # closed meanwhile
                continue
    except OSError:
        return False
    return False
