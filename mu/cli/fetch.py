"""`mu fetch`: brings the files of a job that has ended to this machine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mu.cli.options import CliError, finds_daemon, job_argument, the_client

if TYPE_CHECKING:
    from mu.cli.store import FileStore
    from mu.client.answers import JobJson
    from mu.client.control_port import ControlPort


@click.command()
@job_argument
@click.option(
    "--to",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Where to write them.  [default: a folder with the job's id as its name]",
)
@finds_daemon()
def fetch(job: str, folder: Path | None) -> None:
    """Download the files that a job has made.

    Files that are already there and have not changed are not downloaded again; others with the
    same names are replaced.

    \b
    Examples:
      mu fetch last
      mu fetch 6065 --to ./thumbs
    """
    client = the_client()
    found = client.find_job(job)
    if not found["finished"]:
        raise CliError(f"job {found['id']} has not ended: wait for it with mu watch {found['id']}")
    bring(client, found, folder or Path(found["id"]))


def bring(client: ControlPort, job: JobJson, place: Path, alone: bool = False) -> None:
    """Download a job's files to a folder, or its one result alone to a file, and say so."""
    from mu.cli.files import shown

    store = store_of_job(client, job)
    if alone and job["state"] == "done":
        key = f"{job['params']['out_prefix']}{job['params']['result']}"
        copied = store.download({key: place.name}, place.parent, key)
    else:
        names, prefix = files_of(store, job)
        copied = store.download(names, place.parent if alone else place, prefix)
    click.echo(copied.sentence("Downloaded", f"{shown(place)}"), err=True)


def store_of_job(client: ControlPort, job: JobJson) -> FileStore:
    """Return the store of a job's files. Raises CliError if it is out of reach, or there is none."""
    from mu.cli.store import store_of

    bucket = job["params"].get("bucket")
    if not isinstance(bucket, str):
        raise CliError(
            f"job {job['id']} has no files: its pipeline {job['pipeline']} names no bucket"
        )
    # Workers of any engine may have written there; from now on, only this command reads it.
    return store_of(client.s3(bucket, "external"))


def files_of(store: FileStore, job: JobJson) -> tuple[dict[str, str], str]:
    """Return the file's name for each key that the job has made, and a prefix of all keys.

    A job's result has the `keys`, or names a `manifest` that has them, or a `folder` of the bucket.
    """
    result = job["result"] if isinstance(job["result"], dict) else {}
    manifest, keys, place = result.get("manifest"), result.get("keys"), result.get("folder")
    if keys is None and isinstance(manifest, str):
        keys = _keys_in(store, job, manifest)
    elif isinstance(place, str):
        keys = [key for key in store.listed(f"{place}/") if not key.endswith("/")]
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        ended = "" if job["state"] == "done" else f"; it is {job['state']}: {job['error']}"
        raise CliError(f"the result of job {job['id']} names no files{ended}")
    prefix = str(job["params"].get("out_prefix") or "")
    folder = prefix[: prefix.rfind("/") + 1]
    if not (folder and all(key.startswith(folder) for key in keys)):
        folder = _common_folder(keys)
    return {key: key.removeprefix(folder) for key in keys}, folder


def _common_folder(keys: Sequence[str]) -> str:
    """Return the longest folder that all keys are in, with a slash; empty: there is none."""
    shared = []
    for names in zip(*(key.split("/")[:-1] for key in keys), strict=False):
        if len(set(names)) > 1:
            break
        shared.append(f"{names[0]}/")
    return "".join(shared)


def _keys_in(store: FileStore, job: JobJson, manifest: str) -> list[str]:
    """Return the keys in a manifest of the pipeline map."""
    try:
        read = json.loads(store.read(manifest))
        made_by, rows = read["job"], read["keys"]
        keys = [row["out_key"] for row in rows if "out_key" in row and "error" not in row]
    except (ValueError, LookupError, TypeError) as error:
        raise CliError(f"{store.url(manifest)} is not a manifest: {error!r}") from None
    if made_by != job["id"]:
        raise CliError(
            f"a later job, {made_by}, has written to the same place: mu fetch {made_by} brings the"
            " files that are there now"
        )
    return keys
