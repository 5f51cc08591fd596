"""Runs invocations in sandboxes: starts a warm parent, sends it tasks, reads its reports."""

import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone
from twisted.internet.interfaces import IProcessTransport
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from mu.engines.local.functions import Function, arn_of
from mu.engines.local.namespaces import CHECKOUT, moved, own_search_path
from mu.engines.local.sandbox_messages import (
    ANSWERED,
    FAILED,
    WARM_UP,
    LineBuffer,
    SandboxReport,
    SandboxSetup,
    SandboxTask,
    error_payload,
)
from mu.engines.reactors import ILocalReactor

LOGS_KEPT = 1000
RESTART_PAUSE_S, STOP_S = 1.0, 2.0


@dataclass(frozen=True, slots=True)
class InvocationResult:
    """The payload that an invocation returned, or with `failed` the payload of its error."""

    payload: bytes
    failed: bool
    log: Path


@dataclass(frozen=True, slots=True)
class _Running:
    task: SandboxTask
    done: Deferred[InvocationResult]


class WarmParentProtocol(ProcessProtocol):
    """The pipes to one warm parent."""

    def __init__(
        self, line: Callable[[bytes], None], ended: Callable[["WarmParentProtocol", str], None]
    ) -> None:
        self._line, self._ended = line, ended
        self._lines = LineBuffer()

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        for line in self._lines.feed(data):
            self._line(line)

    def processEnded(self, reason: Failure) -> None:
        self._ended(self, "" if reason.check(ProcessDone) else str(reason.value))


