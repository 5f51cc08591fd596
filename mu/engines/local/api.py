"""The engine process: an endpoint with AWS Lambda's API that runs bundles on this machine.

    python -m mu.engines.local.api --home DIR --port N

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

from mu.engines.local.calls import LambdaCalls
from mu.engines.local.functions import FunctionStore
from mu.engines.local.http import LambdaResource, QuietSite
from mu.engines.local.pool import SandboxPool

LOG_LIMIT = 2**20
log = Logger("mu.engines.local.api")


class CannotStart(Exception):
    """The engine cannot start; the message is one sentence for the user."""


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m mu.engines.local.api")
    parser.add_argument("--home", type=Path, required=True, help="the daemon's home folder")
    parser.add_argument("--port", type=int, default=13590, help="0 picks a free one")
    parser.add_argument("--linger", type=float, default=60.0, help="seconds, once the daemon left")
    parser.add_argument("--concurrency", type=int, default=1000, help="sandboxes at a time")
    parser.add_argument("--shared-tmp", action="store_true", help="do without namespaces")
    return parser.parse_args(arguments)


class Lifetime:
    """Ends the engine once no daemon is attached and nothing has run or asked for `linger` s."""

    def __init__(self, reactor: Any, pool: SandboxPool, linger: float) -> None:
        self._reactor, self._pool, self._linger = reactor, pool, linger
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
        if not self._attached and not self._pool.active:
            log.info("no daemon, and nothing has run for {linger} s", linger=self._linger)
            self._reactor.stop()


def open_log(folder: Path) -> TextIO:
    """Send this process's and its children's output to the log; a full one is kept as .1."""
    path = folder / "engine.log"
    if path.exists() and path.stat().st_size > LOG_LIMIT:
        path.replace(path.with_suffix(".log.1"))
    file = path.open("a", buffering=1)
    os.dup2(file.fileno(), 2)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return file


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
    pool = SandboxPool(reactor, folder, shared_tmp=options.shared_tmp)
    reactor.addSystemEventTrigger("before", "shutdown", pool.stop)
    try:
        ground = yield pool.start()
    except RuntimeError as error:
        raise CannotStart(str(error)) from error
    if ground.shared_tmp:
        log.warn("sandboxes share the machine's /tmp: {why}", why=ground.why_shared)
    engine: dict[str, Any] = {"id": uuid.uuid4().hex, "pid": os.getpid()}
    engine |= {"private_tmp": not ground.shared_tmp, "why_shared": ground.why_shared}
    calls = LambdaCalls(reactor, store, pool, options.concurrency)
    lifetime = Lifetime(reactor, pool, options.linger)
    site = QuietSite(LambdaResource(calls, engine, lifetime.touched, lifetime.attached))
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
        observer = textFileLogObserver(open_log(folder))
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
