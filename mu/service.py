"""The daemon: connects all parts, starts and stops them. No other module knows them all."""

import gc
import json
import math
import os
import signal
import socket
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any, cast

from twisted.application.service import Service
from twisted.internet import tcp
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import (
    IDelayedCall,
    IListeningPort,
    IProtocolFactory,
    IReactorSocket,
)
from twisted.internet.protocol import ServerFactory
from twisted.internet.task import deferLater
from twisted.internet.threads import blockingCallFromThread, deferToThreadPool
from twisted.logger import Logger
from twisted.python import usage
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from mu import hosts
from mu.aws.s3 import EMBEDDED_BUCKET, S3Error, S3Place
from mu.config import Config, ConfigError, read_config, reloaded
from mu.control import Control
from mu.engines.connections import Timeouts
from mu.engines.lambda_api import (
    FindCredentials,
    LambdaEngine,
)
from mu.engines.local.key import S3_KEY, make_key
from mu.engines.local.process import LocalEngineError, LocalEngineProcess
from mu.engines.reactors import IClientReactor, ILocalReactor
from mu.engines.routes import Route, aws_credentials, aws_route
from mu.home import (
    Presence,
    allow_many_files,
    close_to_others,
    lock,
    open_port,
    read_token,
    write_private,
)
from mu.jobs.book import JobBook, PastJob
from mu.jobs.conductor import Conductor
from mu.jobs.job import Job
from mu.jobs.orders import read_order
from mu.jobs.recovery import find
from mu.jobs.spec import EXTERNAL, JobSpec
from mu.journal.archive import Archive
from mu.journal.database import JournalError
from mu.journal.ledger import Ledger, NoJournal
from mu.journal.records import Ordered
from mu.journal.writer import Journal, JournalReactor
from mu.net.certificates import Authority
from mu.net.hosts import AllowedHosts, split_hosts
from mu.net.transport import DirectTLSFactory, PromptServer
from mu.net.web import BoundedSite, TextResource
from mu.pipelines.s3 import find_with, look_up_from
from mu.protocol import WorkerFactory
from mu.registry import Registry
from mu.relay.hub import Relay
from mu.relay.transport import RelayServer, RelayTLSFactory
from mu.signals import LogFiles, Signals, ignore_hang_up

GOODBYE_S = 3.0
"""How long a stopping daemon waits for its workers to close their connections."""

HOME_CHECK_S = 1.0
"""How often the daemon checks that its home is still there."""
PRUNE_S = 600.0
"""How often ended jobs are pruned from the journal."""
BLOCKING_CALLS = 64
"""How many plans and finishes of pipelines may run at once, each in a thread."""
GC_THRESHOLDS = 50_000, 20, 20
"""Less frequent than Python's default: thousands of machines mean many objects that live long."""


class Options(usage.Options):
    """The command line of `twistd mu`."""

    longdesc = (
        "The mu coordinator: drives cloud-function workers with state machines. Order jobs at its"
        " HTTP control port."
    )
    optParameters = (
        ("config", "c", None, "the configuration file; etc/mu.conf lists all options"),
    )


class DaemonReactor(ILocalReactor, IClientReactor, JournalReactor, IReactorSocket):
    """What the daemon needs from Twisted's reactor."""


class _DaemonThread(Thread):
    """A thread that does not keep the process alive."""

    daemon = True


class _Threads(ThreadPool):
    """Runs calls of pipelines, which may block forever."""

    threadFactory = _DaemonThread


