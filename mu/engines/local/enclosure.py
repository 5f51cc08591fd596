"""Prepares the ground that the warm parent stands on, then becomes it.

`python -m mu.engines.local.enclosure GROUND`, started by the engine. A namespace of its own for
mounts and one for pids: the warm parent is pid 1 of the latter, so that when it ends, however it
ends, the kernel ends all sandboxes with it. An ordinary user gets both by a user namespace.

What the sandboxes need from the machine's /tmp (this happens: a checkout, a venv or a home folder
in there) would vanish behind their private /tmp. It is shown, read-only, in an otherwise empty
directory elsewhere, and the interpreter is executed anew from there, so that nothing is ever
loaded from a path under /tmp.
"""

import os
import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import replace

import mu
from mu.engines.local import kernel
from mu.engines.local.order import Ground

CHECKOUT = os.path.dirname(os.path.dirname(os.path.realpath(mu.__file__)))
PLACES = [
    "/srv",
    "/media",
    "/mnt",
    "/var/opt",
    "/usr/local/src",
    "/usr/local/games",
    "/opt",
    "/usr/games",
    "/var/local",
    "/usr/local/etc",
    "/boot",
    "/home",
]


def own_search_path() -> tuple[str, ...]:
    """Return where this process imports from, without the standard library and the checkout."""
    standard = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
    site = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    return tuple(
        path
        for path in sys.path
        if os.path.isdir(path)
        and path not in standard
        and (path != CHECKOUT or path in site)
        and os.path.basename(path) != "lib-dynload"
    )


def moved(path: str, place: str) -> str:
    """Return where `path` is seen from inside a sandbox; `place` "": /tmp is not private."""
    real = os.path.realpath(path)
    if not place or not _in_tmp(real):
        return path
    return os.path.join(place, os.path.relpath(real, kernel.TMP))


def _in_tmp(real: str) -> bool:
    return real.startswith(kernel.TMP + "/")


def hidden_roots(paths: Iterable[str]) -> list[str]:
    """Return the directories among `paths` that lie under /tmp, without those inside another."""
    roots: list[str] = []
    for real in sorted({os.path.realpath(path) for path in paths}):
        if _in_tmp(real) and os.path.isdir(real) and not (roots and _inside(real, roots[-1])):
            roots.append(real)
    return roots


def _inside(path: str, root: str) -> bool:
    return path.startswith(root + "/")


def needed(ground: Ground) -> list[str]:
    interpreter = os.path.dirname(os.path.realpath(sys.executable))
    return [
        sys.base_prefix,
        sys.base_exec_prefix,
        interpreter,
        *ground.search_path,
        ground.functions,
    ]


def empty_place() -> str:
    for place in PLACES:
        try:
            if os.path.realpath(place) == place and not os.listdir(place):
                return place
        except OSError:
            continue
    raise OSError(f"none of {' '.join(PLACES)} is an empty directory, and one is needed")


def enclose(ground: Ground) -> Ground:
    """Move this process into namespaces of its own; return the ground as it is then."""
    ids: tuple[int, int] | None = None
    try:
        kernel.unshare(kernel.NEW_MOUNTS | kernel.NEW_PIDS)
    except PermissionError:
        ids = os.getuid(), os.getgid()
        kernel.unshare(kernel.NEW_USERS | kernel.NEW_MOUNTS | kernel.NEW_PIDS)
        kernel.map_user(0, 0, *ids)  # as root, since others lose their rights at exec
    kernel.make_mounts_private()
    roots = hidden_roots(needed(ground))
    place = empty_place() if roots else ""
    if roots:
        kernel.mount("mu", place, "tmpfs", options="mode=755")
    for root in roots:
        target = moved(root, place)
        os.makedirs(target, exist_ok=True)
        kernel.bind(root, target, read_only=True)
    return replace(ground, place=place, outer_ids=ids)


def why_not(ground: Ground) -> str:
    """Try all of it in a child; return why this machine refuses it, or nothing."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            enclose(ground)
            if os.fork() == 0:  # as pid 1, like the warm parent
                _try_sandbox(writing)
            os.wait()
        except OSError as error:
            os.write(writing, str(error).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as told:
        reason = told.read().decode()
    os.waitpid(child, 0)
    return reason


def _try_sandbox(writing: int) -> None:
    try:
        kernel.next_child_gets_new_pids(os.open("/proc/self/ns/pid", os.O_RDONLY))
        if os.fork() == 0:
            try:
                kernel.enter_private_tmp("", 1)
            except OSError as error:
                os.write(writing, str(error).encode())
            os._exit(0)
        os.wait()
    except OSError as error:
        os.write(writing, str(error).encode())
    os._exit(0)


def become_warm_parent(ground: Ground) -> None:
    interpreter = moved(os.path.realpath(sys.executable), ground.place)
    search_path = tuple(moved(path, ground.place) for path in ground.search_path)
    ground = replace(ground, search_path=search_path)
    arguments = [interpreter, "-S", "-P", "-m", "mu.engines.local.warm_parent", ground.to_json()]
    os.execv(interpreter, arguments)


def main() -> None:
    engine = os.getppid()
    ground = Ground.from_json(sys.argv[1])
    reason = ground.why_shared or why_not(ground)
    if reason:
        kernel.die_with_parent(engine)
        become_warm_parent(replace(ground, shared_tmp=True, why_shared=reason))
    ground = enclose(ground)
    kernel.die_with_parent(engine)
    warm_parent = os.fork()
    if warm_parent == 0:
        kernel.die_with_parent(0)  # the parent is outside the pid namespace: seen as 0
        become_warm_parent(ground)
    os.close(0)
    os.close(1)
    _, status = os.waitpid(warm_parent, 0)
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main()
