"""The engine process: an endpoint with the AWS Lambda API that runs bundles on this machine.

    python -m mu.engines.local --home DIR --port N

It belongs to the home folder, not to the daemon that started it: it survives when the daemon is
killed, and the next daemon finds it through <home>/local/engine.json. It ends on SIGTERM, or when
no daemon has been connected and nothing has run for a while.
"""

import argparse
import fcntl
import json
import os
import sys
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO, cast

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError, ReactorNotRunning
from twisted.internet.protocol import ServerFactory
from twisted.logger import globalLogBeginner, textFileLogObserver
from twisted.python.failure import Failure
from twisted.python.logfile import LogFile

from mu.clock import keep_steady
from mu.engines.local.endings import Endings
from mu.engines.local.faults import NO_FAULTS, FaultInjector, Faults
from mu.engines.local.http import LambdaResource, QuietSite
from mu.engines.local.key import KeyFileError, make_key, read_key
from mu.engines.local.lifetime import Lifetime
from mu.engines.local.neighbours import started_at
from mu.engines.local.operations import LambdaOperations
from mu.engines.local.pool import SandboxPool
from mu.engines.local.queue import InvocationLimits, InvocationQueue
from mu.engines.local.role import ProfileKeys
from mu.engines.local.s3_server import EmbeddedS3
from mu.engines.local.signatures import Verifier
from mu.engines.local.store import FunctionStore
from mu.engines.reactors import ILocalReactor
from mu.engines.signing import Credentials
from mu.home_watch import HomeWatch
from mu.logs import DaemonLogger
from mu.net.host_headers import AllowedHosts, split_hosts

LOG_LIMIT = 2**20
log = DaemonLogger("mu.engines.local")


class CannotStart(Exception):
    """The engine cannot start; the message is one sentence for the user."""


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m mu.engines.local")
    parser.add_argument("--home", type=Path, required=True, help="the daemon's home folder")
    parser.add_argument(
        "--port", type=int, default=13590, help="port to listen on; 0 picks a free port"
    )
    parser.add_argument(
        "--linger",
        type=float,
        default=60.0,
        help="seconds before the engine ends without a daemon or an invocation",
    )
    parser.add_argument(
        "--concurrency", type=int, default=1000, help="maximum number of concurrent invocations"
    )
    parser.add_argument(
        "--invoke-rate",
        type=float,
        default=0,
        help="maximum calls of Invoke per second; 0: no limit",
    )
    parser.add_argument(
        "--retry-pauses",
        type=float,
        nargs=2,
        default=(60.0, 120.0),
        help="seconds before the first and the second retry of a failed event",
    )
    parser.add_argument(
        "--tmp-memory",
        type=int,
        default=half_of_memory(),
        help="MB of memory for the /tmp of all sandboxes together",
    )
    parser.add_argument(
        "--s3-port", type=int, default=0, help="port of the embedded S3 server; 0 picks a free port"
    )
    parser.add_argument("--shared-tmp", action="store_true", help="do not use namespaces")
    parser.add_argument(
        "--faults",
        type=_faults,
        default=NO_FAULTS,
        help='as in mu.conf, for example "throttle=0.3 seed=7"',
    )
    parser.add_argument(
        "--allowed-hosts",
        type=split_hosts,
        default=[],
        help="names for this machine besides localhost; see [mu] in mu.conf",
    )
    return parser.parse_args(arguments)


def _faults(text: str) -> Faults:
    try:
        return Faults.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def half_of_memory() -> int:
    """Return half of the memory of this machine or container, in MB."""
    most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        most = min(most, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):
        log.debug("found no memory limit of a container")
    return most // 2**21


class EngineLog(LogFile):
    """The log of this process and its children's standard error; a full one is renamed to .1."""

    def _openFile(self) -> None:
        super()._openFile()
        os.dup2(self._file.fileno(), 2)


def lock(folder: Path) -> TextIO:
    """Lock this home folder for this engine, until the process ends. Raises CannotStart."""
    held = (folder / "engine.lock").open("a")
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise CannotStart(f"another engine is running for {folder.parent}") from error
    return held


def write_json(path: Path, fields: Mapping[str, object]) -> None:
    new = path.with_suffix(".new")
    new.touch(mode=0o600)
    new.write_text(json.dumps(fields) + "\n")
    new.replace(path)


