"""A /tmp for one process and what it starts, by Linux's mount namespaces.

What the process still needs of the machine's /tmp is bound, read-only, below HIDDEN in the new one:
its name begins with a dot, so that `rm -rf /tmp/*`, which pipelines run, does not name it.
"""

import ctypes
import os
from collections.abc import Iterable

TMP = os.path.realpath("/tmp")
HIDDEN = f"{TMP}/.mu"
_NEW_MOUNTS, _NEW_USERS = 0x00020000, 0x10000000  # CLONE_NEWNS, CLONE_NEWUSER
_READ_ONLY, _REMOUNT, _BIND, _RECURSIVE, _PRIVATE = 1, 32, 4096, 16384, 1 << 18
_SAME_IN_STATVFS = 2 | 4 | 8 | 1024 | 2048  # nosuid nodev noexec noatime nodiratime
_ST_RELATIME, _RELATIME = 4096, 1 << 21

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = [ctypes.c_char_p] * 3 + [ctypes.c_ulong, ctypes.c_char_p]


def enter(folder: str, needed: Iterable[str]) -> dict[str, str]:
    """Make the empty `folder` this process's /tmp. Raises OSError where the system refuses that.

    Return where those of the `needed` folders are now that lie in the machine's /tmp, by their real
    paths. Call it in a process with one thread; ordinary users get a user namespace for it, in which
    they keep their ids.
    """
    ids = os.getuid(), os.getgid()
    try:
        _unshare(_NEW_MOUNTS)
    except PermissionError:
        _unshare(_NEW_USERS | _NEW_MOUNTS)
        _keep_ids(*ids)
    _mount("none", "/", _RECURSIVE | _PRIVATE)  # nothing that is mounted here shows outside
    places = {}
    for number, root in enumerate(_outermost(needed)):
        inside = f"{HIDDEN}/{number}".removeprefix(TMP)
        os.makedirs(folder + inside)
        _mount(root, folder + inside, _BIND | _RECURSIVE)
        _make_read_only(folder + inside)
        places[root] = TMP + inside
    _mount(folder, TMP, _BIND | _RECURSIVE)  # last: where something fails, /tmp is as it was
    return places


def moved(path: str, places: dict[str, str]) -> str:
    """Return the path at which a process that has entered sees `path`."""
    absolute = os.path.abspath(path)
    for root, place in places.items():
        for whole in (absolute, os.path.realpath(path)):
            if whole == root or whole.startswith(root + "/"):
                return place + whole[len(root) :]
    return path


def _outermost(paths: Iterable[str]) -> list[str]:
    """Return the folders among `paths` that lie in /tmp, without those that lie in others."""
    roots: list[str] = []
    for real in sorted({os.path.realpath(path) for path in paths}):
        inside = real.startswith(TMP + "/") and os.path.isdir(real)
        if inside and not (roots and real.startswith(roots[-1] + "/")):
            roots.append(real)
    return roots


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _unshare(namespaces: int) -> None:
    _checked(_libc.unshare(namespaces), f"unshare({namespaces:#x})")


def _keep_ids(uid: int, gid: int) -> None:
    for name, text in (("setgroups", "deny"), ("uid_map", uid), ("gid_map", gid)):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text if isinstance(text, str) else f"{text} {text} 1")


def _mount(source: str, target: str, flags: int) -> None:
    done = _libc.mount(os.fsencode(source), os.fsencode(target), b"", flags, b"")
    _checked(done, f"mount {source} on {target}")


def _make_read_only(place: str) -> None:
    """Remount a bind mount; in a user namespace, the flags that it has must be repeated."""
    found = os.statvfs(place).f_flag
    kept = found & _SAME_IN_STATVFS | (_RELATIME if found & _ST_RELATIME else 0)
    _mount("none", place, _BIND | _REMOUNT | _READ_ONLY | kept)
