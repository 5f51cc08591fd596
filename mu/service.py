"""The daemon: connects all parts, starts and stops them. No other module knows them all."""

import gc
import os
import signal
from collections.abc import Callable, Set
from pathlib import Path
from threading import Thread
from typing import Any, cast

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.python import usage
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from mu import hosts
from mu.access import Access
from mu.blobs import Blobs
from mu.buckets import Buckets
from mu.clock import keep_steady
from mu.config import Config, ConfigError, read_config
from mu.control import Control
from mu.engines.builtin import BuiltinEngines, EngineReactor
from mu.engines.local.key import make_key
from mu.examiner import Examiner
from mu.home import (
    HAPROXY_PEM,
    Tokens,
    allow_many_files,
    close_to_others,
    lock,
    read_session_key,
    read_tokens,
)
from mu.home_watch import HomeWatch
from mu.in_thread import P, T
from mu.jobs.book import JobBook
from mu.jobs.conductor import Conductor
from mu.jobs.reached import Reached
from mu.jobs.relayed import RelayJobs
from mu.jobs.restore import restore
from mu.jobs.spec import EXTERNAL
from mu.journal.database import JournalError
from mu.journal.keeper import JournalKeeper
from mu.journal.writer import JournalReactor
from mu.logs import DaemonLogger
from mu.metrics import LagProbe, Metrics
from mu.net.certificates import Authority
from mu.net.handover import HandoverFactory, PromptUnixServer
from mu.net.host_headers import AllowedHosts, split_hosts
from mu.net.hub import Hub
from mu.net.transport import PromptServer, TLSFactory
from mu.net.web import BoundedSite, TextResource
from mu.notifier import Notifier, make_agent
from mu.output.files import OutputLimits
from mu.output.keeper import OutputKeeper
from mu.page.feed import Feeds
from mu.page.files import read_files
from mu.pipelines import blobs, s3
from mu.plugins import Engine
from mu.ports import DoorReactor, Ports
from mu.protocol import WorkerFactory
from mu.registry import Registry, engine_site
from mu.relay.hub import Relay
from mu.relay.transport import RelayServer, RelayTLSFactory
from mu.reload import Reloader
from mu.signals import Signals, ignore_hang_up
from mu.totals import Totals

GOODBYE_S = 3.0
"""How long a stopping daemon waits for its workers to close their connections."""
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


class DaemonReactor(EngineReactor, JournalReactor, DoorReactor):
    """What the daemon needs from Twisted's reactor."""


class _DaemonThread(Thread):
    """A thread that does not keep the process alive."""

    daemon = True


class _Threads(ThreadPool):
    """Runs calls of pipelines, which may block forever."""

    threadFactory = _DaemonThread


