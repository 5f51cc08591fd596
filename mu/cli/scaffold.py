"""`mu init`: writes a configuration to edit, a systemd unit that starts the daemon, and the same for HAProxy."""

import getpass
import os
import shlex
import shutil
import sys
from pathlib import Path

import click

import mu
from mu.cli import haproxy
from mu.cli.options import CliError
from mu.config import ConfigError, read_config

CONFIG = "mu.conf"
UNIT = "mu.service"
ENVIRONMENT = "mu.env"
"""The file beside mu.conf from which systemd takes more variables, if it exists."""

SHIPPED = Path(mu.__file__).with_name("default.conf")
"""The installed copy of etc/mu.conf."""

_UNIT = """\
# A systemd unit for mu's daemon. As root:
#   cp {unit} /etc/systemd/system/ && systemctl daemon-reload && systemctl enable --now mu
# Its log: journalctl -u mu -f

[Unit]
Description=mu, which starts and drives thousands of Lambda workers
After=network-online.target
Wants=network-online.target

[Service]
Type=exec
# "home = ~/.mu" is in this user's home folder. The local engine runs functions as this user, so do
# not use root.
User={user}
# For variables such as AWS_ACCESS_KEY_ID=... and AWS_SECRET_ACCESS_KEY=..., one a line, if this user has no
# ~/.aws. Give the file mode 0600.
EnvironmentFile=-{environment}
ExecStart={command}
ExecReload=/bin/kill -HUP $MAINPID
# A daemon that fails to start ends with a signal, which "on-failure" treats as a clean stop.
Restart=always
RestartSec=2
# The daemon stops its local engine itself, unless running jobs need it after a restart.
KillMode=process
TimeoutStopSec=30
# Each worker needs an open file and, with the local engine, a process.
LimitNOFILE=524288
TasksMax=infinity
# Only this user may read the CA's key and the token.
UMask=0077

[Install]
WantedBy=multi-user.target
"""


@click.command()
@click.argument("folder", metavar="[DIR]", default=".", type=click.Path(path_type=Path))
@click.option("--user", "owner", metavar="NAME", help="User who runs the daemon; default: you.")
@click.option("--force", is_flag=True, help="Overwrite existing files.")
@click.option(
    "--haproxy",
    "in_front",
    is_flag=True,
    help="Write HAProxy's configuration and its unit, for the mu.conf that is there.",
)
def init(folder: Path, owner: str | None, force: bool, in_front: bool) -> None:
    """Write a mu.conf to edit and a systemd unit.

    mu.conf has every option at its default, with a comment on each; mu.service starts the daemon.
    Existing files are not overwritten, unless --force is given.

    With --haproxy, mu.conf is read, and must say [worker] haproxy = yes. Then HAProxy accepts the
    workers on several cores, and hands them over to the daemon (docs/service.md).

    \b
    Examples:
      mu init
      mu init /etc --user mu
      mu init /etc --user mu --haproxy
    """
    owner = owner or user()
    if in_front:
        _init_haproxy(folder.absolute(), force, owner)
        return
    config, unit = write_files(folder, force, owner)
    root = " Replace User=root there by another user." if owner == "root" else ""
    start, mine = shlex.join(start_command(config)), f"mu --config {shlex.quote(str(config))}"
    click.echo(
        f"Wrote {config} and {unit}.\n\n"
        "Next steps:\n"
        "  1. Edit mu.conf. For workers on AWS, set public_host to this machine's address.\n"
        "  2. Start the daemon:\n"
        f"       {start}\n"
        f"     or let systemd start it: see the first lines of {unit.name}.{root}\n"
        "  3. Create a function with nothing but the worker, then run a job:\n"
        f"       {mine} deploy --bare --name hello\n"
        f"       {mine} launch hello -n 5 --watch"
    )


def write_files(folder: Path, force: bool, owner: str) -> tuple[Path, Path]:
    """Write both files, and return them. Raises CliError before anything is written."""
    folder = folder.absolute()
    config, unit = folder / CONFIG, folder / UNIT
    shipped = SHIPPED.read_text(encoding="utf-8")
    _write({config: shipped, unit: _unit(config, unit, owner)}, force)
    return config, unit


def _write(texts: dict[Path, str], force: bool) -> None:
    """Write files and their folder. Raises CliError, before anything is written if a file is there."""
    there = [str(path) for path in texts if path.exists() or path.is_symlink()]
    if there and not force:
        raise CliError(
            f"will not overwrite {' and '.join(there)}: use --force, or choose another folder"
        )
    for path, text in texts.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            why = f"cannot write {error.filename or path}: {error.strerror}"
            raise CliError(why) from None


def _init_haproxy(folder: Path, force: bool, owner: str) -> None:
    """Write what HAProxy needs beside mu.conf. Raises CliError."""
    source, path, unit = folder / CONFIG, folder / haproxy.CONFIG, folder / haproxy.UNIT
    if not source.exists():
        raise CliError(f"there is no {source}: write one with mu init {shlex.quote(str(folder))}")
    try:
        config = read_config(source, owner=owner)
    except ConfigError as error:
        raise CliError(str(error)) from None
    if not config.worker.haproxy:
        raise CliError(f"{source} must say haproxy = yes in [worker], got no")
    program = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    command = [program or "/usr/sbin/haproxy", "-Ws", "-f", str(path)]
    started = " ".join(map(_systemd_word, command))
    _write({path: haproxy.configuration(config), unit: haproxy.unit(unit, owner, started)}, force)
    there = "" if program else "\nHAProxy is not installed here (Debian: haproxy)."
    click.echo(
        f"Wrote {path} and {unit}.{there}\n\n"
        "Next steps:\n"
        "  1. Start the daemon, or start it again. It writes HAProxy's certificate to its home.\n"
        f"  2. Start HAProxy, as user {owner}, once for each core that TLS may use:\n"
        f"       {shlex.join([command[0], '-D', '-f', str(path)])}\n"
        f"     or let systemd start it: see the first lines of {unit.name}.\n"
        f"  3. Check both: mu --config {shlex.quote(str(source))} doctor"
    )


def start_command(config: Path) -> list[str]:
    """Return the command that starts the daemon of this installation."""
    beside = Path(sys.executable).with_name("twistd")
    twistd = str(beside) if beside.exists() else shutil.which("twistd") or "twistd"
    return [twistd, "-n", "--pidfile=", "mu", "--config", str(config)]


def _unit(config: Path, unit: Path, owner: str) -> str:
    command = " ".join(map(_systemd_word, start_command(config)))
    environment = str(config.with_name(ENVIRONMENT)).replace("%", "%%")
    return _UNIT.format(unit=unit, user=owner, command=command, environment=environment)


def user() -> str:
    """Return the name of the user who will run the daemon."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "mu"


def _systemd_word(word: str) -> str:
    """Return a word escaped for ExecStart, so that %, $ and quotes are taken literally."""
    word = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{word}"' if not word.isascii() or set(word) & set(" \t'\"\\;") else word
