"""The metrics of jobs in memory."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from kit.parts import Port, make_job
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.task import Clock

from mu.jobs.book import JobBook
from mu.messages import Hello
from mu.metrics import LAG_S, LagProbe, Metrics
from mu.states import CommandListState, TerminalState
from mu.totals import Durations, Totals, Traffic


class Leave(TerminalState):
    """The end."""


class Ask(CommandListState):
    commandlist = (("OK:HELLO", "echo:1"), ("OK:ECHO(1)", "quit:"))
    nextState = Leave


@dataclass
class Relay:
    traffic: Traffic = field(default_factory=lambda: Traffic(frames_in=3, bytes_in=40, dropped=1))
    connections: tuple = (1, 2)
    waiting_bytes: int = 5000


class Bench:
    """A book, its totals and the metrics of both."""

    def __init__(self, *jobs, relay=None):
        self.totals, self.port = Totals(), Port(*jobs)
        self.port.factory.totals = self.totals
        for job in jobs:
            job.totals = self.totals
        journal, notifier = SimpleNamespace(lag_s=0.25, backlog=7), SimpleNamespace(pending=2)
        clock = jobs[0].clock if jobs else Clock()
        self.metrics = Metrics(
            self.port.book, self.totals, self.port.factory, journal, relay, notifier, clock
        )

    def read(self, accept=""):
        told, _ = self.metrics.scrape(accept)
        return {
            (one.name, *one.labels.values()): one.value
            for family in text_string_to_metric_families(told.decode())
            for one in family.samples
        }


def test_workers_are_counted_in_the_state_that_they_are_in():
    job = make_job(Ask, workers=2, spares=1)
    bench = Bench(job)
    lines = [bench.port.join(hello=Hello(session=name)) for name in ("aa", "bb", "cc")]
    told = bench.read()
    assert [told["mu_workers", state] for state in ("working", "away", "spare")] == [2, 0, 1]
    assert told["mu_actors", "running"] == 2
    assert told["mu_jobs", "running"] == 1
    assert told[("mu_connections",)] == told[("mu_connections_accepted_total",)] == 3
    lines[0].hang_up()
    told = bench.read()
    assert [told["mu_workers", state] for state in ("working", "away", "spare")] == [2, 1, 0]
    assert told[("mu_connections_lost_total",)] == 1
    assert told[("mu_reconnections_total",)] == 0


def test_lost_and_resumed_connections_retries_and_spares_are_counted():
    job = make_job(Ask, workers=1, spares=1, retries=1)
    bench = Bench(job)
    line = bench.port.join(hello=Hello(session="aa"))
    bench.port.join(hello=Hello(session="bb"))
    line.hang_up()
    line = bench.port.join(hello=Hello(session="aa"))
    told = bench.read()
    assert told[("mu_reconnections_total",)] == 1
    line.hang_up()
    line.let_pass(20)  # hold_s
    told = bench.read()
    assert told[("mu_connections_lost_total",)] == 2
    counted = [told[(f"mu_{name}_total",)] for name in ("retries", "spares_used")]
    assert counted == [0, 1]  # the spare has begun beside the held attempt, and goes on
    assert told["mu_attempts_ended_total", "failed"] == 1
    job.stop("cancelled", "by request")
    told = bench.read()
    assert told["mu_attempts_ended_total", "cancelled"] == 1


def test_a_connection_that_never_says_hello_is_refused():
    bench = Bench(make_job(Ask))
    bench.port.connect(bench.port.authority.mint_job("j1", 600)).hang_up()
    assert bench.read()[("mu_connections_refused_total",)] == 1


def test_the_cost_never_falls_though_a_bill_may():
    bench = Bench()
    job = SimpleNamespace(
        cost_usd=2.0,
        counts={},
        staff=dict,
        state="running",
        ended=False,
        recorded=True,
        bill=SimpleNamespace(usd_at_most=lambda now: 3.0),
        spec=SimpleNamespace(max_cost_usd=4.0),
    )
    bench.metrics._book = SimpleNamespace(live=lambda: [job], all=lambda: [job])
    seen = []
    for usd in (2.0, 1.9, 2.5):
        job.cost_usd = usd
        seen.append(bench.read()[("mu_cost_usd_total",)])
    assert seen == [2.0, 2.0, 2.5]
    assert bench.read()[("mu_cost_limit_used_ratio",)] == 0.75


def test_the_relay_is_told_of_only_if_there_is_one():
    told = Bench(relay=Relay()).read()
    assert told[("mu_relay_frames_total",)] == 3
    assert told[("mu_relay_bytes_total",)] == 40
    assert told[("mu_relay_frames_dropped_total",)] == 1
    assert told[("mu_relay_waiting_bytes",)] == 5000
    assert told[("mu_relay_connections",)] == 2
    assert not [name for name, *_ in Bench().read() if name.startswith("mu_relay")]


def test_the_journal_and_the_notifications_are_told_of():
    told = Bench().read()
    assert told[("mu_journal_lag_seconds",)] == 0.25
    assert told[("mu_journal_records_waiting",)] == 7
    assert told[("mu_notifications_waiting",)] == 2


@pytest.mark.parametrize(
    ("accept", "kind", "end"),
    [
        ("", "text/plain; version=0.0.4", b"\n"),
        ("text/plain", "text/plain; version=0.0.4", b"\n"),
        ("application/openmetrics-text; version=1.0.0", "application/openmetrics-text", b"# EOF\n"),
    ],
)
def test_the_format_is_the_one_that_is_asked_for(accept, kind, end):
    told, content_type = Bench().metrics.scrape(accept)
    assert content_type.startswith(kind)
    assert told.endswith(end)


def test_two_daemons_in_one_process_share_nothing():
    one, other = Bench(), Bench()
    one.totals.accepted = 5
    assert other.read()[("mu_connections_accepted_total",)] == 0


def test_the_lag_of_the_event_loop_is_how_late_a_call_is():
    clock, lag = Clock(), Durations((0.1, 1.0))
    probe = LagProbe(clock, lag)
    probe.start()
    clock.advance(LAG_S)
    clock.advance(LAG_S + 0.5)
    assert list(lag.cumulated()) == [(0.1, 1), (1.0, 2), (float("inf"), 2)]
    assert lag.total_s == 0.5
    probe.stop()
    assert clock.getDelayedCalls() == []


def test_a_book_without_jobs_has_all_series():
    assert JobBook().all() == []
    assert Bench().read().keys() == Bench(make_job(Ask)).read().keys()