class MuService(Service):
    """The coordinator's ports, engines and jobs, for one configuration."""

    log = Logger()

    def __init__(self, config: Config, reactor: DaemonReactor, source: Path | None = None) -> None:
        """Open the home folder and the ports. Raises ConfigError if that fails.

        `source` is the file that the configuration comes from.
        """
        self._config = config
        self._source = source
        self._reactor = reactor
        home = config.home
        try:
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._ports_file = home / "ports.json"
            self._lock = lock(home)
            self._authority = Authority.at_home(home)
            self._token = read_token(home / "token")
            for said in map(close_to_others, (home / "token", home / "ca.key")):
                if said is not None:
                    self.log.warn("{said}", said=said)
            self._local_key = make_key(home) if config.local.enabled else None
            self._present = Presence(home, home / "lock")
        except (OSError, ValueError) as error:
            raise ConfigError(f"[mu] home = {home}: cannot use it: {error}") from None
        self._journal_file = home / "journal.db"
        last = self._last_ports() if config.journal.enabled else {}
        self._worker_socket = open_port(
            "worker", config.worker.host, config.worker.port, last.get("worker", 0)
        )
        self._control_socket = open_port(
            "control", config.control.host, config.control.port, last.get("control", 0)
        )
        self._relay_socket: socket.socket | None = None
        if config.relay.enabled:
            self._relay_socket = open_port(
                "relay", config.relay.host, config.relay.port, last.get("relay", 0)
            )
        self._ports_file.unlink(missing_ok=True)
        self._stopping = False
        self._checking_home: IDelayedCall | None = None
        self.ports: dict[str, int] = {}
        """The numbers of the listening ports, by name."""
        self._listening: list[IListeningPort] = []
        self._lambda_engines: dict[str, LambdaEngine] = {}
        self._local: LocalEngineProcess | None = None
        self._book = JobBook(config.jobs.keep, config.jobs.output_bytes)
        self._workers = WorkerFactory(self._book, config.worker, reactor)
        self._threads = _Threads(0, BLOCKING_CALLS, "mu-blocking")
        self._conductor: Conductor | None = None
        self._control: Control | None = None
        self._relay: Relay | None = None
        self._journal: Journal | None = None
        self._archive: Archive | None = None

    def startService(self) -> None:
        super().startService()
        self._log_files = LogFiles()
        signals = Signals(self._reactor, self._reload)
        self._reactor.callWhenRunning(signals.install)
        starting = Deferred.fromCoroutine(self._start())
        starting.addErrback(self._could_not_start)

    def stopService(self) -> Deferred[None]:
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    # ------------------------------------------------ starting

    async def _start(self) -> None:
        config = self._config
        allow_many_files()
        self._threads.start()
        self._check_home()
        look_up_from(config.launch.region)
        find_with(self._bucket_from_thread)
        registry = Registry.installed()
        self._lambda_engines["lambda"] = self._lambda("lambda", aws_route, aws_credentials())
        if config.local.enabled:
            self._lambda_engines["local"] = self._lambda(
                "local",
                lambda region: Route(f"http://127.0.0.1:{self.ports['local']}", region),
                lambda expired: self._local_key,
                lambda: self._local is not None and self._local.info is not None,
            )
        engines = registry.engines | self._lambda_engines
        default = config.launch.engine
        if default not in (known := {*engines, "local", EXTERNAL}):  # local may be switched off
            names = ", ".join(sorted(known))
            raise ConfigError(f"[launch] engine = {default} is unknown; the engines are {names}")
        ledger = self._open_journal()
        conductor = self._conductor = Conductor(
            config, self._book, ledger, self._authority, engines, self._in_thread, self._reactor
        )
        self._restore(conductor, registry, {*engines, EXTERNAL})
        self._listen_for_workers()
        conductor.coordinator.worker_port = self.ports["worker"]
        conductor.coordinator.relay = self._start_relay()
        conductor.coordinator.s3 = self._s3_of_workers
        if config.local.enabled:
            await self._start_local_engine()
        if self._stopping:
            return
        conductor.resume()
        control = self._control = Control(
            config, self._token, self._book, registry, conductor, {*engines, EXTERNAL}, self._bucket
        )
        ours = (config.control.host, config.launch.public_host)
        allowed = AllowedHosts([*ours, *split_hosts(config.mu.allowed_hosts)])
        site = BoundedSite(TextResource(control.app.resource()), config.control.max_body, allowed)
        self._listen("control", self._control_socket, site)
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        if self._archive is not None:
            self._archive.note("ports", json.dumps(self.ports))
        write_private(self._ports_file, json.dumps(self.ports) + "\n")
        self._warn_of_addresses()
        self.log.info(
            "mu is ready: home {home}, ports {ports}",
            home=str(config.home),
            ports=", ".join(f"{name} {number}" for name, number in self.ports.items()),
        )

    def _warn_of_addresses(self) -> None:
        """Warn of ports where no worker can come."""
        config = self._config
        ports = {"worker": config.worker.host}
        if self._relay_socket is not None and config.relay.address == "auto":
            ports["relay"] = config.relay.host
        public = config.launch.public_host
        for name, host in ports.items():
            if ":" in public and hosts.is_address(host) and ":" not in host:
                self.log.warn(
                    "public_host = {public} is an IPv6 address, and [{name}] host = {host} accepts"
                    " IPv4 only: unless something forwards to it, set it to ::",
                    public=public,
                    name=name,
                    host=host,
                )

    def _in_thread(self, call: Callable[..., Any], *args: Any) -> Deferred[Any]:
        return deferToThreadPool(self._reactor, self._threads, call, *args)

    # ------------------------------------------------ S3

    async def _bucket(self, bucket: str) -> S3Place:
        """Return where a bucket is; the embedded server is started for its own. Raises S3Error."""
        if bucket != EMBEDDED_BUCKET:
            return self._configured_s3()
        if self._local is None:
            raise S3Error(
                "the embedded S3 server needs the local engine, and [local] enabled is no: set"
                " [s3] bucket in mu.conf, or give the job a bucket"
            )
        try:
            await self._local.start_s3()
        except LocalEngineError as error:
            raise S3Error(str(error)) from None
        return self._embedded_s3(self._local.s3_port)

    def _bucket_from_thread(self, bucket: str) -> S3Place:
        """Return where a bucket is, for `plan` and `finish`."""
        if bucket != EMBEDDED_BUCKET:
            return self._configured_s3()
        asking = cast(Any, lambda: Deferred.fromCoroutine(self._bucket(bucket)))
        return cast(S3Place, blockingCallFromThread(self._reactor, asking))

    def _s3_of_workers(self, bucket: str, engine: str) -> S3Place:
        """Return where a bucket is for workers; those on AWS cannot reach the embedded server."""
        if bucket == EMBEDDED_BUCKET and engine in ("local", EXTERNAL):
            port = self._local.s3_port if self._local is not None else 0
            return self._embedded_s3(port) if port else self._configured_s3()
        return self._configured_s3()

    def _configured_s3(self) -> S3Place:
        s3 = self._config.s3
        return S3Place(
            _unless_auto(s3.endpoint),
            _unless_auto(s3.region),
            s3.addressing,
            _unless_none(s3.profile),
        )

    def _embedded_s3(self, port: int) -> S3Place:
        key = make_key(self._config.home, S3_KEY)
        url = f"http://127.0.0.1:{port}"
        return S3Place(url, "", "path", "", key.access_key, key.secret_key)

    # ------------------------------------------------ the journal

    def _last_ports(self) -> dict[str, int]:
        """Return the ports that workers of running jobs may still connect to."""
        try:
            archive = Archive(self._journal_file)
        except JournalError as error:
            raise ConfigError(str(error)) from None
        try:
            ports = archive.ports() if archive.running() else {}
        except (ValueError, sqlite3.Error) as error:
            self.log.error(
                "{path}: the ports of the last start cannot be read: {error}; free ones are used",
                path=str(self._journal_file),
                error=str(error),
            )
            ports = {}
        archive.close()
        return ports

    def _open_journal(self) -> Ledger:
        options = self._config.journal
        if not options.enabled:
            return NoJournal()
        self._archive = Archive(self._journal_file)
        self._journal = Journal(
            self._journal_file, self._reactor, options.commit_s, self._journal_failed
        )
        self._present = Presence(self._config.home, self._config.home / "lock", self._journal_file)
        self._prune()
        return self._journal

    def _check_home(self) -> None:
        """Exit at once if the home is gone: nobody would know of a job that is ordered now."""
        gone = self._present.gone()
        if gone is None:
            self._checking_home = self._reactor.callLater(HOME_CHECK_S, self._check_home)
            return
        self.log.critical(
            "mu exits: {gone} was removed or replaced while mu was running. Put the home {home} back"
            " if it was moved, then start mu again",
            gone=str(gone),
            home=str(self._config.home),
        )
        os._exit(1)

    def _prune(self) -> None:
        if self._journal is not None:
            options = self._config.journal
            self._journal.prune(
                self._config.jobs.keep, options.keep_days * 86400, options.max_bytes
            )
            self._pruning = self._reactor.callLater(PRUNE_S, self._prune)

    def _restore(self, conductor: Conductor, registry: Registry, engines: set[str]) -> None:
        """Restore the jobs in the journal, running and ended."""
        archive = self._archive
        if archive is None:
            return
        for told, identity in archive.ended():
            try:
                self._book.add(PastJob(told, identity, archive.workers))
            except (AttributeError, LookupError, TypeError, ValueError) as error:
                self.log.error(
                    "{path}: an ended job cannot be read and is left out: {error}: {told}",
                    path=str(self._journal_file),
                    error=str(error),
                    told=f"{told!r:.200}",
                )

        def read_spec(ordered: Ordered) -> JobSpec:
            body = json.dumps(ordered.order).encode("ascii")
            spec = read_order(body, self._config, registry.pipelines, engines, ordered.key)
            return replace(spec, digest=ordered.digest)

        found, lost, stopped_at = find(archive, read_spec)
        conductor.restore(found, stopped_at)
        for job_id, (ordered, reason) in lost.items():
            conductor.bury(job_id, ordered, f"{reason} ({self._journal_file})")

    def _journal_failed(self, reason: str) -> None:
        """Exit at once: nothing reported from now on would survive a restart."""
        if self._present.gone() is not None:
            self._check_home()
        self.log.critical(
            "mu exits: {reason}. Free some space or repair it, then start mu again: running jobs"
            " resume",
            reason=reason,
        )
        self._ports_file.unlink(missing_ok=True)
        os._exit(1)

    # ------------------------------------------------ ports and engines

    def _listen_for_workers(self) -> None:
        identity = self._authority.mint_server(self._config.launch.public_host)
        options = self._authority.server_options(identity)
        factory = DirectTLSFactory(options, False, self._workers)
        port = self._listen("worker", self._worker_socket, factory)
        port.transport = PromptServer

    def _start_relay(self) -> str:
        """Return HOST:PORT of the relay for workers; empty: there is none."""
        options, host = self._config.relay, self._config.launch.public_host
        address = "" if options.address == "auto" else options.address
        if self._relay_socket is None:
            return address
        self._relay = Relay(
            options, self._config.home / "relay", RelayJobs(self._book), self._reactor
        )
        identity = self._authority.mint_server(host, hosts.split(address)[0] if address else host)
        tls = RelayTLSFactory(self._authority.server_options(identity), False, self._relay)
        self._listen("relay", self._relay_socket, tls).transport = RelayServer
        return address or hosts.join(host, self.ports["relay"])

    def _listen(self, name: str, opened: socket.socket, factory: IProtocolFactory) -> tcp.Port:
        port = self._reactor.adoptStreamPort(
            opened.fileno(), opened.family, cast(ServerFactory[Any], factory)
        )
        assert isinstance(port, tcp.Port)
        opened.close()  # the reactor has its own copy
        self._listening.append(port)
        self.ports[name] = port.getHost().port
        return port

    async def _start_local_engine(self) -> None:
        local = self._config.local
        self._local = LocalEngineProcess(
            self._config.home,
            local.port,
            reactor=self._reactor,
            concurrency=local.concurrency,
            invoke_rate=local.invoke_rate,
            linger_s=local.linger_s,
            faults=str(local.faults),
            allowed_hosts=self._config.mu.allowed_hosts,
            s3_port=self._config.s3.port,
            s3_profile=_unless_none(self._config.s3.profile),
        )
        self.ports["local"] = await self._local.start()

    def _lambda(
        self,
        name: str,
        find_route: Callable[[str], Route],
        credentials: FindCredentials,
        is_up: Callable[[], bool] = lambda: True,
    ) -> LambdaEngine:
        launch = self._config.launch
        first_byte_s = launch.timeout_s if name == "local" else launch.first_byte_s
        timeouts = Timeouts(launch.timeout_s, first_byte_s, launch.idle_s, launch.keepalive_s)
        growth = launch.growth if name == "lambda" else 0
        return LambdaEngine(name, self._reactor, find_route, credentials, timeouts, growth, is_up)

    def _could_not_start(self, failure: Failure) -> None:
        self.log.critical("mu cannot start: {why}", why=failure.getErrorMessage())
        self.log.debug("{trace}", trace=failure.getTraceback())
        # The reactor's own way to an exit status other than 0; it may not be running yet.
        self._reactor.callWhenRunning(os.kill, os.getpid(), signal.SIGTERM)

    # ------------------------------------------------ reloading

    def _reload(self) -> None:
        """Do what SIGHUP asks for: take what can change while the daemon runs, and log what cannot."""
        if self._stopping or self._control is None or self._conductor is None:
            self.log.info("received SIGHUP while starting or stopping: nothing is reloaded")
            return
        try:
            files = ", ".join(self._log_files.reopen()) or "none"
            self.log.info("received SIGHUP; log files reopened: {files}", files=files)
        except OSError as error:
            self.log.error("a log file cannot be reopened: {error}", error=error)
        try:
            token = read_token(self._config.home / "token")
            self.log.info("token: {what}", what="unchanged" if token == self._token else "reloaded")
            self._token = token
        except (OSError, ValueError) as error:
            self.log.error("the old token stays in use: {error}", error=error)
        self._reload_config()
        self._control.reload(self._config, self._token)
        self._conductor.reload(self._config)
        self.log.info("not reloaded: the ports, the CA and the local engine need a restart")

    def _reload_config(self) -> None:
        if self._source is None:
            self.log.info("configuration: there is no file, so that nothing changed")
            return
        try:
            new = read_config(self._source)
        except ConfigError as error:
            self.log.error("the old configuration stays in use: {error}", error=error)
            return
        self._config, taken, left = reloaded(self._config, new)
        self.log.info(
            "configuration {file}: reloaded for new jobs: {taken}; needs a restart: {left}",
            file=str(self._source),
            taken=", ".join(taken) or "nothing",
            left=", ".join(left) or "nothing",
        )

    # ------------------------------------------------ stopping

    async def _stop(self) -> None:
        """Close the ports and stop the local engine, unless jobs are kept for the next start."""
        self._stopping = True
        if self._checking_home is not None and self._checking_home.active():
            self._checking_home.cancel()
        self._ports_file.unlink(missing_ok=True)
        keep = self._journal is not None and self._config.mu.on_stop == "keep"
        running = sum(job.active for job in self._book.live()) if keep else 0
        if running:
            self.log.info("{running} running jobs will resume at the next start", running=running)
        if self._conductor is not None:
            self._conductor.stop(keep)
        for connection in list(self._workers.connections):
            connection.stop("the coordinator was stopped", keep)
        await DeferredList([maybeDeferred(port.stopListening) for port in self._listening])
        until = self._reactor.seconds() + GOODBYE_S
        while self._workers.connections and self._reactor.seconds() < until:
            await deferLater(self._reactor, 0.05, lambda: None)
        for connection in list(self._workers.connections):
            connection.transport.abortConnection()
        ending = [engine.stop() for engine in self._lambda_engines.values()]
        if self._local is not None and running:
            self._local.leave()
        elif self._local is not None:
            ending.append(self._local.stop())
        if self._relay is not None:
            ending.append(self._relay.stop())
        if self._journal is not None:
            self._pruning.cancel()
            ending.append(self._journal.close())
        await DeferredList(ending, consumeErrors=True)
        # This joins its threads, which may be in a plan or finish that never returns.
        Thread(target=self._threads.stop, daemon=True).start()


class RelayJobs:
    """Answers the relay's questions about jobs."""

    def __init__(self, book: JobBook) -> None:
        self._book = book

    def keeps(self, job_id: str) -> float:
        job = self._book.get(job_id)
        return math.inf if isinstance(job, Job) and not job.ended and job.relay_keep else 0.0

    def ended(self, job_id: str) -> bool:
        job = self._book.get(job_id)
        return job is not None and job.ended


def _unless_auto(text: str) -> str:
    return "" if text == "auto" else text


def _unless_none(text: str) -> str:
    return "" if text == "none" else text


def makeService(options: Options, reactor: DaemonReactor | None = None) -> MuService:
    """Return the daemon's service. Raises SystemExit with one line for a bad configuration."""
    if reactor is None:
        from twisted.internet import reactor as installed

        reactor = cast(DaemonReactor, installed)
    path = None if options["config"] is None else Path(options["config"]).absolute()
    ignore_hang_up()
    try:
        return MuService(read_config(path), reactor, path)
    except ConfigError as error:
        raise SystemExit(f"mu: {error}") from None
