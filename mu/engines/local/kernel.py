"""The few Linux calls that the standard library lacks, by ctypes; each raises OSError.

Used by processes that have one thread: unshare and setns act on the calling thread only.
"""

import ctypes
import os
import signal

NEW_MOUNTS = 0x00020000  # CLONE_NEWNS
NEW_USERS = 0x10000000  # CLONE_NEWUSER
NEW_PIDS = 0x20000000  # CLONE_NEWPID

_READ_ONLY, _REMOUNT, _BIND, _RECURSIVE, _PRIVATE = 1, 32, 4096, 16384, 1 << 18
_RELATIME = 1 << 21
_SAME_IN_STATVFS = 2 | 4 | 8 | 1024 | 2048  # nosuid nodev noexec noatime nodiratime
_ST_RELATIME = 4096
_SET_DEATH_SIGNAL, _SET_SUBREAPER = 1, 36

TMP = os.path.realpath("/tmp")

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = [ctypes.c_char_p] * 3 + [ctypes.c_ulong, ctypes.c_char_p]
_libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(namespaces: int) -> None:
    """Leave the namespaces named; NEW_PIDS is for the children to come, not for the caller."""
    _checked(_libc.unshare(namespaces), f"unshare({namespaces:#x})")


def next_child_gets_new_pids(own_namespace: int) -> None:
    """Let the next fork's child be pid 1 of a new namespace; may be called again and again.

    `own_namespace` is an open /proc/self/ns/pid: unshare alone works only once.
    """
    _checked(_libc.setns(own_namespace, NEW_PIDS), "setns")
    unshare(NEW_PIDS)


def map_user(uid: int, gid: int, outer_uid: int, outer_gid: int) -> None:
    """Say, right after NEW_USERS, that the caller is `uid` and `gid` inside."""
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
    """Let no mount of this namespace be seen outside."""
    mount("none", "/", "", _RECURSIVE | _PRIVATE)


def bind(source: str, target: str, *, read_only: bool = False) -> None:
    mount(source, target, "", _BIND | _RECURSIVE)
    if read_only:
        # A user namespace may not drop the flags that the mount came with, so they are named again.
        found = os.statvfs(target).f_flag
        kept = found & _SAME_IN_STATVFS | (_RELATIME if found & _ST_RELATIME else 0)
        mount("none", target, "", _BIND | _REMOUNT | _READ_ONLY | kept)


def enter_private_tmp(folder: str) -> None:
    """Show `folder` as /tmp to this process and its children, and to nobody else."""
    unshare(NEW_MOUNTS)
    bind(folder, TMP)


def die_with_parent(parent: int, death_signal: signal.Signals = signal.SIGKILL) -> None:
    """Get `death_signal` when the process `parent` ends; at once when it has ended already.

    A change of user namespace clears this, so it comes after that.
    """
    _checked(_libc.prctl(_SET_DEATH_SIGNAL, death_signal, 0, 0, 0), "prctl")
    if os.getppid() != parent:
        os.kill(os.getpid(), death_signal)


def adopt_orphans() -> None:
    """Become the parent of all descendants whose own parent ends."""
    _checked(_libc.prctl(_SET_SUBREAPER, 1, 0, 0, 0), "prctl")


def children() -> list[int]:
    """Return this process's children: those that it forked or adopted."""
    with open("/proc/thread-self/children") as file:
        return [int(pid) for pid in file.read().split()]
