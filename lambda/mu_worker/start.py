"""Starts a worker for an event, and decides what is imported when.

The hello is sent first. Modules that only commands need are imported afterwards, because every
worker pays for the time before its hello.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import monotonic

from mu_worker.connection import Connection, DialError, dial
from mu_worker.event import PROBE, WorkerEvent, read_event
from mu_worker.init import function_memory_mb
from mu_worker.session import WorkerSession
from mu_worker.tls import client_context


def start(
    keys: Mapping[str, object], root: str, init_s: float | None = None, request: str = ""
) -> dict[str, object]:
    """Run a worker for the event, with the bundle in `root`; return how it ended.

    Commands find the bundle's programs by their names: its folder is the first in PATH.

    `init_s` is the duration of the sandbox's INIT, if this is its first event and that is known;
    `request` is the id of its invocation.
    Raises ValueError for an invalid event. Other failures (no coordinator, a refused certificate,
    a lost connection) are returned, not raised: Lambda would run a failed function again.
    """
    begun = monotonic()
    event = read_event(keys)
    path = os.pathsep.join([root, os.environ.get("PATH", os.defpath)])
    with _environment((("MU_PYTHON", sys.executable), ("PATH", path), *event.env)):
        folder = _new_folder()
        keep = not event.rm_tmpdir
        try:
            if event.mode == 0:
                return _run_packaged(event, folder, root)
            if event.mode == PROBE:
                from mu_worker.probe import probe

                return probe(event, folder)
            known: dict[str, float | str] = {}
            if init_s is not None:
                known["init_s"] = round(init_s, 3)
            if request:
                known["request"] = request
            ending, keep = _serve(event, folder, root, begun, known)
            return ending
        finally:
            if not keep:
                _remove(folder)


def _serve(
    event: WorkerEvent,
    folder: str,
    root: str,
    begun: float,
    known: Mapping[str, float | str],
) -> tuple[dict[str, object], bool]:
    """Return why it ended, and whether to keep the folder. `known`: what to tell of its start."""

    def use_so_far() -> dict[str, float | str]:
        told = {**known, "hello_s": round(monotonic() - begun, 3)}
        memory_mb = function_memory_mb()
        return told if memory_mb is None else told | {"memory_mb": memory_mb}

    context = client_context(event, folder)
    session = WorkerSession(
        os.urandom(16).hex(), event.launch, use_so_far if event.usage_ext else None
    )
    connection = None
    try:
        connection = Connection(dial(event.addr, event.port, context, event.server_name))
    except DialError as error:
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


def _run_packaged(event: WorkerEvent, folder: str, root: str) -> dict[str, object]:
    """Mode 0: run the packaged command once, without a coordinator."""
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
    """Return the packaged command; empty: there is none. Raises ValueError for an invalid file."""
    import json

    path = os.path.join(root, "mu_command.json")
    try:
        with open(path, encoding="utf-8") as file:
            command = json.load(file)["command"]
    except FileNotFoundError:
        return ""
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f'{path} must contain an object like {{"command": "..."}}') from error
    if not isinstance(command, str):
        raise ValueError(f"{path}: the command must be a string, got {command!r}")
    return command


def _new_folder() -> str:
    """Create the worker's own folder (without tempfile, whose import takes 6 ms)."""
    folder = f"/tmp/mu_{os.urandom(8).hex()}"
    os.mkdir(folder, 0o700)
    return folder


def _remove(folder: str) -> None:
    from shutil import rmtree

    rmtree(folder, ignore_errors=True)


@contextmanager
def _environment(extra: tuple[tuple[str, str], ...]) -> Iterator[None]:
    """Add variables to the environment, for commands and boto3, and remove them afterwards.

    A warm sandbox runs the next event in the same process.
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