class SandboxPool:
    """Runs each invocation in its own sandbox, without limiting how many run at once.

    `home` is the engine's folder. A sandbox's /tmp is a tmpfs of the size that the function has, as
    long as the sizes of all of them add up to at most `tmp_memory` MB; otherwise it is on disk.
    """

    log = Logger()

    def __init__(
        self, reactor: ILocalReactor, home: Path, *, tmp_memory: int, shared_tmp: bool = False
    ) -> None:
        self._reactor, self._home = reactor, home
        self._why_shared = "requested with --shared-tmp" if shared_tmp else ""
        self._running: dict[str, _Running] = {}
        self._codes: Counter[str] = Counter()
        self._tmp_memory = tmp_memory
        self._number = 0
        found = sorted(home.glob("logs/*/*.log"), key=lambda path: path.stat().st_mtime)
        self._logs: dict[Path, None] = dict.fromkeys(found)  # oldest first
        self._stopping: Deferred[None] | None = None
        self._ready: Deferred[SandboxSetup] = Deferred()
        self._setup: SandboxSetup | None = None
        self._first_line = True
        self._started = 0.0
        self._transport: IProcessTransport | None = None
        self._warm = False
        self.role: Callable[[], dict[str, str]] = dict
        """Returns variables with AWS keys, beside those in this process's environment."""
        self.on_idle: Callable[[], None] = lambda: None
        self.on_code_unused: Callable[[str], None] = lambda name: None
        shutil.rmtree(home / "sandboxes", ignore_errors=True)
        (home / "sandboxes").mkdir(parents=True)

    @property
    def active(self) -> int:
        """How many sandboxes are running."""
        return len(self._running)

    @property
    def codes_in_use(self) -> frozenset[str]:
        return frozenset(self._codes)

    def start(self) -> Deferred[SandboxSetup]:
        """Start the warm parent; the Deferred fires with the setup that it completed."""
        self._spawn()
        return self._ready

    def warm_up(self) -> None:
        """Have the warm parent import what workers need, since there is a function to invoke."""
        if not self._warm and self._transport is not None:
            self._transport.writeToChild(0, WARM_UP + b"\n")
        self._warm = True

    def stop(self) -> Deferred[None]:
        """End the warm parent and so all sandboxes; the Deferred fires when none is left."""
        self._stopping = Deferred()
        if self._transport is None:
            self._stopping.callback(None)
        else:
            self._transport.closeChildFD(0)
            kill = self._reactor.callLater(STOP_S, self._transport.signalProcess, "KILL")
            self._stopping.addBoth(lambda _: kill.cancel() if kill.active() else None)
        return self._stopping

    def invoke(
        self, request: str, function: Function, code: Path, region: str, event: str
    ) -> Deferred[InvocationResult]:
        """Start an invocation; `request` is its unique id. The Deferred never fails."""
        self._number += 1
        tmpfs = function.ephemeral if function.ephemeral <= self._tmp_memory else 0
        task = SandboxTask(
            id=request,
            function=function.name,
            arn=arn_of(function.name, region),
            handler=function.handler,
            timeout=function.timeout,
            memory=function.memory,
            tmpfs=tmpfs,
            region=region,
            environment=function.environment,
            role=self.role(),
            code=self._shown(code),
            folder=str(self._home / "sandboxes" / f"{request}.{self._number}"),
            log=str(self._new_log(function.name, request)),
            event=event,
        )
        done: Deferred[InvocationResult] = Deferred()
        self._running[request] = _Running(task, done)
        self._codes[str(code)] += 1
        self._tmp_memory -= tmpfs
        done.addBoth(self._finished, task, str(code))
        if self._transport is not None:
            self._transport.writeToChild(0, task.to_line())
        return done

    def _shown(self, code: Path) -> str:
        """Return the path at which sandboxes see `code`."""
        return moved(str(code), self._setup.place if self._setup else "")

    def _finished(self, result: InvocationResult, task: SandboxTask, code: str) -> InvocationResult:
        self._tmp_memory += task.tmpfs
        self._codes[code] -= 1
        if not self._codes[code]:
            del self._codes[code]
            self.on_code_unused(task.function)
        if not self._running:
            self.on_idle()
        return result

    def _new_log(self, name: str, request: str) -> Path:
        log = self._home / "logs" / name / f"{request}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        self._logs.pop(log, None)
        self._logs[log] = None
        while len(self._logs) > LOGS_KEPT:
            oldest = next(iter(self._logs))
            del self._logs[oldest]
            oldest.unlink(missing_ok=True)
        return log

    def _spawn(self) -> IProcessTransport:
        setup = SandboxSetup(
            home=str(self._home.parent),
            functions=str(self._home / "functions"),
            search_path=own_search_path(),
            checkout=CHECKOUT,
            why_shared=self._why_shared,
        )
        interpreter = os.path.realpath(sys.executable)
        arguments = [interpreter, "-S", "-P", "-m", "mu.engines.local.namespaces", setup.to_json()]
        self._first_line = True
        self._started = self._reactor.seconds()
        transport = self._reactor.spawnProcess(
            WarmParentProtocol(self._received, self._ended),
            interpreter,
            arguments,
            env={**os.environ, "PYTHONPATH": CHECKOUT},
            childFDs={0: "w", 1: "r", 2: 2},
        )
        self._transport = transport
        return transport

    def _received(self, line: bytes) -> None:
        if self._first_line:
            self._first_line = False
            self._setup = SandboxSetup.from_json(line.decode())
            self._why_shared = self._setup.why_shared
            if not self._ready.called:
                self._ready.callback(self._setup)
            return
        report = SandboxReport.from_line(line)
        running = self._running.pop(report.id, None)
        if running is not None:
            self._conclude(running, report.status)

    def _conclude(self, running: _Running, status: int) -> None:
        task = running.task
        folder = Path(task.folder)
        failed = status != ANSWERED
        if status in (ANSWERED, FAILED):
            payload = (folder / "answer").read_bytes()
        else:
            how = "signal: killed" if status == -9 else f"exit status {status}"
            why = f"Runtime exited with error: {how}"
            payload = error_payload(task.id, "Runtime.ExitError", why)
        if failed:
            self.log.info(
                "{function} {request}: {payload}",
                function=task.function,
                request=task.id,
                payload=payload[:300].decode(errors="replace"),
            )
        result = InvocationResult(payload, failed, Path(task.log))
        self._in_thread(remove_tree, folder)
        running.done.callback(result)

    def _in_thread(self, call: Callable[..., None], *arguments: object) -> None:
        pool = self._reactor.getThreadPool()
        removing = deferToThreadPool(self._reactor, pool, call, *arguments)
        removing.addErrback(lambda failure: self.log.failure("cannot clean up", failure))

    def _ended(self, protocol: WarmParentProtocol, why: str) -> None:
        self._transport = None
        lost = list(self._running.values())
        self._running.clear()
        for running in lost:
            self._conclude(running, -9)
        if self._stopping is not None:
            self._stopping.callback(None)
        elif not self._ready.called:
            self._ready.errback(
                RuntimeError(f"cannot start sandboxes (see {self._home}/engine.log): {why}")
            )
        else:
            self.log.warn(
                "the warm parent ended ({why}), and with it {lost} sandboxes; restarting it",
                why=why or "exit status 0",
                lost=len(lost),
            )
            ran_s = self._reactor.seconds() - self._started
            self._reactor.callLater(
                0 if ran_s > RESTART_PAUSE_S else RESTART_PAUSE_S, self._restart
            )

    def _restart(self) -> None:
        if self._stopping is not None:
            return
        transport = self._spawn()
        if self._warm:
            transport.writeToChild(0, WARM_UP + b"\n")
        for running in self._running.values():
            transport.writeToChild(0, running.task.to_line())


def remove_tree(folder: Path) -> None:
    """Remove `folder`, even if a command has left read-only directories in it."""
    for path, directories, _ in os.walk(folder):
        for name in directories:
            inner = os.path.join(path, name)
            if not os.path.islink(inner):
                os.chmod(inner, 0o700)
    shutil.rmtree(folder, ignore_errors=True)
