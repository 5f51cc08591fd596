"""The daemon's side of the embedded local engine: finds its process or starts it, and ends it.

The process is mu.engines.local, told apart from any other by the id in
<home>/local/engine.json. A connection to it stays open: by it the engine knows that it is wanted,
and the daemon, that the engine lives.
"""

import json
import os
import select
import signal
import sys
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, fail, inlineCallbacks, succeed
from twisted.internet.error import ProcessDone
from twisted.internet.protocol import ProcessProtocol, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import Agent

import mu

ANSWER_S, START_S, STOP_S, RESTART_S = 5.0, 30.0, 5.0, 1.0
_WHAT_DESCRIBES = ("id", "pid", "port", "private_tmp", "why_shared")


class LocalEngineError(Exception):
    """The engine cannot be started; the message is a sentence for the user."""


@dataclass(frozen=True, slots=True)
class EngineProcess:
    """What an engine says of itself."""

    id: str
    pid: int
    port: int
    private_tmp: bool
    why_shared: str

    @classmethod
    def from_json(cls, text: str | bytes) -> "EngineProcess":
        """Raises ValueError or KeyError if it is nothing of the kind."""
        told = json.loads(text)
        return cls(**{name: told[name] for name in _WHAT_DESCRIBES})


class _Starting(ProcessProtocol):
    """Waits for the one line that a new engine says; `ended` fires when it is gone."""

    def __init__(self) -> None:
        self.told: Deferred[EngineProcess] = Deferred()
        self.ended: Deferred[None] = Deferred()
        self._line, self._complaint = b"", b""

    def outReceived(self, data: bytes) -> None:
        self._line += data
        if not self._line.endswith(b"\n") or self.told.called:
            return
        told = json.loads(self._line)
        if "error" in told:
            self.told.errback(LocalEngineError(f"the local engine did not start: {told['error']}"))
        else:
            self.told.callback(EngineProcess.from_json(self._line))

    def errReceived(self, data: bytes) -> None:
        self._complaint = (self._complaint + data)[-2000:]

    def processEnded(self, reason: Failure) -> None:
        if not self.told.called:
            lines = self._complaint.decode(errors="replace").strip().splitlines()
            how = "it ended" if reason.check(ProcessDone) else str(reason.value)
            why = lines[-1] if lines else how
            self.told.errback(LocalEngineError(f"the local engine did not start: {why}"))
        self.ended.callback(None)


class _Attachment(Protocol):
    """The body of the answer that stays open; its first line says which engine this is."""

    def __init__(self, lost: Callable[[], None]) -> None:
        self.told: Deferred[EngineProcess] = Deferred()
        self._lost, self._line = lost, b""

    def dataReceived(self, data: bytes) -> None:
        self._line += data
        if self._line.endswith(b"\n") and not self.told.called:
            self.told.callback(EngineProcess.from_json(self._line))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.told.called:
            self._lost()
        else:
            self.told.errback(reason)


