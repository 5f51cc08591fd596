"""Executes the commands. A failed command replies why it failed, and the worker continues."""

import os
import re
import socket
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import inf
from resource import struct_rusage
from signal import SIGKILL, SIGTERM
from time import monotonic, sleep, thread_time

from mu.messages import decode, encode, runs_encoder
from mu_worker.connection import DialError
from mu_worker.event import WorkerEvent
from mu_worker.neighbour import Neighbour
from mu_worker.programs import Program, Programs
from mu_worker.session import NumberedCommand
from mu_worker.statefiles import mark
from mu_worker.store import ObjectStore, StoreError
from mu_worker.template import (
    awaited_state,
    command_string,
    fill_tmpdir,
    names_shared_tmp,
)
from mu_worker.threads import Threads
from mu_worker.usage import UsageMeter
from mu_worker.variables import Variables

_INTEGER = r"[+-]?[0-9]{1,18}"


class CommandError(Exception):
    """A command failed; the message becomes its FAIL(...)."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What the commands need."""

    event: WorkerEvent
    variables: Variables
    packaged: str
    """The bundle's packaged command; empty: it has none."""
    root: str
    """The bundle's folder, to which file names are relative."""
    programs: Programs
    threads: Threads
    store: ObjectStore
    neighbour: Neighbour
    meter: UsageMeter
    dial: Callable[[str, int], socket.socket]
    shared_tmp: bool = False
    """Whether other workers use the same /tmp, so that no command may name it."""
    has_runner: bool = False
    """Whether mu_worker.runner started this worker, and not Lambda."""


KILLED = (-SIGKILL, 128 + SIGKILL)
"""The exit statuses of a killed program, and of a shell whose last program was killed."""
TERMINATED = (-SIGTERM, 128 + SIGTERM)
"""The same for SIGTERM."""
LAST_S = 0.5
"""How long a worker that a runner started waits, in seconds, to see whether SIGTERM is for it, too: a
cluster that takes its task away ends all processes, and the program is not to blame."""
LOOK_S = 0.1
"""How often to look for a state that a command may have put there, in seconds."""
ANY_PROGRAM = 2
"""The value of send_statefile that sends the state of every program, not only of the encoder."""


@dataclass(slots=True)
class RunningCommand:
    """A run command whose program has not ended."""

    number: int
    command: str
    iteration: int
    awaits: int | None
    """The number of the neighbour's state that it waits for; None: it waits for none."""
    background: bool
    encoder: bool
    before: tuple[int, int, int] | None
    """The statefiles.mark of final.state at its start."""
    program: Program | None = None
    woken: bool = False
    """Whether it was told that the state is there."""
    spoilt: str = ""
    """Why the state that it waits for will not arrive; empty: it still may."""


