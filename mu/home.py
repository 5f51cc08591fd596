"""The home folder and the ports of a daemon: its lock, its token, its listening sockets."""

import fcntl
import os
import resource
import secrets
import socket
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from mu.config import ConfigError

BACKLOG = 4096
"""How many connections to a port may wait to be accepted."""
WORKER_SOCKET = "worker.sock"
"""The UNIX socket in a home at which HAProxy hands over workers."""
HAPROXY_PEM = "haproxy.pem"
"""The file in a home with HAProxy's certificate and its key."""


class HomeInUse(OSError):
    """Another daemon runs in this home."""


def lock(home: Path) -> TextIO:
    """Lock a home folder for this process, as long as the returned file is open.

    Raises HomeInUse if another process holds the lock, and OSError.
    """
    held = (home / "lock").open("a")
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        held.close()
        raise HomeInUse("another daemon runs there; give this one a different home") from None
    return held


class Presence:
    """Notices that files or folders were removed, moved away or replaced, by their inodes."""

    def __init__(self, *paths: Path) -> None:
        """All of them must exist. Raises OSError."""
        self._known = {path: _identity(path) for path in paths}

    def gone(self) -> Path | None:
        """Return the first path that is no longer what it was, or None."""
        for path, known in self._known.items():
            try:
                if _identity(path) != known:
                    return path
            except (FileNotFoundError, NotADirectoryError):
                return path
            except OSError:  # such as a network file system that does not answer for a while
                continue
        return None


def _identity(path: Path) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino


@dataclass(frozen=True, slots=True)
class Tokens:
    """What clients of the control port authenticate with."""

    control: str
    """Allows everything."""
    read: str
    """Allows GET requests only."""


def read_tokens(home: Path) -> Tokens:
    """Return the tokens of a home; create those that are missing. Raises OSError and ValueError."""
    tokens = Tokens(read_token(home / "token"), read_token(home / "read-token"))
    if tokens.control == tokens.read:
        raise ValueError(
            f"{home}/token and {home}/read-token are identical, so read-only clients would have full access:"
            " delete one of them; mu then creates a new one"
        )
    return tokens


def read_session_key(home: Path) -> str:
    """Return the key that signs the sessions of browsers; create it at the first start.

    Raises OSError and ValueError.
    """
    return read_token(home / "session-key")


def read_token(path: Path) -> str:
    """Return the token in a file; create it at the first start. Raises OSError and ValueError.

    Editors and shells end a file with a line break, and some begin it with a byte order mark.
    """
    if not path.exists():
        write_private(path, secrets.token_urlsafe(32))
    token = path.read_text(encoding="utf-8-sig", errors="replace").strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        what = "is empty" if not token else "is not one word of ASCII letters and digits"
        raise ValueError(f"the token in {path} {what}: delete the file; mu then creates a new one")
    return token


def close_to_others(path: Path) -> str | None:
    """Make a secret file private if other users have permissions; return a sentence about that."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        if not mode & 0o077:
            return None
        path.chmod(0o600)
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"other users may read {path}, and its mode cannot be changed: {error.strerror}"
    return (
        f"other users could use {path} (its mode was {mode:o}, and is 600 now): if one of them may"
        " have read it, replace it, as docs/security.md says"
    )


def write_private(path: Path, text: str) -> None:
    """Write a file atomically, readable by its owner only."""
    unfinished = path.with_name(path.name + ".new")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    unfinished.replace(path)


def open_port(section: str, host: str, port: int, last: int = 0) -> socket.socket:
    """Return a listening socket, opened before the daemon detaches, so that errors are shown.

    Port 0 means `last` again if that is not 0 and still free, otherwise any free port. Raises
    ConfigError, which names the section of mu.conf.
    """
    if port == 0 and last:
        try:
            return open_port(section, host, last)
        except ConfigError:
            pass
    opened = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        opened = socket.socket(family, kind, protocol)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if host == "::":  # all addresses, whatever the system's default is
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        opened.bind(address)
        opened.listen(BACKLOG)
        opened.setblocking(False)
    except (OSError, UnicodeError) as error:  # UnicodeError: a name that DNS cannot have
        if opened is not None:
            opened.close()
        why = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"[{section}] host = {host}, port = {port}: cannot listen there: {why};"
            " give another port, or 0 for a free one"
        ) from None
    return opened


def try_socket(path: Path) -> None:
    """Check that a UNIX socket can be opened, and remove one that an earlier daemon has left.

    Raises ConfigError.
    """
    try:
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind(str(path))
        path.unlink()
    except OSError as error:
        why = error.strerror or str(error)  # strerror: not if the path is too long
        raise ConfigError(f"[worker] haproxy = yes: cannot open the socket {path}: {why}") from None


def allow_many_files() -> None:
    """Raise the limit of open files as far as the system allows: each worker needs one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = 2**20 if most == resource.RLIM_INFINITY else min(most, 2**20)
    resource.setrlimit(resource.RLIMIT_NOFILE, (enough, most))