class LocalEngine:
    """Keeps the engine of `home` running from start() to stop(), and starts it again if it dies.

    `port` 0 takes any; an engine that is found again keeps the port and the settings it has.
    `process` is what is known of it while it runs.
    """

    log = Logger()

    def __init__(
        self,
        home: Path,
        port: int = 13590,
        *,
        reactor: Any,
        concurrency: int = 1000,
        invoke_rate: float = 0.0,
        linger_s: float = 60.0,
        shared_tmp: bool = False,
        faults: str = "none",
    ) -> None:
        self.process: EngineProcess | None = None
        self._home, self._port, self._reactor = home.resolve(), port, reactor
        self._options = ["--concurrency", str(concurrency), "--linger", str(linger_s)]
        self._options += ["--invoke-rate", str(invoke_rate), "--faults", faults]
        self._options += ["--shared-tmp"] if shared_tmp else []
        self._starting: Deferred[int] | None = None
        self._gone: Deferred[None] | None = None
        self._ended: Deferred[None] = succeed(None)
        self._stopped = False
        self._restart: Any = None

    def start(self) -> Deferred[int]:
        """Find the engine or start it; fires with its port, or with LocalEngineError."""
        self._stopped = False
        self._starting = self._start()
        return _copy(self._starting)

    @inlineCallbacks
    def stop(self) -> Generator[Deferred[Any], Any, None]:
        """End the engine and all its sandboxes; fires when they are gone."""
        self.leave()
        if self._starting is not None:
            yield _copy(self._starting).addErrback(lambda _: None)
        if self.process is not None:
            yield self._end(self.process.pid)
        yield self._ended

    def leave(self) -> None:
        """Let it run on without us, for the next daemon to find."""
        self._stopped = True
        if self._restart is not None and self._restart.active():
            self._restart.cancel()

    @inlineCallbacks
    def _end(self, pid: int) -> Generator[Deferred[Any], Any, None]:
        self._gone = Deferred()
        process = os.pidfd_open(pid)  # still its own pid: the connection to it is open
        signal.pidfd_send_signal(process, signal.SIGTERM)
        impatient = self._reactor.callLater(STOP_S, self._kill, pid)
        yield self._gone
        if impatient.active():
            impatient.cancel()
        # It closes its connections a moment before it is gone.
        end = self._reactor.seconds() + STOP_S
        while not _has_ended(process) and self._reactor.seconds() < end:
            yield deferLater(self._reactor, 0.02)
        os.close(process)

    @inlineCallbacks
    def _start(self) -> Generator[Deferred[Any], Any, int]:
        found = yield self._find()
        if found is None:
            told = yield self._spawn()
            found = yield self._attach(told)
        elif self._port not in (0, found.port):
            self.log.warn("the local engine that was found keeps its port {port}", port=found.port)
        if not found.private_tmp:
            self.log.warn(
                "workers share this machine's /tmp, commands that name it are refused: {why}",
                why=found.why_shared,
            )
        self.process, self._port = found, found.port
        self.log.info("local engine {pid} on port {port}", pid=found.pid, port=found.port)
        return int(found.port)

    @inlineCallbacks
    def _find(self) -> Generator[Deferred[Any], Any, EngineProcess | None]:
        try:
            known = EngineProcess.from_json((self._home / "local" / "engine.json").read_bytes())
        except (OSError, ValueError, KeyError):
            return None
        try:
            found: EngineProcess = yield self._attach(known)
        except Exception as error:  # whatever answers there, if anything, is not the engine
            self.log.info("no engine at port {port}: {why}", port=known.port, why=str(error))
            return None
        return found

    @inlineCallbacks
    def _attach(self, known: EngineProcess) -> Generator[Deferred[Any], Any, EngineProcess]:
        agent = Agent(self._reactor, connectTimeout=ANSWER_S)
        url = f"http://127.0.0.1:{known.port}/mu/{known.id}".encode()
        response = yield agent.request(b"GET", url).addTimeout(ANSWER_S, self._reactor)
        if response.code != 200:
            response._transport.abortConnection()
            raise LocalEngineError(f"port {known.port} is someone else's")
        attachment = _Attachment(self._lost)
        response.deliverBody(attachment)
        found: EngineProcess = yield attachment.told.addTimeout(ANSWER_S, self._reactor)
        return found

    def _spawn(self) -> Deferred[EngineProcess]:
        starting = _Starting()
        checkout = str(Path(mu.__file__).resolve().parent.parent)
        paths = [checkout, *filter(None, [os.environ.get("PYTHONPATH")])]
        arguments = [sys.executable, "-P", "-m", "mu.engines.local"]
        arguments += ["--home", str(self._home), "--port", str(self._port), *self._options]
        try:
            self._reactor.spawnProcess(
                starting,
                sys.executable,
                arguments,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
                childFDs={0: "w", 1: "r", 2: "r"},
            )
        except OSError as error:
            return fail(LocalEngineError(f"the local engine did not start: {error}"))
        self._ended = starting.ended
        return starting.told.addTimeout(START_S, self._reactor)

    def _lost(self) -> None:
        lost, self.process = self.process, None
        if self._gone is not None:
            gone, self._gone = self._gone, None
            gone.callback(None)
        elif not self._stopped and lost is not None:
            self.log.error("the local engine {pid} ended; starting it again", pid=lost.pid)
            self._restart = self._reactor.callLater(RESTART_S, self._start_again)

    def _start_again(self) -> None:
        def failed(failure: Failure) -> None:
            self.log.error("{why}; trying again", why=failure.getErrorMessage())
            if not self._stopped:
                self._restart = self._reactor.callLater(RESTART_S, self._start_again)

        self.start().addErrback(failed)

    def _kill(self, pid: int) -> None:
        if self.process is not None and self.process.pid == pid:
            self.log.warn("the local engine {pid} does not stop; it is killed", pid=pid)
            os.kill(pid, signal.SIGKILL)


def _has_ended(process: int) -> bool:
    """Whether the process of this pidfd has ended, buried or not."""
    return bool(select.select([process], [], [], 0)[0])


def _copy(original: Deferred[int]) -> Deferred[int]:
    """Return a Deferred that fires as `original` does, which stays usable for others."""
    copy: Deferred[int] = Deferred()

    def both(result: Any) -> Any:
        copy.callback(result)
        return None if isinstance(result, Failure) else result

    original.addBoth(both)
    return copy
