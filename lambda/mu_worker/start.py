"""From the event to the worker at work, and the order in which things are imported.

The hello goes out first: what only commands need is imported while it travels, because the time
before it is paid for by every worker.
"""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from mu_worker.connection import Connection, Unreachable, dial
from mu_worker.event import Event, read_event
from mu_worker.session import Session
from mu_worker.tls import client_context


def start(keys: Mapping[str, object], root: str) -> dict[str, object]:
    """Do what the event says with the bundle in `root`; return how it ended.

    Raises ValueError for an event that cannot be meant. What the world does to a worker (no
    coordinator, a refused certificate, a lost connection) is an ending, no exception: Lambda
    would start a failed function again.
    """
    event = read_event(keys)
    with _environment((("MU_PYTHON", sys.executable), *event.env)):
        folder = _new_folder()
        keep = not event.rm_tmpdir
        try:
            if event.mode == 0:
                return _run_packaged(event, folder, root)
            ending, keep = _obey(event, folder, root)
            return ending
        finally:
            if not keep:
                _remove(folder)


def _obey(event: Event, folder: str, root: str) -> tuple[dict[str, object], bool]:
    """Return how it ended, and whether the folder is to be kept."""
    context = client_context(event, folder)
    session = Session(os.urandom(16).hex(), event.launch)
    connection = None
    try:
        connection = Connection(dial(event.addr, event.port, context, event.server_name))
    except Unreachable as error:
        print(f"mu worker: {error}", file=sys.stderr, flush=True)
        if not event.reconnect_s:
            return {"status": "failed", "reason": str(error)}, not event.rm_tmpdir
    else:
        connection.send(session.greet())
        connection.flush()

    from mu_worker.loop import Worker

    worker = Worker(event, session, connection, context, folder, root, _packaged_command(root))
    ending = worker.work()
    return ending, not worker.variables.number("rm_tmpdir")


def _run_packaged(event: Event, folder: str, root: str) -> dict[str, object]:
    """Mode 0: no coordinator, the packaged command once."""
    from mu_worker.programs import run_once
    from mu_worker.template import command_string, fill_tmpdir
    from mu_worker.variables import Variables

    if not (packaged := _packaged_command(root)):
        return {"status": "failed", "reason": "the bundle has no packaged command to run"}
    variables = Variables(event, folder)
    command = fill_tmpdir(command_string(packaged, variables, event), variables)
    try:
        status, output = run_once(command, root, event.output_limit)
    except (OSError, ValueError) as error:
        return {"status": "failed", "reason": f"could not start {command[:1000]}: {error}"}
    text = output.decode("utf-8", "replace")
    return {"status": "done", "retval": status, "output": text, "command": command}


def _packaged_command(root: str) -> str:
    """Return the bundle's own command; empty: it has none. Raises ValueError for a broken file."""
    path = os.path.join(root, "mu_command.json")
    try:
        with open(path, encoding="utf-8") as file:
            command = json.load(file)["command"]
    except FileNotFoundError:
        return ""
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f'{path}: an object like {{"command": "..."}} is expected') from error
    if not isinstance(command, str):
        raise ValueError(f"{path}: the command must be a string; {command!r} came")
    return command


def _new_folder() -> str:
    """Make the worker's own folder (tempfile would do the same, and cost 6 ms of import)."""
    folder = f"/tmp/mu_{os.urandom(8).hex()}"
    os.mkdir(folder, 0o700)
    return folder


def _remove(folder: str) -> None:
    from shutil import rmtree

    rmtree(folder, ignore_errors=True)


@contextmanager
def _environment(extra: tuple[tuple[str, str], ...]) -> Iterator[None]:
    """Add variables to the environment, for commands and boto3, and take them out again.

    A warm sandbox runs the next event in this same process.
    """
    before = {name: os.environ.get(name) for name, _ in extra}
    os.environ.update(extra)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