async def serve(reactor: ILocalReactor, options: argparse.Namespace, folder: Path) -> None:
    """Listen, and print where. Raises CannotStart."""
    try:
        make_key(folder.parent)
    except (OSError, KeyFileError) as error:
        raise CannotStart(str(error)) from error
    store = FunctionStore(folder / "functions")
    pool = SandboxPool(
        reactor, folder, tmp_memory=options.tmp_memory, shared_tmp=options.shared_tmp
    )
    reactor.addSystemEventTrigger("before", "shutdown", pool.stop)
    keys = ProfileKeys(os.environ, reactor)
    pool.role = keys.variables
    finding = keys.start()
    try:
        setup = await pool.start()
    except RuntimeError as error:
        raise CannotStart(str(error)) from error
    await finding
    if setup.shared_tmp:
        log.warn(
            "sandboxes share the machine's /tmp, and can read this home: {why}",
            why=setup.why_shared,
        )
    pid = os.getpid()
    engine: dict[str, object] = {"id": uuid.uuid4().hex, "pid": pid, "started": started_at(pid)}
    engine |= {"private_tmp": not setup.shared_tmp, "why_shared": setup.why_shared}
    limits = InvocationLimits(options.concurrency, options.invoke_rate, tuple(options.retry_pauses))
    endings = Endings()
    invocations = InvocationQueue(reactor, store, pool, limits, endings.began, endings.add)
    faults = FaultInjector(options.faults)
    if options.faults != NO_FAULTS:
        log.warn("fault injection is on: {faults}", faults=str(options.faults))
    calls = LambdaOperations(reactor, store, pool, invocations, faults)
    lifetime = Lifetime(reactor, lambda: invocations.idle, options.linger, reactor.stop)
    pool.on_idle = lifetime.touched
    verifier = Verifier(lambda: _key_of(folder.parent), time.time)
    hosts = AllowedHosts(options.allowed_hosts)
    s3 = EmbeddedS3(folder.parent, options.s3_port, reactor)
    reactor.addSystemEventTrigger("before", "shutdown", s3.stop)
    resource = LambdaResource(
        calls,
        engine,
        lifetime.touched,
        lifetime.attached,
        s3.start,
        faults,
        verifier,
        hosts,
        endings,
    )
    site = cast(ServerFactory, QuietSite(resource))
    try:
        port = reactor.listenTCP(options.port, site, interface="127.0.0.1", backlog=1024)
    except CannotListenError as error:
        why = error.socketError.strerror or str(error.socketError)
        raise CannotStart(f"cannot listen on 127.0.0.1:{options.port}: {why}") from error
    engine["port"] = cast(IPv4Address, port.getHost()).port
    write_json(folder / "engine.json", engine)
    remove = (folder / "engine.json").unlink
    reactor.addSystemEventTrigger("after", "shutdown", remove, missing_ok=True)

    def home_gone(gone: Path) -> None:
        log.critical("the engine ends: {gone} was removed or replaced", gone=str(gone))
        _stop(reactor)

    HomeWatch(reactor, home_gone, folder, folder / "engine.lock").check()
    s3.resume()
    log.info("engine {id} listens on 127.0.0.1:{port}", id=engine["id"], port=engine["port"])
    _tell_starter(json.dumps(engine))


def _key_of(home: Path) -> Credentials | None:
    try:
        return read_key(home)
    except (OSError, KeyFileError) as error:
        log.error("cannot read the key of this home: {why}", why=str(error))
        return None


def _tell_starter(line: str) -> None:
    """Print one line for the process that started this one, if it still exists; close the pipe."""
    try:
        os.write(1, line.encode() + b"\n")
    except OSError:
        log.info("the process that started this engine has ended")
    os.dup2(2, 1)


def _stop(reactor: ILocalReactor) -> None:
    try:
        reactor.stop()
    except ReactorNotRunning:
        log.debug("the reactor is already stopping")


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    if os.getpid() != os.getsid(0):
        try:
            os.setsid()
        except PermissionError:
            log.debug("already a process group leader")
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
    from twisted.internet import reactor as installed

    reactor = cast(ILocalReactor, installed)
    keep_steady(reactor)
    started = Deferred.fromCoroutine(serve(reactor, options, folder))

    def failed(failure: Failure) -> None:
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
    sys.exit(main())
