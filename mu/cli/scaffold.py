"""The files of `mu init`: a configuration to edit, and a systemd unit that starts the daemon."""

import getpass
import shutil
import sys
from pathlib import Path

import mu

CONFIG = "mu.conf"
UNIT = "mu.service"

SHIPPED = Path(mu.__file__).with_name("default.conf")
"""etc/mu.conf, as it is installed."""

_UNIT = """\
# A systemd unit for mu's daemon. As root:
#   cp {unit} /etc/systemd/system/ && systemctl daemon-reload && systemctl enable --now mu
# What it says then: journalctl -u mu -f

[Unit]
Description=mu: starts thousands of Lambda workers and drives them
After=network-online.target
Wants=network-online.target

[Service]
Type=exec
# Whose home folder "home = ~/.mu" means, and as whom the local engine runs functions: not root.
User={user}
ExecStart={command}
# A daemon that cannot start ends by a signal, which "on-failure" takes for a clean stop.
Restart=always
RestartSec=2
# The daemon ends its local engine itself, or leaves it for the jobs that the next one goes on with.
KillMode=process
TimeoutStopSec=30
# Each worker is an open file here and, with the local engine, a process.
LimitNOFILE=524288
TasksMax=infinity
# The CA's key and the token are for this user only.
UMask=0077

[Install]
WantedBy=multi-user.target
"""


class InTheWay(Exception):
    """A file is there already, or cannot be written."""


def write_files(folder: Path, force: bool) -> tuple[Path, Path]:
    """Write both files, and return them. Raises InTheWay before anything is written."""
    folder = folder.absolute()
    config, unit = folder / CONFIG, folder / UNIT
    there = [str(path) for path in (config, unit) if path.exists() or path.is_symlink()]
    if there and not force:
        they = "they are" if len(there) > 1 else "it is"
        raise InTheWay(
            f"{' and '.join(there)}: {they} there already; --force overwrites, or name another folder"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        config.write_bytes(SHIPPED.read_bytes())
        unit.write_text(_unit(config, unit), encoding="utf-8")
    except OSError as error:
        raise InTheWay(f"{error.filename or folder} cannot be written: {error.strerror}") from None
    return config, unit


def start_command(config: Path) -> list[str]:
    """Return the command that starts the daemon of this installation."""
    beside = Path(sys.executable).with_name("twistd")
    twistd = str(beside) if beside.exists() else shutil.which("twistd") or "twistd"
    return [twistd, "-n", "--pidfile=", "mu", "--config", str(config)]


def _unit(config: Path, unit: Path) -> str:
    command = " ".join(map(_systemd_word, start_command(config)))
    return _UNIT.format(unit=unit, user=user(), command=command)


def user() -> str:
    """Return who the daemon is to run as."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "mu"


def _systemd_word(word: str) -> str:
    """Return a word as ExecStart wants it: specifiers, variables and quotes taken literally."""
    word = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{word}"' if not word.isascii() or set(word) & set(" \t'\"\\;") else word
