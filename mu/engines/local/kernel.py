"""Linux system calls that the standard library lacks, through ctypes; each raises OSError.

Use them in single-threaded processes: unshare and setns affect only the calling thread.
"""

import ctypes
import os
import signal
from collections.abc import Iterable
from contextlib import suppress

NEW_MOUNTS = 0x00020000  # CLONE_NEWNS
NEW_IPC = 0x08000000  # CLONE_NEWIPC
NEW_USERS = 0x10000000  # CLONE_NEWUSER
NEW_PIDS = 0x20000000  # CLONE_NEWPID

_READ_ONLY, _REMOUNT, _BIND, _RECURSIVE, _PRIVATE = 1, 32, 4096, 16384, 1 << 18
_RELATIME = 1 << 21
_NO_SETUID, _NO_DEVICES = 2, 4
_SAME_IN_STATVFS = 2 | 4 | 8 | 1024 | 2048  # nosuid nodev noexec noatime nodiratime
_ST_RELATIME = 4096
_SET_DEATH_SIGNAL, _SET_SUBREAPER, _DROP_FROM_BOUNDING_SET = 1, 36, 24
_CAPABILITIES_VERSION_3 = 0x20080522
_KEPT_CAPABILITIES = {0, 1, 3, 4, 5, 6, 7, 8, 10, 18, 31}
"""CAP_CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, SYS_CHROOT
and SETFCAP: with them, root can use its files, but neither mounts nor other processes."""

TMP = os.path.realpath("/tmp")
SHARED_MEMORY, SHARED_MEMORY_MB = os.path.realpath("/dev/shm"), 64
_PAGE_MB = os.sysconf("SC_PAGESIZE") / 2**20

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = [ctypes.c_char_p] * 3 + [ctypes.c_ulong, ctypes.c_char_p]
_libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(namespaces: int) -> None:
    """Enter new namespaces; NEW_PIDS takes effect for later children, not for the caller."""
    _checked(_libc.unshare(namespaces), f"unshare({namespaces:#x})")


def next_child_gets_new_pids(own_namespace: int) -> None:
    """Make the next forked child pid 1 of a new namespace; can be called before each fork.

    `own_namespace` is an open /proc/self/ns/pid; without it, unshare works only once.
    """
    _checked(_libc.setns(own_namespace, NEW_PIDS), "setns")
    unshare(NEW_PIDS)


def map_user(uid: int, gid: int, outer_uid: int, outer_gid: int) -> None:
    """Set the caller's ids inside its new user namespace; call this right after unshare."""
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{uid} {outer_uid} 1"),
        ("gid_map", f"{gid} {outer_gid} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    done = _libc.mount(
        os.fsencode(source), os.fsencode(target), kind.encode(), flags, options.encode()
    )
    _checked(done, f"mount {source} on {target}")


def make_mounts_private() -> None:
    """Keep the mounts of this namespace from propagating outside."""
    mount("none", "/", "", _RECURSIVE | _PRIVATE)


def bind(source: str, target: str, *, read_only: bool = False) -> None:
    mount(source, target, "", _BIND | _RECURSIVE)
    if read_only:
        # In a user namespace, a remount must repeat the flags that the mount already has.
        found = os.statvfs(target).f_flag
        kept = found & _SAME_IN_STATVFS | (_RELATIME if found & _ST_RELATIME else 0)
        mount("none", target, "", _BIND | _REMOUNT | _READ_ONLY | kept)


def enter_private_tmp(folder: str, tmpfs_mb: int) -> None:
    """Give this process its own /tmp: a tmpfs of that size, or <folder>/tmp if it is 0.

    Also gives it shared memory of its own: /dev/shm, and System V IPC where the system allows it.
    """
    unshare(NEW_MOUNTS)
    with suppress(OSError):
        unshare(NEW_IPC)
    if os.path.isdir(SHARED_MEMORY):
        size = f"size={SHARED_MEMORY_MB}m,mode=1777"
        mount("mu", SHARED_MEMORY, "tmpfs", _NO_SETUID | _NO_DEVICES, size)
    if tmpfs_mb:
        mount("mu", TMP, "tmpfs", _NO_SETUID | _NO_DEVICES, f"size={tmpfs_mb}m,mode=1777")
        return
    os.mkdir(f"{folder}/tmp")
    os.chmod(f"{folder}/tmp", 0o1777)
    bind(f"{folder}/tmp", TMP)


def hide(folder: str, kept: Iterable[str]) -> None:
    """Cover `folder` with an empty one, in which only the directories `kept` are left, read-only.

    Call it in a mount namespace of one's own.
    """
    opened = [(path, os.open(path, os.O_PATH | os.O_DIRECTORY)) for path in kept]
    flags = _NO_SETUID | _NO_DEVICES
    mount("mu", folder, "tmpfs", flags, "size=64k,mode=755")
    for path, descriptor in opened:
        os.makedirs(path, exist_ok=True)
        bind(f"/proc/self/fd/{descriptor}", path, read_only=True)
        os.close(descriptor)  # it would lead out of here, by its parent directory
    mount("none", folder, "", _REMOUNT | _READ_ONLY | flags)


def drop_capabilities() -> None:
    """Keep root, and all programs that it starts, from undoing mounts and reaching other processes."""
    for number in range(64):
        if number not in _KEPT_CAPABILITIES:
            _libc.prctl(_DROP_FROM_BOUNDING_SET, number, 0, 0, 0)  # fails for unknown ones
    kept = sum(1 << number for number in _KEPT_CAPABILITIES)
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES_VERSION_3, 0)
    # Effective, permitted and inheritable: the lower 32 bits of each, then the upper ones.
    wanted = (ctypes.c_uint32 * 6)(kept, kept, 0, 0, 0, 0)
    _checked(_libc.capset(header, wanted), "capset")


def die_with_parent(parent: int, death_signal: signal.Signals = signal.SIGKILL) -> None:
    """Receive `death_signal` when the process `parent` ends, or at once if it already has.

    Entering a user namespace clears this, so call it afterwards.
    """
    _checked(_libc.prctl(_SET_DEATH_SIGNAL, death_signal, 0, 0, 0), "prctl")
    if os.getppid() != parent:
        os.kill(os.getpid(), death_signal)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends."""
    _checked(_libc.prctl(_SET_SUBREAPER, 1, 0, 0, 0), "prctl")


def children() -> list[int]:
    """Return this process's children, adopted ones included."""
    return [int(pid) for pid in _content("/proc/thread-self/children").split()]


def descendants() -> list[int]:
    """Return all descendants of this process, with the pids that /proc shows."""
    found: list[int] = []
    parents = ["self"]
    while parents:
        tasks = f"/proc/{parents.pop()}/task"
        try:
            for task in os.listdir(tasks):
                pids = _content(f"{tasks}/{task}/children").decode().split()
                found += map(int, pids)
                parents += pids
        except OSError:
            continue  # it has ended in the meantime
    return found


def resident_mb(pid: int) -> float:
    """Return the resident size of a process; 0 if it has ended."""
    try:
        return int(_content(f"/proc/{pid}/statm").split()[1]) * _PAGE_MB
    except (OSError, IndexError):
        return 0


def proportional_mb(pid: int) -> float:
    """Return the resident size with each shared page divided by its users; 0 if it has ended."""
    try:
        lines = _content(f"/proc/{pid}/smaps_rollup").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(b"Pss:")), 0)


def _content(path: str) -> bytes:
    """Read a small file of /proc, in half the time that open() takes."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.read(descriptor, 2**16)
    finally:
        os.close(descriptor)