class MuService(Service):
    """The coordinator's ports, engines and jobs, for one configuration."""

    log = DaemonLogger()

    def __init__(self, config: Config, reactor: DaemonReactor, source: Path | None = None) -> None:
        """Open the home folder and the ports. Raises ConfigError if that fails.

        `source` is the file that the configuration comes from.
        """
        self._source = source
        self._reactor = reactor
        self._stopping = False
        home = config.home
        try:
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = lock(home)
            self._authority = Authority.at_home(home)
            self._reloader = Reloader(config, read_tokens(home), source)
            self._session_key = read_session_key(home)
            secret = ("token", "read-token", "session-key", "ca.key")
            for said in map(close_to_others, (home / name for name in secret)):
                if said is not None:
                    self.log.warn("{said}", said=said)
            self._local_key = make_key(home) if config.local.enabled else None
            self._watch = HomeWatch(reactor, self._home_gone, home, home / "lock")
        except (OSError, ValueError) as error:
            raise ConfigError(f"[mu] home = {home}: cannot use it: {error}") from None
        self._totals = Totals()
        self._threads = _Threads(0, BLOCKING_CALLS, "mu-blocking")
        self._log_thread = _Threads(0, 1, "mu-logs")
        self._output = OutputKeeper(
            home / "logs", _output_limits(config), reactor, self._in_log_thread, self._in_thread
        )
        self._journal = JournalKeeper(
            home / "journal.db",
            config,
            reactor,
            self._journal_failed,
            self._output.forget,
            self._totals.commits,
        )
        try:
            last = self._journal.last_ports()
        except JournalError as error:
            raise ConfigError(str(error)) from None
        self._ports = Ports(config, last, reactor, home / "ports.json")
        self._engines = BuiltinEngines(config, self._local_key, reactor)
        self._buckets = Buckets(lambda: self._config, self._engines, reactor)
        forgotten = (lambda jobs: None) if config.journal.enabled else self._output.forget
        self._book = JobBook(config.jobs.keep, forgotten)
        self._blobs = Blobs(home / "blobs", config.blobs.max_bytes, config.blobs.total_bytes)
        self._workers = WorkerFactory(self._book, config.worker, reactor, self._totals, self._blobs)
        self._lag = LagProbe(reactor, self._totals.loop_lag)
        self._notifier = Notifier(
            lambda: self._config.notify,
            self._book,
            self._totals,
            reactor,
            make_agent(reactor, config.notify.timeout_s),
        )
        self._plugged: list[Engine] = []
        self._conductor: Conductor | None = None
        self._control: Control | None = None
        self._relay: Relay | None = None

    @property
    def _config(self) -> Config:
        return self._reloader.config

    def startService(self) -> None:
        super().startService()
        self._reloader.find_logs()
        signals = Signals(self._reactor, self._reload)
        handled: Deferred[None] = Deferred()
        self._reactor.callWhenRunning(signals.install)
        self._reactor.callWhenRunning(handled.callback, None)
        starting = Deferred.fromCoroutine(self._start(handled))
        starting.addErrback(self._could_not_start)

    def stopService(self) -> Deferred[None]:
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    # ------------------------------------------------ starting

    async def _start(self, handled: Deferred[None]) -> None:
        """Start; be ready once `handled` says that signals are handled."""
        config = self._config
        DaemonLogger.debugging = config.mu.debug
        allow_many_files()
        self._threads.start()
        self._log_thread.start()
        self._watch.check()
        self._set_up_s3(config)
        gc.disable()  # until it is ready: what a restart makes stays
        registry = Registry.installed()
        engines = registry.engines | self._engines.by_name
        _check_default(config.launch.engine, {*engines, "local", EXTERNAL})
        conductor = self._conductor = self._restored(registry, engines)
        self._listen_for_workers()
        self._start_plugins(registry)
        for engine in engines.values():
            engine.watch(conductor.watch)
        conductor.coordinator.worker_port = self._ports.numbers["worker"]
        conductor.coordinator.relay = self._start_relay()
        conductor.coordinator.s3 = self._buckets.of_workers
        if config.local.enabled:
            self._ports.numbers["local"] = await self._engines.start_local()
        if self._stopping:
            return
        conductor.resume()
        examiner = Examiner(
            lambda: self._config, self._source, self._local_key, self._ports.numbers, registry
        )
        self._control = Control(
            config,
            Access(config.control, self._reloader.tokens, self._session_key, self._reactor.seconds),
            self._book,
            registry,
            conductor,
            self._output.read,
            self._in_thread,
            {*engines, EXTERNAL},
            self._buckets.find,
            lambda body: self._in_thread(examiner, body),
            Metrics(
                self._book,
                self._totals,
                self._workers,
                self._journal,
                self._relay,
                self._notifier,
                self._reactor,
            ).scrape,
            Feeds(self._reactor),
            read_files(),
            self._reactor,
            self._blobs,
        )
        self._lag.start()
        self._listen_for_orders(self._control)
        gc.freeze()
        gc.enable()
        gc.set_threshold(*GC_THRESHOLDS)
        ports = self._ports.numbers
        self._journal.note_ports(ports)
        await handled  # until then a SIGHUP is ignored
        if self._stopping:
            return
        self._ports.publish()
        self._warn_of_addresses()
        self.log.info(
            "mu is ready: home {home}, ports {ports}",
            home=str(config.home),
            ports=", ".join(f"{name} {number}" for name, number in ports.items()),
        )

    def _start_plugins(self, registry: Registry) -> None:
        """Start the engines that come as plugins. Raises ValueError, ConfigError."""
        for engine in registry.engines.values():
            engine.start(engine_site(engine, self._config, self._ports.numbers["worker"]))
            self._plugged.append(engine)

    def _restored(self, registry: Registry, engines: dict[str, Engine]) -> Conductor:
        """Return the conductor of the jobs in the journal."""
        config, journal = self._config, self._journal
        ledger = journal.open()
        conductor = Conductor(
            config,
            self._book,
            ledger,
            self._authority,
            engines,
            self._in_thread,
            self._reactor,
            self._totals,
        )
        conductor.coordinator.reached = Reached(config.home / "reached.json")
        conductor.coordinator.notify = lambda one: self._notifier.notify(one, ledger)
        conductor.coordinator.output = self._output
        if journal.archive is not None:
            self._watch.add(journal.path)
            known = {*engines, EXTERNAL}
            restore(journal.archive, journal.path, config, registry, known, self._book, conductor)
        self._output.open(conductor.running)
        return conductor

    def _listen_for_workers(self) -> None:
        host = self._config.launch.public_host
        if self._config.worker.haproxy:
            pem = self._config.home / HAPROXY_PEM
            if self._authority.keep_server(pem, host):
                self.log.info("{pem} is new: reload HAProxy if it runs", pem=str(pem))
            port = self._ports.take_from_haproxy(HandoverFactory(self._workers))
            Hub(self._reactor).serve(port, PromptUnixServer)
            return
        identity = self._authority.mint_server(host)
        factory = TLSFactory(self._authority.server_context(identity), self._workers)
        Hub(self._reactor).serve(self._ports.listen("worker", factory), PromptServer)

    def _start_relay(self) -> str:
        """Return HOST:PORT of the relay for workers; empty: there is none."""
        options, host = self._config.relay, self._config.launch.public_host
        address = "" if options.address == "auto" else options.address
        if not options.enabled:
            return address
        self._relay = Relay(
            options, self._config.home / "relay", RelayJobs(self._book), self._reactor
        )
        identity = self._authority.mint_server(host, hosts.split(address)[0] if address else host)
        tls = RelayTLSFactory(self._authority.server_context(identity), self._relay)
        port = self._ports.listen("relay", tls)
        port.transport = RelayServer
        return address or hosts.join(host, self._ports.numbers["relay"])

    def _listen_for_orders(self, control: Control) -> None:
        config = self._config
        ours = (config.control.host, config.launch.public_host)
        names = [*ours, *split_hosts(config.mu.allowed_hosts)]
        allowed = AllowedHosts(names, split_hosts(config.control.hosts))
        root = TextResource(control.app.resource())
        site = BoundedSite(root, config.control.max_body, allowed, control.most_of_body)
        self._ports.listen("control", site)

    def _warn_of_addresses(self) -> None:
        """Warn of ports where no worker can come."""
        config = self._config
        ports = {"worker": config.worker.host}
        if self._relay is not None and config.relay.address == "auto":
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

    def _set_up_s3(self, config: Config) -> None:
        s3.look_up_from(config.launch.region)
        s3.find_with(self._buckets.find_from_thread)
        blobs.find_with(lambda: self._blobs)
        s3.wait_out(config.launch.outage_s, self._warn_from_thread)

    def _warn_from_thread(self, why: str) -> None:
        self._reactor.callFromThread(self.log.warn, "{why}", why=why)

    def _in_thread(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        return deferToThreadPool(self._reactor, self._threads, call, *args, **kwargs)

    def _in_log_thread(
        self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T]:
        return deferToThreadPool(self._reactor, self._log_thread, call, *args, **kwargs)

    def _could_not_start(self, failure: Failure) -> None:
        self.log.critical("mu cannot start: {why}", why=failure.getErrorMessage())
        self.log.debug("{trace}", trace=failure.getTraceback())
        # The reactor's own way to an exit status other than 0; it may not be running yet.
        self._reactor.callWhenRunning(os.kill, os.getpid(), signal.SIGTERM)

    # ------------------------------------------------ running

    def _reload(self) -> None:
        """Do what SIGHUP asks for."""
        runs = self._control is not None and not self._stopping
        self._reloader.reload(self._take if runs else None)

    def _take(self, config: Config, tokens: Tokens) -> None:
        assert self._control is not None
        assert self._conductor is not None
        DaemonLogger.debugging = config.mu.debug
        self._set_up_s3(config)
        self._control.reload(config, tokens)
        self._blobs.reload(config.blobs.max_bytes, config.blobs.total_bytes)
        self._conductor.reload(config)
        self._journal.reload(config)
        self._output.reload(_output_limits(config))

    def _home_gone(self, gone: Path) -> None:
        """Exit at once if the home is gone: nobody would know of a job that is ordered now."""
        self.log.critical(
            "mu exits: {gone} was removed or replaced while mu was running. Put the home {home} back"
            " if it was moved, then start mu again",
            gone=str(gone),
            home=str(self._config.home),
        )
        os._exit(1)

    def _journal_failed(self, reason: str) -> None:
        """Exit at once: nothing reported from now on would survive a restart."""
        self._watch.check()
        self.log.critical(
            "mu exits: {reason}. Free some space or repair it, then start mu again: running jobs"
            " resume",
            reason=reason,
        )
        self._ports.withdraw()
        os._exit(1)

    # ------------------------------------------------ stopping

    async def _stop(self) -> None:
        """Close the ports and stop the local engine, unless jobs are kept for the next start."""
        self._stopping = True
        self._watch.stop()
        self._lag.stop()
        self._notifier.stop()
        self._ports.withdraw()
        keep = self._journal.keeps and self._config.mu.on_stop == "keep"
        running = sum(job.active for job in self._book.live()) if keep else 0
        if running:
            self.log.info("{running} running jobs will resume at the next start", running=running)
        if self._conductor is not None:
            self._conductor.stop(keep)
        for connection in list(self._workers.connections):
            connection.stop("the coordinator was stopped", keep)
        await self._ports.close()
        until = self._reactor.seconds() + GOODBYE_S
        while self._workers.connections and self._reactor.seconds() < until:
            await deferLater(self._reactor, 0.05, lambda: None)
        for connection in list(self._workers.connections):
            connection.transport.abortConnection()
        ending: list[Deferred[Any]] = [self._engines.stop(leave_local=running > 0)]
        ending += [maybeDeferred(engine.stop) for engine in self._plugged]
        if self._relay is not None:
            ending.append(self._relay.stop())
        ending += [self._output.flushed(), self._journal.close()]
        await DeferredList(ending, consumeErrors=True)
        # This joins their threads, which may be in a plan or finish that never returns.
        for threads in (self._log_thread, self._threads):
            Thread(target=threads.stop, daemon=True).start()


def _output_limits(config: Config) -> OutputLimits:
    return OutputLimits(config.logs.actor_bytes, config.logs.total_bytes)


def _check_default(engine: str, known: Set[str]) -> None:
    """Raise ConfigError if the default engine is unknown; `local` may be switched off."""
    if engine not in known:
        names = ", ".join(sorted(known))
        raise ConfigError(f"[launch] engine = {engine} is unknown; the engines are {names}")


def makeService(options: Options, reactor: DaemonReactor | None = None) -> MuService:
    """Return the daemon's service. Raises SystemExit with one line for a bad configuration."""
    if reactor is None:
        from twisted.internet import reactor as installed

        reactor = cast(DaemonReactor, installed)
        keep_steady(reactor)
    path = None if options["config"] is None else Path(options["config"]).absolute()
    ignore_hang_up()
    try:
        config = read_config(path, lambda said: MuService.log.warn("{said}", said=said))
        return MuService(config, reactor, path)
    except ConfigError as error:
        raise SystemExit(f"mu: {error}") from None
