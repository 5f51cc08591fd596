"""The command that opens the page in a browser."""

from __future__ import annotations

import html
import os
import sys
import tempfile
from pathlib import Path

import click

from mu.cli.completion import complete_job
from mu.cli.options import CliError, finds_daemon, the_client


@click.command("open")
@click.argument("job", metavar="[JOB]", required=False, shell_complete=complete_job)
@click.option("--read-only", is_flag=True, help="Allow the browser to look, and nothing else.")
@click.option("--print", "only_print", is_flag=True, help="Print the link, but open no browser.")
@click.option(
    "--at",
    metavar="URL",
    help="The page's URL for the browser, if a proxy or a tunnel leads to it.",
)
@finds_daemon()
def open_page(job: str | None, read_only: bool, only_print: bool, at: str | None) -> None:
    """Open the page: jobs, their actors and logs, and a form to launch more.

    Prints a link, and opens it if there is a desktop. The link works once, within a minute. The browser
    then stays logged in until its tab is closed.

    \b
    Examples:
      mu open
      mu open last --read-only
      mu open --print --at http://localhost:8080
    """
    client = the_client()
    place = f"&to=/jobs/{client.find_job(job)['id']}" if job else ""
    link = f"{(at or client.url).rstrip('/')}/#code={client.new_code(read_only)}{place}"
    click.echo(link)
    if not only_print and _has_desktop():
        click.launch(_private_file(link))


def _has_desktop() -> bool:
    return sys.platform == "darwin" or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))


def _private_file(link: str) -> str:
    """Return the path of a file that leads to the link: others can see a browser's command line.

    It is always the same file, since nobody knows when the browser has read it.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mu"
    target = html.escape(f"0;url={link}", quote=True)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=folder, delete=False, encoding="utf-8") as file:
            file.write(f'<meta http-equiv="refresh" content="{target}">\n')
        path = folder / "open.html"
        os.replace(file.name, path)
    except OSError as error:
        raise CliError(
            f"cannot write to {folder}: {error.strerror}. Open the link above in a browser yourself"
        ) from None
    return str(path)
