"""`mu keys local`: the key of the local engine, for other clients of the user."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mu.cli.options import CliError, finds_daemon, local_engine_off, the_home
from mu.client.local import local_key

if TYPE_CHECKING:
    from mu.client.address import Home
    from mu.engines.signing import Credentials


@click.command()
@click.option(
    "--profile", metavar="NAME", help="Write a profile with this name, and print nothing secret."
)
@click.option(
    "--file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Where to write it; by default $AWS_SHARED_CREDENTIALS_FILE or ~/.aws/credentials.",
)
@finds_daemon()
def local(profile: str | None, file: Path | None) -> None:
    """Print the local engine's key and address for AWS clients.

    The local engine accepts only requests that are signed with the key of its home. Prints
    variables for a shell, or with --profile writes a profile that AWS clients find by its name.

    \b
    Examples:
      eval "$(mu keys local)"; aws lambda list-functions
      mu keys local --profile mu; aws lambda list-functions --profile mu
    """
    if file is not None and profile is None:
        raise CliError("--file needs --profile NAME")
    home = the_home()
    off = local_engine_off(home)
    if off is not None:
        raise CliError(off)
    key, url = local_key(home), _url(home)
    if profile is None:
        _print_exports(home, key, url)
        return
    if not profile.strip() or not profile.isprintable() or set("[]#;") & set(profile):
        raise CliError(f"--profile must be a name without [ ] # and ;, got {profile!r}")
    path = (
        file
        or Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials").expanduser()
    )
    lines = [
        f"aws_access_key_id = {key.access_key}",
        f"aws_secret_access_key = {key.secret_key}",
        f"region = {home.config.launch.region}",
        f"endpoint_url = {url}",
    ]
    try:
        write_profile(path, profile.strip(), lines)
    except OSError as error:
        raise CliError(f"cannot write {error.filename or path}: {error.strerror}") from None
    except ValueError as error:
        raise CliError(str(error)) from None
    click.echo(f"{path}: profile {profile.strip()}, for the local engine at {url}")


def _url(home: Home) -> str:
    from mu.client.address import find_port

    return f"http://127.0.0.1:{find_port(home, 'local')}"


def _print_exports(home: Home, key: Credentials, url: str) -> None:
    click.echo(
        f"export AWS_ACCESS_KEY_ID={key.access_key}\n"
        f"export AWS_SECRET_ACCESS_KEY={key.secret_key}\n"
        "unset AWS_SESSION_TOKEN\n"
        f"export AWS_DEFAULT_REGION={home.config.launch.region}\n"
        f"export AWS_ENDPOINT_URL_LAMBDA={url}"
    )


def write_profile(path: Path, name: str, lines: list[str]) -> None:
    """Put the section [name] into a credentials file, and keep everything else in it as it is.

    Raises OSError, and ValueError if the file has this section with a key that is not a local
    engine's.
    """
    from mu.engines.local.key import PREFIX
    from mu.home import write_private

    path = path.resolve()  # a link stays a link
    try:
        found = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        found = []
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: {error}") from None
    begin = next((at for at, line in enumerate(found) if line.strip() == f"[{name}]"), None)
    if begin is None:
        kept, after = [*found, ""] if found and found[-1].strip() else found, []
    else:
        sections = (at for at in range(begin + 1, len(found)) if found[at].startswith("["))
        end = next(sections, len(found))
        values = [line.partition("=")[2].strip() for line in found[begin + 1 : end] if "=" in line]
        if not any(value.startswith(PREFIX) for value in values):
            raise ValueError(
                f"{path} has a profile {name} that is not a local engine's: choose another name"
            )
        kept, after = found[:begin], ["", *found[end:]] if end < len(found) else []
    text = "\n".join([*kept, f"[{name}]", *lines, *after]) + "\n"
    write_private(path, text)