class CommandRunner:
    """Executes commands. It is `busy` until a blocking one is answered."""

    def __init__(
        self,
        tools: Tools,
        reply: Callable[[int, str, dict[str, float]], None],
        print_live: Callable[[int, bytes], None],
    ) -> None:
        self._tools = tools
        self._variables = tools.variables
        self._answer = reply
        self._print_live = print_live
        self._due = inf
        self._blocking = 0  # the number of the command that later ones wait for; 0: none
        self._runs: dict[int, RunningCommand] = {}
        self._spoilt: dict[int, str] = {}  # the neighbour's states that could not be kept, and why
        self._table: dict[str, Callable[[int, str], None]] = {
            "set": self._set,
            "seti": self._seti,
            "get": self._get,
            "geti": self._geti,
            "dump_vals": self._dump_vals,
            "echo": self._echo,
            "run": self._run,
            "retrieve": self._retrieve,
            "upload": self._upload,
            "connect": self._connect,
            "close_connect": self._close_connect,
            "get_blob": self._get_blob,
            "put_blob": self._put_blob,
        }

    @property
    def busy(self) -> bool:
        return self._blocking != 0

    def perform(self, numbered: NumberedCommand) -> None:
        """Execute a command. A slow one has only been started when this returns."""
        command = numbered.command
        action = self._table.get(command.name) if ":" in command.text else None
        if action is None:
            self._reply(numbered.number, f"FAIL(no such command '{command.text}')")
        else:
            self._attempt(numbered.number, partial(action, numbered.number, command.argument))

    def _reply(self, number: int, text: str) -> None:
        self._answer(number, text, {})

    def _attempt(self, number: int, action: Callable[[], None]) -> None:
        """Turn an error in a command into its FAIL; the worker must not fail."""
        try:
            action()
        except CommandError as error:
            self._finish(number, f"FAIL({error})")
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            self._finish(number, f"FAIL({_described(error)})")

    # ------------------------------------------------ variables

    def _set(self, number: int, argument: str) -> None:
        name, value = self._assignment("set", argument)
        self._variables.set(name, value)
        self._reply(number, f"OK:SET({name})")

    def _seti(self, number: int, argument: str) -> None:
        name, value = self._assignment("seti", argument)
        if not re.fullmatch(_INTEGER, value):
            raise CommandError(f"could not interpret {value} as an integer")
        self._variables.set(name, int(value))
        self._reply(number, f"OK:SETI({name})")

    def _get(self, number: int, name: str) -> None:
        self._reply(number, f"OK:GET({self._value(name)})")

    def _geti(self, number: int, name: str) -> None:
        self._reply(number, f"INFO:{name}:{self._value(name)}")
        self._reply(number, f"OK:GETI({name})")

    def _dump_vals(self, number: int, _: str) -> None:
        self._reply(number, f"OK:DUMP_VALS:{self._variables.dump()}")

    def _echo(self, number: int, text: str) -> None:
        self._reply(number, f"OK:ECHO({text})")

    @staticmethod
    def _assignment(command: str, argument: str) -> tuple[str, str]:
        name, colon, value = argument.partition(":")
        if not name or not colon:
            raise CommandError(
                f"invalid syntax for {command.upper()}: expected {command}:NAME:VALUE, got"
                f" {command}:{argument}"
            )
        return name, value

    def _value(self, name: str) -> str:
        value = self._variables.text(name)
        if value is None:
            raise CommandError(f"no such variable {name}")
        return value

    # ------------------------------------------------ programs

    def _run(self, number: int, argument: str) -> None:
        tools = self._tools
        if not (base := argument or tools.packaged):
            raise CommandError(
                "there is nothing to run: the bundle has no packaged command, and run: has no argument"
            )
        template = command_string(base, self._variables, tools.event)
        if tools.shared_tmp and names_shared_tmp(template):
            raise CommandError(self._names_tmp("the command", template))
        command = fill_tmpdir(template, self._variables)
        run = RunningCommand(
            number,
            command,
            iteration=self._variables.number("run_iter"),
            awaits=awaited_state(template, self._variables),
            background=bool(self._variables.number("nonblock")),
            encoder=runs_encoder(template),
            before=mark(self._variables.text("_tmpdir") or ""),
        )
        if run.awaits in self._spoilt:
            raise CommandError(self._unusable(run.awaits))
        try:
            run.program = tools.programs.start(
                command,
                partial(self._print_live, number),
                partial(self._exited, run),
                waits=run.awaits is not None,
            )
        except (OSError, ValueError) as error:
            shown = command if len(command) <= 1000 else f"{command[:1000]}..."
            raise CommandError(f"could not start {shown}: {_described(error)}") from error
        self._runs[number] = run
        if run.awaits is not None:
            self._due = min(self._due, monotonic() + LOOK_S)
        tools.meter.begin(number)
        self._started(number, f"OK:RUNNING({command})")

    def _exited(self, run: RunningCommand, status: int, output: bytes, used: struct_rusage) -> None:
        del self._runs[run.number]
        meter = self._tools.meter
        meter.note_program(run.number, used)
        if status in TERMINATED and self._tools.has_runner:
            sleep(LAST_S)
        if status in KILLED and (why := meter.why_killed(run.number)):
            output += f"\n[{why}]\n".encode()
        text = f"OK:RETVAL({status}):OUTPUT({decode(output)}):COMMAND({run.command})"
        if run.spoilt:
            self._finish(run.number, f"FAIL({run.spoilt})")
            return
        switch = self._variables.number("send_statefile")
        passing = switch == ANY_PROGRAM or (run.encoder and run.background)
        if status or not passing:
            self._finish(run.number, text)
            return
        if switch == ANY_PROGRAM and mark(self._variables.text("_tmpdir") or "") == run.before:
            self._finish(
                run.number,
                f"FAIL(send_statefile is {ANY_PROGRAM}, but the program did not write"
                f" ##TMPDIR##/final.state: {text})",
            )
            return

        def done(error: str) -> None:
            self._finish(run.number, f"FAIL({error})" if error else text)

        self._tools.neighbour.after_run(
            run.iteration,
            minimal=bool(self._variables.number("minimal_recode")),
            send=bool(switch) and self._tools.neighbour.connected,
            done=done,
        )

    def state_arrived(self, iteration: int, error: str) -> None:
        """Handle a state from the neighbour; `error`: why it could not be kept, or empty."""
        if not error:
            self._spoilt.pop(iteration, None)
            for run in self._runs.values():
                if run.awaits == iteration:
                    self._tools.meter.note_state(run.number)
                    if run.program is not None:
                        run.woken = True
                        run.program.wake()
            return
        self._spoilt[iteration] = error
        for run in self._runs.values():
            if run.awaits == iteration and run.program is not None:
                run.spoilt = self._unusable(iteration)
                self._tools.programs.end(run.program)

    @property
    def due(self) -> float:
        """When to call `tick`, in monotonic seconds; inf: never."""
        return self._due

    def tick(self) -> None:
        """Look for states that a command, not the neighbour, has put there."""
        if monotonic() < self._due:
            return
        folder = self._variables.text("_tmpdir") or ""
        self._due = inf
        for run in self._runs.values():
            if run.awaits is None or run.program is None or run.woken:
                continue
            if os.path.isfile(os.path.join(folder, f"{run.awaits}.state")):
                run.woken = True
                run.program.wake()
            else:
                self._due = monotonic() + LOOK_S

    def _unusable(self, iteration: int | None) -> str:
        return f"state {iteration} of the neighbour is unusable: {self._spoilt[iteration or 0]}"

    # ------------------------------------------------ S3

    def _retrieve(self, number: int, argument: str) -> None:
        bucket, key, file = self._transfer("download", argument, "inkey", "targfile")
        region = self._variables.text("region")
        path = os.path.join(self._tools.root, file)

        def retrieve() -> tuple[str, dict[str, float]]:
            received = self._tools.store.retrieve(region, bucket, key, path)
            return f"OK:RETRIEVE({bucket}/{key})", {"in_bytes": received}

        self._in_thread(number, retrieve)
        self._started(number, f"OK:RETRIEVING({bucket}/{key}->{file})")

    def _upload(self, number: int, argument: str) -> None:
        bucket, key, file = self._transfer("upload", argument, "outkey", "fromfile")
        region = self._variables.text("region")
        path = os.path.join(self._tools.root, file)

        def upload() -> tuple[str, dict[str, float]]:
            sent = self._tools.store.upload(region, bucket, key, path)
            return f"OK:UPLOAD({bucket}/{key})", {"out_bytes": sent}

        self._in_thread(number, upload)
        self._started(number, f"OK:UPLOADING({file}->{bucket}/{key})")

    def _transfer(
        self, what: str, argument: str, key_name: str, file_name: str
    ) -> tuple[str, str, str]:
        """Return bucket, key and file from the argument, or else from the variables."""
        if argument:
            key, separator, file = argument.partition("\0")
            if not separator:
                raise CommandError(
                    f"could not compute {what} params: expected a key, a NUL and a file name, got"
                    f" {argument[:200]!r}"
                )
        else:
            key = self._variables.text(key_name) or ""
            file = self._variables.text(file_name) or ""
        bucket = self._variables.text("bucket") or ""
        parts = (("bucket", bucket), ("key", key), ("file name", file))
        if missing := [name for name, value in parts if not value]:
            raise CommandError(f"could not compute {what} params: no {' and no '.join(missing)}")
        filled = self._file(file)
        if self._variables.number("hash_s3keys"):
            key = _hashed(key)
        return bucket, key, filled

    # ------------------------------------------------ blobs

    def _get_blob(self, number: int, argument: str) -> None:
        from mu_worker import blobs

        try:
            parts = blobs.parts_in(argument)
        except ValueError as error:
            raise CommandError(str(error)) from None
        files = [(part, blobs.below(self._tools.root, self._file(name))) for part, name in parts]

        def get() -> tuple[str, dict[str, float]]:
            received = blobs.fetch(self._call_coordinator, files)
            return f"OK:GET_BLOB({received})", {"in_bytes": received}

        self._wait_for(number)
        self._in_thread(number, get)

    def _put_blob(self, number: int, name: str) -> None:
        from mu_worker import blobs

        path = os.path.join(self._tools.root, self._file(name))

        def put() -> tuple[str, dict[str, float]]:
            digest, sent = blobs.leave(self._call_coordinator, path)
            return f"OK:PUT_BLOB({digest}:{sent})", {"out_bytes": sent}

        self._wait_for(number)
        self._in_thread(number, put)

    def _call_coordinator(self) -> socket.socket:
        event = self._tools.event
        return self._tools.dial(event.addr, event.port)

    def _file(self, name: str) -> str:
        """Return a file name with ##TMPDIR## filled in."""
        if self._tools.shared_tmp and names_shared_tmp(name):
            raise CommandError(self._names_tmp("the file name", name))
        return fill_tmpdir(name, self._variables)

    # ------------------------------------------------ the relay

    def _connect(self, number: int, argument: str) -> None:
        if self._tools.neighbour.connected:
            raise CommandError("already connected")
        if argument.startswith("["):  # an IPv6 address
            host, _, rest = argument[1:].partition("]:")
        else:
            host, _, rest = argument.partition(":")
        port, colon, hello = rest.partition(":")
        if not (host and colon and port.isdecimal() and 0 < int(port) < 65536):
            raise CommandError(f"expected connect:HOST:PORT:HELLO, got connect:{argument}")

        def adopt(sock: socket.socket) -> None:
            self._tools.neighbour.adopt(sock, host, int(port), hello)
            self._finish(number, f"OK:CONNECT({argument})")

        def work() -> Callable[[], None]:
            try:
                sock = self._tools.dial(host, int(port))
            except DialError as error:
                return partial(self._finish, number, f"FAIL({error})")
            except Exception as error:
                return partial(self._finish, number, f"FAIL({_described(error)})")
            return partial(self._attempt, number, partial(adopt, sock))

        self._blocking = number
        self._tools.threads.start(work)

    def _close_connect(self, number: int, _: str) -> None:
        self._blocking = number
        self._tools.neighbour.end(partial(self._finish, number, "OK:CLOSE_CONNECT"))

    # ------------------------------------------------ slow commands

    def _wait_for(self, number: int) -> bool:
        """Have later commands wait for this one, unless it runs in the background; return whether."""
        waits = not self._variables.number("nonblock")
        if waits:
            self._blocking = number
        return waits

    def _started(self, number: int, text: str) -> None:
        """Note that a slow command started: in the background, or later commands wait for it."""
        if self._wait_for(number):
            return
        if not self._variables.number("bg_silent"):
            self._reply(number, text)

    def _finish(self, number: int, text: str) -> None:
        self._answer(number, text, self._tools.meter.end(number))
        if self._blocking == number:
            self._blocking = 0

    def _in_thread(self, number: int, transfer: Callable[[], tuple[str, dict[str, float]]]) -> None:
        def work() -> Callable[[], None]:
            begun, cpu = monotonic(), thread_time()
            known: dict[str, float] = {}
            try:
                text, known = transfer()
            except (StoreError, DialError) as error:
                text = f"FAIL({error})"
            except Exception as error:
                text = f"FAIL({_described(error)})"
            known |= {"transfer_s": monotonic() - begun, "cpu_s": thread_time() - cpu}
            return partial(self._transferred, number, text, known)

        self._tools.meter.begin(number)
        self._tools.threads.start(work)

    def _transferred(self, number: int, text: str, known: dict[str, float]) -> None:
        self._tools.meter.note(number, **known)
        self._finish(number, text)

    def _names_tmp(self, what: str, text: str) -> str:
        return (
            f"{what} names /tmp, which other workers share here; use ##TMPDIR##, the worker's own"
            f" folder, instead: {text[:1000]}"
        )


def _hashed(key: str) -> str:
    """Put 4 hex digits in front, so that S3 spreads similar keys over its partitions."""
    from hashlib import md5

    last = key.rpartition("/")[2]
    return f"{md5(encode(last), usedforsecurity=False).hexdigest()[:4]}-{key}"


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
