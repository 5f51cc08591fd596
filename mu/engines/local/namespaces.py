"""Enters namespaces for the sandboxes, then becomes the warm parent.

The engine starts it with `python -m mu.engines.local.namespaces SETUP`. It creates a mount
namespace and a pid namespace. The warm parent is pid 1 of the latter, so when it ends, for whatever
reason, the kernel kills all sandboxes. An ordinary user needs a user namespace for both.

A checkout, a venv or a home folder under the machine's /tmp would be hidden by the private /tmp of
a sandbox. They are mounted read-only in an empty directory elsewhere, and the interpreter is
executed again from there, so that nothing is loaded from a path under /tmp.
"""

import os
import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import replace

import mu
from mu.engines.local import kernel
from mu.engines.local.sandbox_messages import SandboxSetup

CHECKOUT = os.path.dirname(os.path.dirname(os.path.realpath(mu.__file__)))
EMPTY_DIRECTORIES = [
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
    """Return this process's sys.path without the standard library and the checkout."""
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
    """Return the path at which sandboxes see `path`: the same if `place` is ""."""
    real = os.path.realpath(path)
    if not place or not _in_tmp(real):
        return path
    return os.path.join(place, os.path.relpath(real, kernel.TMP))


def _in_tmp(real: str) -> bool:
    return real.startswith(kernel.TMP + "/")


def hidden_roots(paths: Iterable[str]) -> list[str]:
    """Return the directories among `paths` that lie under /tmp, without those nested in others."""
    roots: list[str] = []
    for real in sorted({os.path.realpath(path) for path in paths}):
        if _in_tmp(real) and os.path.isdir(real) and not (roots and _inside(real, roots[-1])):
            roots.append(real)
    return roots


def _inside(path: str, root: str) -> bool:
    return path.startswith(root + "/")


def kept_in(home: str, paths: Iterable[str]) -> list[str]:
    """Return the directories among `paths` that lie in `home`, without those nested in others.

    Those in its `local`, which are the bundles, are left out: a sandbox sees its own one only.
    """
    real_home = os.path.realpath(home)
    kept: list[str] = []
    for real in sorted({os.path.realpath(path) for path in paths}):
        if (
            _inside(real, real_home)
            and not _inside(real, f"{real_home}/local")
            and os.path.isdir(real)
            and not (kept and _inside(real, kept[-1]))
        ):
            kept.append(real)
    return kept


def needed(setup: SandboxSetup) -> list[str]:
    """Return the directories that sandboxes read from."""
    interpreter = os.path.dirname(os.path.realpath(sys.executable))
    return [
        sys.base_prefix,
        sys.base_exec_prefix,
        interpreter,
        *setup.search_path,
        setup.functions,
    ]


def empty_place() -> str:
    """Return an empty directory to mount on. Raises OSError if there is none."""
    for place in EMPTY_DIRECTORIES:
        try:
            if os.path.realpath(place) == place and not os.listdir(place):
                return place
        except OSError:
            continue
    raise OSError(f"one of {' '.join(EMPTY_DIRECTORIES)} must be an empty directory, but none is")


def enter_namespaces(setup: SandboxSetup) -> SandboxSetup:
    """Move this process into new namespaces; return the completed setup."""
    ids: tuple[int, int] | None = None
    try:
        kernel.unshare(kernel.NEW_MOUNTS | kernel.NEW_PIDS)
    except PermissionError:
        ids = os.getuid(), os.getgid()
        kernel.unshare(kernel.NEW_USERS | kernel.NEW_MOUNTS | kernel.NEW_PIDS)
        kernel.map_user(0, 0, *ids)  # as root: other users lose their capabilities at exec
    kernel.make_mounts_private()
    roots = hidden_roots(needed(setup))
    place = empty_place() if roots else ""
    if roots:
        kernel.mount("mu", place, "tmpfs", options="mode=755")
    for root in roots:
        target = moved(root, place)
        os.makedirs(target, exist_ok=True)
        kernel.bind(root, target, read_only=True)
    kept = tuple(moved(path, place) for path in kept_in(setup.home, needed(setup)))
    home = moved(setup.home, place)
    return replace(setup, place=place, outer_ids=ids, home=home, kept=kept)


def why_not(setup: SandboxSetup) -> str:
    """Try everything in a child process; return why this machine does not allow it, or ""."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            entered = enter_namespaces(setup)
            if os.fork() == 0:  # as pid 1, like the warm parent
                _try_sandbox(entered, writing)
            os.wait()
        except OSError as error:
            os.write(writing, str(error).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        reason = pipe.read().decode()
    os.waitpid(child, 0)
    return reason


def _try_sandbox(setup: SandboxSetup, writing: int) -> None:
    try:
        kernel.next_child_gets_new_pids(os.open("/proc/self/ns/pid", os.O_RDONLY))
        if os.fork() == 0:
            try:
                kernel.enter_private_tmp("", 1)
                kernel.hide(setup.home, setup.kept)
            except OSError as error:
                os.write(writing, str(error).encode())
            os._exit(0)
        os.wait()
    except OSError as error:
        os.write(writing, str(error).encode())
    os._exit(0)


def become_warm_parent(setup: SandboxSetup) -> None:
    interpreter = moved(os.path.realpath(sys.executable), setup.place)
    search_path = tuple(moved(path, setup.place) for path in setup.search_path)
    setup = replace(setup, search_path=search_path)
    arguments = [interpreter, "-S", "-P", "-m", "mu.engines.local.warm_parent", setup.to_json()]
    os.execv(interpreter, arguments)


def main() -> None:
    engine = os.getppid()
    setup = SandboxSetup.from_json(sys.argv[1])
    reason = setup.why_shared or why_not(setup)
    if reason:
        kernel.die_with_parent(engine)
        become_warm_parent(replace(setup, shared_tmp=True, why_shared=reason))
    setup = enter_namespaces(setup)
    kernel.die_with_parent(engine)
    warm_parent = os.fork()
    if warm_parent == 0:
        kernel.die_with_parent(0)  # its parent is outside of the pid namespace, so shows as 0
        become_warm_parent(setup)
    os.close(0)
    os.close(1)
    _, status = os.waitpid(warm_parent, 0)
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main()
