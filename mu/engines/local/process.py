"""The daemon's side of the embedded local engine: finds, starts and stops the engine process.

The process runs `python -m mu.engines.local`. The id in <home>/local/engine.json identifies it. One
connection to it stays open: it shows the engine that a daemon needs it, and the daemon that the
engine is alive.
"""

import json
import os
import select
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ProcessDone
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import Agent, Response, _HTTP11ClientFactory, readBody

import mu
from mu.engines.local.neighbours import is_locked, is_ours, listens
from mu.engines.local.sandbox_messages import LineBuffer
from mu.engines.reactors import ILocalReactor

ANSWER_S, START_S, STOP_S, RESTART_S = 5.0, 30.0, 5.0, 1.0
LINE_LIMIT = 2**16
_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_INFO = {"id": str, "pid": int, "port": int, "private_tmp": bool, "why_shared": str}


# Otherwise each request is two lines in the daemon's log.
_HTTP11ClientFactory.noisy = False


class LocalEngineError(Exception):
    """The engine cannot be started; the message is one sentence for the user."""


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """An engine process, as described in engine.json and to daemons that attach."""

    id: str
    pid: int
    port: int
    private_tmp: bool
    why_shared: str
    started: int | None = None
    """When the process started, in the kernel's ticks; None in earlier versions."""

    @classmethod
    def from_json(cls, text: str | bytes) -> "EngineInfo":
        """Raises ValueError for anything else."""
        fields = json.loads(text)
        if not isinstance(fields, dict):
            raise ValueError("it is not a JSON object")
        for name, kind in _INFO.items():
            if type(fields.get(name)) is not kind:
                raise ValueError(f"{name} must be {kind.__name__}, got {fields.get(name)!r:.100}")
        started = fields.get("started")
        known = {name: fields[name] for name in _INFO}
        return cls(**known, started=started if type(started) is int else None)

    def check(self) -> None:
        """Raise LocalEngineError unless the process is ours, and the one that listens there."""
        if self.pid < 1 or not is_ours(self.pid, self.started):
            raise LocalEngineError(f"process {self.pid} is not the engine that engine.json names")
        if not listens(self.pid, self.port):
            raise LocalEngineError(f"process {self.pid} does not listen on port {self.port}")


class _Starting(ProcessProtocol):
    """Waits for the line that a new engine prints; `ended` fires when the process has ended."""

    def __init__(self) -> None:
        self.info: Deferred[EngineInfo] = Deferred()
        self.ended: Deferred[None] = Deferred()
        self._line, self._stderr = b"", b""

    def outReceived(self, data: bytes) -> None:
        self._line += data
        if not self._line.endswith(b"\n") or self.info.called:
            return
        fields = json.loads(self._line)
        if "error" in fields:
            self.info.errback(
                LocalEngineError(f"the local engine did not start: {fields['error']}")
            )
        else:
            self.info.callback(EngineInfo.from_json(self._line))

    def errReceived(self, data: bytes) -> None:
        self._stderr = (self._stderr + data)[-2000:]

    def processEnded(self, reason: Failure) -> None:
        if not self.info.called:
            lines = self._stderr.decode(errors="replace").strip().splitlines()
            how = "it ended" if reason.check(ProcessDone) else str(reason.value)
            why = lines[-1] if lines else how
            self.info.errback(LocalEngineError(f"the local engine did not start: {why}"))
        self.ended.callback(None)


class _Attachment(Protocol):
    """The response body that stays open: a line with the engine's EngineInfo, and one for each end.

    `told` is called with a launch id, and how its worker ended.
    """

    def __init__(self, lost: Callable[[], None], told: Callable[[str, str], None]) -> None:
        self.info: Deferred[EngineInfo] = Deferred()
        self._lost, self._told, self._lines = lost, told, LineBuffer()
        self._unread = 0

    def dataReceived(self, data: bytes) -> None:
        self._unread += len(data)
        for line in self._lines.feed(data):
            self._unread = 0
            self._read(line)
        if self._unread >= LINE_LIMIT and not self.info.called:
            self.info.errback(LocalEngineError("its response is not an engine's: it has no line"))

    def _read(self, line: bytes) -> None:
        if not self.info.called:
            try:
                self.info.callback(EngineInfo.from_json(line))
            except ValueError as error:
                self.info.errback(LocalEngineError(f"its response is not an engine's: {error}"))
            return
        try:
            told = json.loads(line)
            launch, why = str(told["ended"]), str(told["why"])
        except (LookupError, TypeError, ValueError):
            return  # a newer engine may tell more
        self._told(launch, why)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.info.called:
            self._lost()
        else:
            self.info.errback(reason)


