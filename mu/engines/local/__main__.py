"""The engine process: an endpoint with AWS Lambda's API that runs bundles on this machine.

    python -m mu.engines.local --home DIR --port N

It belongs to the home folder, not to the daemon that started it: it goes on when the daemon is
killed, and the next one finds it by <home>/local/engine.json. It ends at SIGTERM, or when no
daemon holds a connection to it and nothing has run for a while.
"""

import argparse
import fcntl
import json
import os
import sys
import uuid
from collections.abc import Generator
from pathlib import Path
from typing import Any, TextIO

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.error import CannotListenError, ReactorNotRunning
from twisted.logger import Logger, globalLogBeginner, textFileLogObserver
from twisted.python.logfile import LogFile

from mu.engines.local.calls import LambdaCalls
from mu.engines.local.faults import NO_FAULTS, BadDays, Faults
from mu.engines.local.http import LambdaResource, QuietSite
from mu.engines.local.pool import SandboxPool
from mu.engines.local.queue import Invocations, Limits
from mu.engines.local.store import FunctionStore

LOG_LIMIT = 2**20
log = Logger("mu.engines.local")


class CannotStart(Exception):
    """The engine cannot start; the message is one sentence for the user."""


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m mu.engines.local")
    parser.add_argument("--home", type=Path, required=True, help="the daemon's home folder")
    parser.add_argument("--port", type=int, default=13590, help="0 picks a free one")
    parser.add_argument("--linger", type=float, default=60.0, help="seconds, once the daemon left")
    parser.add_argument("--concurrency", type=int, default=1000, help="sandboxes at a time")
    parser.add_argument(
        "--invoke-rate", type=float, default=0, help="calls of Invoke per second; 0: any number"
    )
    parser.add_argument(
        "--retry-pauses",
        type=float,
        nargs=2,
        default=(60.0, 120.0),
        help="seconds before an event that failed runs again, and again",
    )
    parser.add_argument(
        "--tmp-memory", type=int, default=half_of_memory(), help="MB for the /tmp of all sandboxes"
    )
    parser.add_argument("--shared-tmp", action="store_true", help="do without namespaces")
    parser.add_argument(
        "--faults", type=_faults, default=NO_FAULTS, help='as in mu.conf, say "throttle=0.3 seed=7"'
    )
    return parser.parse_args(arguments)


def _faults(text: str) -> Faults:
    try:
        return Faults.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def half_of_memory() -> int:
    """Return half of what this machine, or this container, has; in MB."""
    most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        most = min(most, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):
        log.debug("no limit on this container's memory is known")
    return most // 2**21


