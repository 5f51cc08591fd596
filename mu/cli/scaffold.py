"""`mu init`: writes a configuration to edit, and a systemd unit that starts the daemon."""

import getpass
import shlex
import shutil
import sys
from pathlib import Path

import click

import mu
from mu.cli.options import CliError

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
def init(folder: Path, owner: str | None, force: bool) -> None:
    """Write a mu.conf to edit and a systemd unit.

    mu.conf has every option at its default, with a comment on each; mu.service starts the daemon.
    Existing files are not overwritten, unless --force is given.

    \b
    Examples:
      mu init
      mu init /etc --user mu
    """
    owner = owner or user()
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
    there = [str(path) for path in (config, unit) if path.exists() or path.is_symlink()]
    if there and not force:
        raise CliError(
            f"will not overwrite {' and '.join(there)}: use --force, or choose another folder"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        config.write_bytes(SHIPPED.read_bytes())
        unit.write_text(_unit(config, unit, owner), encoding="utf-8")
    except OSError as error:
        raise CliError(f"cannot write {error.filename or folder}: {error.strerror}") from None
    return config, unit


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
