"""The engine's side of the sandboxes: keeps a warm parent, hands it orders, takes its reports."""

import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from mu.engines.local.enclosure import CHECKOUT, moved, own_search_path
from mu.engines.local.functions import Function, arn_of
from mu.engines.local.order import ANSWERED, FAILED, Ground, Lines, Order, Report, error_payload

LOGS_KEPT = 1000
RESTART_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an invocation came to: a payload, whether it tells of an error, where its log is."""

    payload: bytes
    failed: bool
    log: Path


@dataclass(frozen=True, slots=True)
class _Running:
    order: Order
    done: Deferred[Outcome]


class WarmParentProtocol(ProcessProtocol):
    """The pipes to one warm parent."""

    def __init__(
        self, told: Callable[[bytes], None], ended: Callable[["WarmParentProtocol", str], None]
    ) -> None:
        self._told, self._ended = told, ended
        self._lines = Lines()

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        for line in self._lines.feed(data):
            self._told(line)

    def processEnded(self, reason: Failure) -> None:
        self._ended(self, "" if reason.check(ProcessDone) else str(reason.value))


class SandboxPool:
    """Runs invocations, each in a sandbox of its own.

    `home` is the engine's folder. Nothing is limited here: `active` tells how many run. Their /tmp
    is in memory, and so large as the function says, while all of them together are promised no
    more than `tmp_memory` MB; the others' is on disk.
    """

    log = Logger()

    def __init__(
        self, reactor: Any, home: Path, *, tmp_memory: int, shared_tmp: bool = False
    ) -> None:
        self._reactor, self._home = reactor, home
        self._why_shared = "asked for by --shared-tmp" if shared_tmp else ""
        self._running: dict[str, _Running] = {}
        self._codes: Counter[str] = Counter()
        self._tmp_memory = tmp_memory
        self._number = 0
        found = sorted(home.glob("logs/*/*.log"), key=lambda path: path.stat().st_mtime)
        self._logs: dict[Path, None] = dict.fromkeys(found)  # the newest last
        self._stopping: Deferred[None] | None = None
        self._ready: Deferred[Ground] = Deferred()
        self._ground: Ground | None = None
        self._first_line = True
        self._started = 0.0
        self._transport: Any = None
        self.on_idle: Callable[[], None] = lambda: None
        self.on_code_unused: Callable[[str], None] = lambda name: None
        shutil.rmtree(home / "sandboxes", ignore_errors=True)
        (home / "sandboxes").mkdir(parents=True)

    @property
    def active(self) -> int:
        return len(self._running)

    @property
    def codes_in_use(self) -> frozenset[str]:
        return frozenset(self._codes)

    def start(self) -> Deferred[Ground]:
        """Start the warm parent; fires with the ground that it found."""
        self._spawn()
        return self._ready

    def stop(self) -> Deferred[None]:
        """End the warm parent, and so all sandboxes; fires when none is left."""
        self._stopping = Deferred()
        if self._transport is None:
            self._stopping.callback(None)
        else:
            self._transport.closeChildFD(0)
            impatient = self._reactor.callLater(2.0, self._transport.signalProcess, "KILL")
            self._stopping.addBoth(lambda _: impatient.active() and impatient.cancel() and None)
        return self._stopping

    def invoke(
        self, request: str, function: Function, code: Path, region: str, event: str
    ) -> Deferred[Outcome]:
        """Start it; `request` is its id, which no other has that runs. The Deferred never fails."""
        self._number += 1
        tmpfs = function.ephemeral if function.ephemeral <= self._tmp_memory else 0
        order = Order(
            id=request,
            function=function.name,
            arn=arn_of(function.name, region),
            handler=function.handler,
            timeout=function.timeout,
            memory=function.memory,
            tmpfs=tmpfs,
            region=region,
            environment=function.environment,
            code=self._shown(code),
            folder=str(self._home / "sandboxes" / f"{request}.{self._number}"),
            log=str(self._new_log(function.name, request)),
            event=event,
        )
        done: Deferred[Outcome] = Deferred()
        self._running[request] = _Running(order, done)
        self._codes[str(code)] += 1
        self._tmp_memory -= tmpfs
        done.addBoth(self._finished, order, str(code))
        if self._transport is not None:
            self._transport.writeToChild(0, order.to_line())
        return done

    def _shown(self, code: Path) -> str:
        """Return where the sandbox sees `code`."""
        return moved(str(code), self._ground.place if self._ground else "")

    def _finished(self, outcome: Outcome, order: Order, code: str) -> Outcome:
        self._tmp_memory += order.tmpfs
        self._codes[code] -= 1
        if not self._codes[code]:
            del self._codes[code]
            self.on_code_unused(order.function)
        if not self._running:
            self.on_idle()
        return outcome

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

    def _spawn(self) -> None:
        ground = Ground(
            functions=str(self._home / "functions"),
            search_path=own_search_path(),
            checkout=CHECKOUT,
            why_shared=self._why_shared,
        )
        interpreter = os.path.realpath(sys.executable)
        arguments = [interpreter, "-S", "-P", "-m", "mu.engines.local.enclosure", ground.to_json()]
        self._first_line = True
        self._started = self._reactor.seconds()
        self._transport = self._reactor.spawnProcess(
            WarmParentProtocol(self._told, self._ended),
            interpreter,
            arguments,
            env={**os.environ, "PYTHONPATH": CHECKOUT},
            childFDs={0: "w", 1: "r", 2: 2},
        )

    def _told(self, line: bytes) -> None:
        if self._first_line:
            self._first_line = False
            self._ground = Ground.from_json(line.decode())
            self._why_shared = self._ground.why_shared
            if not self._ready.called:
                self._ready.callback(self._ground)
            return
        report = Report.from_line(line)
        running = self._running.pop(report.id, None)
        if running is not None:
            self._conclude(running, report.status)

    def _conclude(self, running: _Running, status: int) -> None:
        order = running.order
        folder = Path(order.folder)
        failed = status != ANSWERED
        if status in (ANSWERED, FAILED):
            payload = (folder / "answer").read_bytes()
        else:
            how = "signal: killed" if status == -9 else f"exit status {status}"
            why = f"Runtime exited with error: {how}"
            payload = error_payload(order.id, "Runtime.ExitError", why)
        if failed:
            self.log.info(
                "{function} {request}: {payload}",
                function=order.function,
                request=order.id,
                payload=payload[:300].decode(errors="replace"),
            )
        outcome = Outcome(payload, failed, Path(order.log))
        self._in_thread(remove_tree, folder)
        running.done.callback(outcome)

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
                RuntimeError(f"sandboxes cannot be started ({self._home}/engine.log): {why}")
            )
        else:
            self.log.warn(
                "the warm parent ended ({why}) and {lost} sandboxes with it; starting another",
                why=why or "by itself",
                lost=len(lost),
            )
            soon = self._reactor.seconds() - self._started > RESTART_PAUSE_S
            self._reactor.callLater(0 if soon else RESTART_PAUSE_S, self._restart)

    def _restart(self) -> None:
        if self._stopping is not None:
            return
        self._spawn()
        for running in self._running.values():
            self._transport.writeToChild(0, running.order.to_line())


def remove_tree(folder: Path) -> None:
    """Remove `folder` even where a command has left directories that may not be written."""
    for path, directories, _ in os.walk(folder):
        for name in directories:
            inner = os.path.join(path, name)
            if not os.path.islink(inner):
                os.chmod(inner, 0o700)
    shutil.rmtree(folder, ignore_errors=True)
