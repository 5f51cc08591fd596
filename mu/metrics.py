"""GET /metrics: the state and the sums of the daemon for Prometheus.

Everything is computed at the scrape, from mu.totals and from what the parts know anyway. No label
has a job's id or a text of a user, so the number of time series is fixed.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import Protocol

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from twisted.internet.interfaces import IDelayedCall, IReactorTime

import mu
from mu.jobs.book import JobBook
from mu.jobs.life import SHOWN
from mu.jobs.summary import COUNTED
from mu.totals import ANSWERS, DELIVERIES, ENDS, Durations, Totals, Traffic

LAG_S = 0.5
"""How often the lag of the event loop is measured."""
STAFF = "starting", "working", "away", "spare"
"""The states of workers: not connected yet, with an actor, disconnected for now, waiting."""


class JournalLoad(Protocol):
    """What the metrics need from the journal (a mu.journal.keeper.JournalKeeper)."""

    @property
    def lag_s(self) -> float: ...
    @property
    def backlog(self) -> int: ...


class RelayLoad(Protocol):
    """What the metrics need from the relay (a mu.relay.hub.Relay)."""

    traffic: Traffic

    @property
    def connections(self) -> Sized: ...
    @property
    def waiting_bytes(self) -> int: ...


class PortLoad(Protocol):
    """What the metrics need from the worker port (a mu.protocol.WorkerFactory)."""

    @property
    def connections(self) -> Sized: ...
    @property
    def strangers(self) -> Sized: ...


class NotifierLoad(Protocol):
    """What the metrics need from the notifications (a mu.notifier.Notifier)."""

    @property
    def pending(self) -> int: ...


class LagProbe:
    """Measures how late the event loop calls what is due."""

    def __init__(self, clock: IReactorTime, lag: Durations) -> None:
        self._clock = clock
        self._lag = lag
        self._call: IDelayedCall | None = None

    def start(self) -> None:
        due = self._clock.seconds() + LAG_S
        self._call = self._clock.callLater(LAG_S, self._called, due)

    def stop(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _called(self, due: float) -> None:
        self._lag.add(max(0.0, self._clock.seconds() - due))
        self.start()


class Metrics(Collector):
    """The metrics of one daemon, in a registry of their own."""

    def __init__(
        self,
        book: JobBook,
        totals: Totals,
        port: PortLoad,
        journal: JournalLoad,
        relay: RelayLoad | None,
        notifier: NotifierLoad,
        clock: IReactorTime,
    ) -> None:
        self._book = book
        self._totals = totals
        self._port = port
        self._journal = journal
        self._relay = relay
        self._notifier = notifier
        self._clock = clock
        self._usd = 0.0
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def scrape(self, accept: str = "") -> tuple[bytes, str]:
        """Return all metrics in the format for that Accept header, and their content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics, as of now."""
        told = GaugeMetricFamily("mu_info", "The version of mu.", labels=["version"])
        told.add_metric([mu.__version__], 1)
        yield told
        yield from self._jobs()
        yield from self._workers()
        yield from self._commands()
        yield from self._daemon()
        if self._relay is not None:
            yield from self._relayed(self._relay)

    def _jobs(self) -> Iterator[Metric]:
        totals, live, now = self._totals, self._book.live(), self._clock.seconds()
        jobs = Counter(job.state for job in self._book.all() if job.recorded)
        shown = dict.fromkeys(SHOWN.values())
        yield _gauges("mu_jobs", "Known jobs, by state.", "state", shown, jobs)
        actors: Counter[str] = Counter()
        for job in live:
            actors.update(job.counts)
        said = "Actors of the jobs that have not ended, by state."
        yield _gauges("mu_actors", said, "state", COUNTED, actors)
        said = "Jobs that have ended since the daemon's start, by how."
        yield _counters("mu_jobs_ended", said, "state", ENDS, totals.jobs)
        said = "Attempts at actors that have ended, by how."
        yield _counters("mu_attempts_ended", said, "outcome", ENDS, totals.attempts)
        yield _counter("mu_retries", "Failed actors that were queued again.", totals.retries)
        said = "Waiting workers that took over a failed actor."
        yield _counter("mu_spares_used", said, totals.spares_used)
        said = "Slow actors that were started a second time."
        yield _counter("mu_stragglers", said, totals.stragglers)
        # A bill may be corrected downwards; a counter that falls would count as one that began anew.
        usd = totals.ended_usd + sum(job.cost_usd or 0.0 for job in live)
        self._usd = max(self._usd, usd)
        said = "What jobs have cost in US dollars since the daemon's start."
        yield _counter("mu_cost_usd", said, self._usd)
        said = (
            "The highest cost of a running job, with unseen workers, divided by its max_cost_usd."
        )
        used = [
            (job.bill.usd_at_most(now) or 0.0) / job.spec.max_cost_usd
            for job in live
            if job.spec.max_cost_usd
        ]
        yield GaugeMetricFamily("mu_cost_limit_used_ratio", said, max(used, default=0.0))

    def _workers(self) -> Iterator[Metric]:
        totals = self._totals
        staff: Counter[str] = Counter()
        for job in self._book.live():
            staff.update(job.staff())
        said = (
            "Workers, by state: starting (launched, not connected), working, away (disconnected for"
            " now), spare (waiting)."
        )
        yield _gauges("mu_workers", said, "state", STAFF, staff)
        said = "Launches, by the engine's answer, or late: the worker did not connect in time."
        yield _counters("mu_launches", said, "answer", ANSWERS, totals.launches)
        said = "Workers that were told to quit because there was nothing for them to do."
        yield _counter("mu_workers_dismissed", said, totals.dismissed)
        said = "Open connections to the worker port."
        yield GaugeMetricFamily("mu_connections", said, len(self._port.connections))
        said = "Connections to the worker port that have not finished their TLS handshake."
        yield GaugeMetricFamily("mu_handshakes", said, len(self._port.strangers))
        said = "Connections to the worker port."
        yield _counter("mu_connections_accepted", said, totals.accepted)
        said = "Connections to the worker port that were refused, or ended before a hello."
        yield _counter("mu_connections_refused", said, totals.refused)
        said = "Connections that broke while their worker had an actor."
        yield _counter("mu_connections_lost", said, totals.lost)
        said = "Workers that reconnected and resumed."
        yield _counter("mu_reconnections", said, totals.resumed)

    def _commands(self) -> Iterator[Metric]:
        totals, traffic = self._totals, self._totals.traffic
        said = "Time from a command to its last reply, in seconds, by kind of command."
        took = HistogramMetricFamily("mu_command_seconds", said, labels=["kind"])
        for kind, durations in totals.commands.items():
            took.add_metric([kind], _buckets(durations), durations.total_s)
        yield took
        said = "Commands that were answered with FAIL, by kind of command."
        yield _counters("mu_commands_failed", said, "kind", totals.commands, totals.failed_commands)
        said = "Frames over the worker port, by direction."
        frames = {"in": traffic.frames_in, "out": traffic.frames_out}
        yield _counters("mu_frames", said, "direction", frames, frames)
        said = "Bytes over the worker port before encryption, by direction."
        sizes = {"in": traffic.bytes_in, "out": traffic.bytes_out}
        yield _counters("mu_bytes", said, "direction", sizes, sizes)

    def _daemon(self) -> Iterator[Metric]:
        totals = self._totals
        said = "Duration of a commit of the journal, in seconds."
        yield _histogram("mu_journal_commit_seconds", said, totals.commits)
        said = "How long the oldest record that is not on disk has waited, in seconds."
        yield GaugeMetricFamily("mu_journal_lag_seconds", said, self._journal.lag_s)
        said = "Records that are not on disk yet."
        yield GaugeMetricFamily("mu_journal_records_waiting", said, self._journal.backlog)
        said = f"How late the event loop makes a call, in seconds, measured every {LAG_S:g} s."
        yield _histogram("mu_event_loop_lag_seconds", said, totals.loop_lag)

        said = (
            "Attempts to notify the notify_url of an order, by how they ended, and those given up."
        )
        yield _counters("mu_notifications", said, "outcome", DELIVERIES, totals.notifications)
        said = "Notifications that are not delivered yet."
        yield GaugeMetricFamily("mu_notifications_waiting", said, self._notifier.pending)

    def _relayed(self, relay: RelayLoad) -> Iterator[Metric]:
        traffic = relay.traffic
        said = "Open connections to the relay."
        yield GaugeMetricFamily("mu_relay_connections", said, len(relay.connections))
        yield _counter("mu_relay_frames", "Frames that the relay received.", traffic.frames_in)
        said = "Bytes that the relay received, before encryption."
        yield _counter("mu_relay_bytes", said, traffic.bytes_in)
        said = "Frames that the relay dropped because no worker collected them."
        yield _counter("mu_relay_frames_dropped", said, traffic.dropped)
        said = "Size of the frames that wait in the relay, in bytes."
        yield GaugeMetricFamily("mu_relay_waiting_bytes", said, relay.waiting_bytes)


def _gauges(
    name: str, said: str, label: str, values: Iterable[str], counted: Mapping[str, float]
) -> Metric:
    family = GaugeMetricFamily(name, said, labels=[label])
    for value in values:
        family.add_metric([value], counted.get(value, 0))
    return family


def _counters(
    name: str, said: str, label: str, values: Iterable[str], counted: Mapping[str, float]
) -> Metric:
    family = CounterMetricFamily(name, said, labels=[label])
    for value in values:
        family.add_metric([value], counted.get(value, 0))
    return family


def _counter(name: str, said: str, value: float) -> Metric:
    return CounterMetricFamily(name, said, value)


def _histogram(name: str, said: str, durations: Durations) -> Metric:
    return HistogramMetricFamily(name, said, _buckets(durations), durations.total_s)


def _buckets(durations: Durations) -> list[tuple[str, float]]:
    return [
        ("+Inf" if bound == float("inf") else f"{bound:g}", below)
        for bound, below in durations.cumulated()
    ]