class Lifetime:
    """Ends the engine once no daemon is attached and nothing has run or asked for `linger` s."""

    def __init__(
        self, reactor: Any, pool: SandboxPool, invocations: Invocations, linger: float
    ) -> None:
        self._reactor, self._invocations, self._linger = reactor, invocations, linger
        self._attached = 0
        self._timer: Any = None
        pool.on_idle = self.touched
        self.touched()

    def attached(self, left: Deferred[None]) -> None:
        self._attached += 1
        left.addBoth(self._left)

    def _left(self, _: object) -> None:
        self._attached -= 1
        self.touched()

    def touched(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.reset(self._linger)
        else:
            self._timer = self._reactor.callLater(self._linger, self._check)

    def _check(self) -> None:
        if self._attached:
            return
        if not self._invocations.idle:
            self.touched()
            return
        log.info("no daemon, and nothing has run for {linger} s", linger=self._linger)
        self._reactor.stop()


class EngineLog(LogFile):
    """The log of this process, and what it and its children print; a full one is kept as .1."""

    def _openFile(self) -> None:
        super()._openFile()
        os.dup2(self._file.fileno(), 2)


def lock(folder: Path) -> TextIO:
    """Be the only engine of this home; held until this process ends."""
    held = (folder / "engine.lock").open("a")
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise CannotStart(f"another engine is running for {folder.parent}") from error
    return held


def write_json(path: Path, told: dict[str, Any]) -> None:
    new = path.with_suffix(".new")
    new.touch(mode=0o600)
    new.write_text(json.dumps(told) + "\n")
    new.replace(path)


@inlineCallbacks
def serve(
    reactor: Any, options: argparse.Namespace, folder: Path
) -> Generator[Deferred[Any], Any, None]:
    """Listen, and say where; raises CannotStart."""
    store = FunctionStore(folder / "functions")
    pool = SandboxPool(
        reactor, folder, tmp_memory=options.tmp_memory, shared_tmp=options.shared_tmp
    )
    reactor.addSystemEventTrigger("before", "shutdown", pool.stop)
    try:
        ground = yield pool.start()
    except RuntimeError as error:
        raise CannotStart(str(error)) from error
    if ground.shared_tmp:
        log.warn("sandboxes share the machine's /tmp: {why}", why=ground.why_shared)
    engine: dict[str, Any] = {"id": uuid.uuid4().hex, "pid": os.getpid()}
    engine |= {"private_tmp": not ground.shared_tmp, "why_shared": ground.why_shared}
    limits = Limits(options.concurrency, options.invoke_rate, tuple(options.retry_pauses))
    invocations = Invocations(reactor, store, pool, limits)
    bad_days = BadDays(options.faults)
    if options.faults != NO_FAULTS:
        log.warn("bad days are imitated: {faults}", faults=str(options.faults))
    calls = LambdaCalls(reactor, store, pool, invocations, bad_days)
    lifetime = Lifetime(reactor, pool, invocations, options.linger)
    resource = LambdaResource(calls, engine, lifetime.touched, lifetime.attached, bad_days)
    site = QuietSite(resource)
    try:
        port = reactor.listenTCP(options.port, site, interface="127.0.0.1", backlog=1024)
    except CannotListenError as error:
        why = error.socketError.strerror or str(error.socketError)
        raise CannotStart(f"cannot listen on 127.0.0.1:{options.port}: {why}") from error
    engine["port"] = port.getHost().port
    write_json(folder / "engine.json", engine)
    remove = (folder / "engine.json").unlink
    reactor.addSystemEventTrigger("after", "shutdown", remove, missing_ok=True)
    log.info("engine {id} listens on 127.0.0.1:{port}", id=engine["id"], port=engine["port"])
    _tell_starter(json.dumps(engine))


def _tell_starter(line: str) -> None:
    """Say one line to who started this process, who may have gone, and close the pipe."""
    try:
        os.write(1, line.encode() + b"\n")
    except OSError:
        log.info("nobody waits for this engine's start")
    os.dup2(2, 1)


def _stop(reactor: Any) -> None:
    try:
        reactor.stop()
    except ReactorNotRunning:
        log.debug("it is stopping already")


def main(arguments: list[str]) -> int:
    options = parse_arguments(arguments)
    if os.getpid() != os.getsid(0):
        try:
            os.setsid()
        except PermissionError:
            log.debug("already the leader of a group")
    folder: Path = options.home.resolve() / "local"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.chdir("/")
    status = 0
    try:
        held = lock(folder)
        opened = EngineLog("engine.log", str(folder), LOG_LIMIT, maxRotatedFiles=1)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        observer = textFileLogObserver(opened)  # type: ignore[arg-type]
        globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    except CannotStart as error:
        _tell_starter(json.dumps({"error": str(error)}))
        return 1
    from twisted.internet import reactor

    started = serve(reactor, options, folder)

    def failed(failure: Any) -> None:
        nonlocal status
        status = 1
        if not failure.check(CannotStart):
            log.failure("the engine cannot start", failure)
        _tell_starter(json.dumps({"error": failure.getErrorMessage()}))
        reactor.callWhenRunning(_stop, reactor)

    started.addErrback(failed)
    reactor.run()
    held.close()
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