class LocalEngineProcess:
    """Keeps the engine of `home` running from start() to stop(), and restarts it if it dies.

    Port 0 picks a free port. An engine that is found running keeps its port and its settings.
    `info` is None while no engine runs.
    """

    log = Logger()

    def __init__(
        self,
        home: Path,
        port: int = 13590,
        *,
        reactor: ILocalReactor,
        concurrency: int = 1000,
        invoke_rate: float = 0.0,
        linger_s: float = 60.0,
        shared_tmp: bool = False,
        faults: str = "none",
        allowed_hosts: str = "none",
        s3_port: int = 0,
        s3_profile: str = "",
        told: Callable[[str, str], None] = lambda launch, why: None,
    ) -> None:
        """`told` is called with the launch id of each worker that ended, and how it ended."""
        self.info: EngineInfo | None = None
        self.s3_port = 0
        """The port of the embedded S3 server; 0: it has not been needed."""
        self._told = told
        self._home, self._port, self._reactor = home.resolve(), port, reactor
        self._options = ["--concurrency", str(concurrency), "--linger", str(linger_s)]
        self._options += ["--invoke-rate", str(invoke_rate), "--faults", faults]
        self._options += ["--allowed-hosts", allowed_hosts, "--s3-port", str(s3_port)]
        self._profile = s3_profile
        self._options += ["--shared-tmp"] if shared_tmp else []
        self._process: int | None = None
        """A pidfd of the engine that is attached: unlike its pid, it cannot become another's."""
        self._starting: Deferred[int] | None = None
        self._gone: Deferred[None] | None = None
        self._ended: Deferred[None] = succeed(None)
        self._stopped = False
        self._restart: IDelayedCall | None = None

    def start(self) -> Deferred[int]:
        """Find or start the engine; the Deferred gives its port, or fails with LocalEngineError."""
        self._stopped = False
        self._starting = Deferred.fromCoroutine(self._start())
        return _copy(self._starting)

    def stop(self) -> Deferred[None]:
        """Stop the engine and all its sandboxes; the Deferred fires when they have ended."""
        return Deferred.fromCoroutine(self._stop())

    def leave(self) -> None:
        """Leave the engine running, for the next daemon to find."""
        self._stopped = True
        if self._restart is not None and self._restart.active():
            self._restart.cancel()

    def start_s3(self) -> Deferred[int]:
        """Start the embedded S3 server if need be; the Deferred gives its port.

        It fails with LocalEngineError.
        """
        return Deferred.fromCoroutine(self._start_s3())

    async def _start_s3(self) -> int:
        info = self.info
        if info is None:
            raise LocalEngineError("the local engine, which has the S3 server, is not running")
        agent = Agent(self._reactor, connectTimeout=ANSWER_S)
        url = f"http://127.0.0.1:{info.port}/mu/{info.id}/s3".encode()
        try:
            answered = await agent.request(b"GET", url).addTimeout(START_S, self._reactor)
            told = json.loads(await readBody(answered))
            status = answered.code
        except Exception as error:
            raise LocalEngineError(f"the S3 server's port is not known: {error}") from error
        if status not in (200, 503):
            raise LocalEngineError(
                "the local engine that is running is of an earlier version, without an S3 server:"
                " restart the daemon when no job is running"
            )
        if status == 503:
            raise LocalEngineError(told["error"])
        self.s3_port = int(told["port"])
        return self.s3_port

    async def _stop(self) -> None:
        self.leave()
        if self._starting is not None:
            await _copy(self._starting).addErrback(lambda _: 0)
        if self.info is not None and self._process is not None:
            await self._end(self._process)
        await self._ended

    async def _end(self, process: int) -> None:
        self._gone = Deferred()
        signal.pidfd_send_signal(process, signal.SIGTERM)
        kill = self._reactor.callLater(STOP_S, self._kill, process)
        await self._gone
        if kill.active():
            kill.cancel()
        # It closes its connections shortly before it ends.
        end = self._reactor.seconds() + STOP_S
        while not _has_ended(process) and self._reactor.seconds() < end:
            await deferLater(self._reactor, 0.02)
        self._forget_process()

    async def _start(self) -> int:
        found = await self._find()
        if found is None:
            found = await self._attach(await self._spawn())
        elif self._port not in (0, found.port):
            self.log.warn(
                "found a running local engine, which keeps its port {port}", port=found.port
            )
        if not found.private_tmp:
            self.log.warn(
                "workers share this machine's /tmp, where commands that name it are rejected, and can read"
                " this home: {why}",
                why=found.why_shared,
            )
        self.info, self._port = found, found.port
        if (self._home / "local" / "s3.json").exists():
            await self.start_s3().addErrback(
                lambda failure: self.log.error("{why}", why=failure.getErrorMessage())
            )
        self.log.info("local engine {pid} listens on port {port}", pid=found.pid, port=found.port)
        return found.port

    async def _find(self) -> EngineInfo | None:
        """Attach to the engine that runs for this home, if there is one."""
        folder = self._home / "local"
        try:
            known = EngineInfo.from_json((folder / "engine.json").read_bytes())
        except (OSError, ValueError):
            return None
        if not is_locked(folder / "engine.lock"):
            self.log.info("{folder}/engine.json is left over: its engine has ended", folder=folder)
            return None
        try:
            return await self._attach(known)
        except Exception as error:  # anything else may answer at that port, or nothing
            self.log.info("no local engine on port {port}: {why}", port=known.port, why=str(error))
            return None

    async def _attach(self, known: EngineInfo) -> EngineInfo:
        """Connect to an engine, after making sure that it is ours. Raises various exceptions.

        Any program may listen on the port of an engine that has ended, and any process may have its
        id. So both are checked before the port is contacted, and again once it has answered.
        """
        process = os.pidfd_open(known.pid)
        response: Response | None = None
        try:
            known.check()
            agent = Agent(self._reactor, connectTimeout=ANSWER_S)
            url = f"http://127.0.0.1:{known.port}/mu/{known.id}".encode()
            answered = await agent.request(b"GET", url).addTimeout(ANSWER_S, self._reactor)
            assert isinstance(answered, Response)
            response = answered
            if response.code != 200:
                raise LocalEngineError(f"port {known.port} belongs to another program")
            attachment = _Attachment(self._lost, self._told)
            response.deliverBody(attachment)
            found = await attachment.info.addTimeout(ANSWER_S, self._reactor)
            if (found.id, found.pid) != (known.id, known.pid):
                raise LocalEngineError(f"port {known.port} belongs to another engine")
            known.check()
        except BaseException:
            os.close(process)
            if response is not None:
                response._transport.loseConnection()
            raise
        self._forget_process()
        self._process = process
        return known

    def _spawn(self) -> Deferred[EngineInfo]:
        starting = _Starting()
        checkout = str(Path(mu.__file__).resolve().parent.parent)
        paths = [checkout, *filter(None, [os.environ.get("PYTHONPATH")])]
        arguments = [sys.executable, "-P", "-m", "mu.engines.local"]
        arguments += ["--home", str(self._home), "--port", str(self._port), *self._options]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        if self._profile:  # of [s3]: it goes before the keys in the environment
            env = {name: value for name, value in env.items() if name not in _KEYS}
            env["AWS_PROFILE"] = self._profile
        try:
            self._reactor.spawnProcess(
                starting,
                sys.executable,
                arguments,
                env=env,
                childFDs={0: "w", 1: "r", 2: "r"},
            )
        except OSError as error:
            return fail(LocalEngineError(f"the local engine did not start: {error}"))
        self._ended = starting.ended
        return starting.info.addTimeout(START_S, self._reactor)

    def _lost(self) -> None:
        lost, self.info = self.info, None
        if self._gone is not None:
            gone, self._gone = self._gone, None
            gone.callback(None)
        elif not self._stopped and lost is not None:
            self._forget_process()
            self.log.error("local engine {pid} ended unexpectedly; restarting it", pid=lost.pid)
            self._restart = self._reactor.callLater(RESTART_S, self._try_restart)

    def _forget_process(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            os.close(process)

    def _try_restart(self) -> None:
        def failed(failure: Failure) -> None:
            self.log.error("{why}; retrying", why=failure.getErrorMessage())
            if not self._stopped:
                self._restart = self._reactor.callLater(RESTART_S, self._try_restart)

        self.start().addErrback(failed)

    def _kill(self, process: int) -> None:
        if self.info is not None and process == self._process:
            self.log.warn("local engine {pid} does not stop; killing it", pid=self.info.pid)
            signal.pidfd_send_signal(process, signal.SIGKILL)


def _has_ended(process: int) -> bool:
    """Return whether the process of a pidfd has ended, even if nobody has waited for it."""
    return bool(select.select([process], [], [], 0)[0])


def _copy(original: Deferred[int]) -> Deferred[int]:
    """Return a Deferred that fires like `original`, which can be copied again."""
    copy: Deferred[int] = Deferred()

    def succeeded(port: int) -> int:
        copy.callback(port)
        return port

    original.addCallbacks(succeeded, copy.errback)
    return copy
