"""The running time of workers, and its price."""

import pytest

from mu.engines.cost import GB_S_USD, REQUEST_USD, Meter, Prices
from mu.invocations import Size

X86, ARM = GB_S_USD["x86_64"], GB_S_USD["arm64"]


def test_gb_seconds_and_requests_are_counted_while_workers_run():
    meter = Meter(Prices())
    for _ in range(1000):
        meter.invoked()
    assert meter.usd(0) == pytest.approx(1000 * REQUEST_USD)
    meter.began("a", 10.0, Size(2048))
    meter.began("b", 10.0, Size(512, "arm64"))
    base = 1000 * REQUEST_USD
    assert meter.usd(110.0) == pytest.approx(base + 200 * X86 + 50 * ARM)
    meter.ended("a", 110.0)
    assert meter.usd(210.0) == pytest.approx(base + 200 * X86 + 100 * ARM)
    meter.ended("b", 210.0)
    assert meter.usd(999.0) == pytest.approx(base + 200 * X86 + 100 * ARM)
    assert meter.gb_s == pytest.approx(300)


def test_a_worker_that_reconnects_kept_running_in_between():
    meter = Meter(Prices())
    meter.began("a", 0.0, Size(1024))
    meter.ended("a", 10.0)
    meter.began("a", 30.0, Size(1024))
    assert meter.usd(40.0) == pytest.approx(40 * X86)
    meter.ended("a", 50.0)
    meter.ended("a", 49.0)
    assert meter.gb_s == pytest.approx(50)
    meter.ended("a", 60.0)
    assert meter.usd(90.0) == pytest.approx(60 * X86)
    assert meter.gb_s == pytest.approx(60)


def test_after_a_stop_the_sums_do_not_change():
    meter = Meter(Prices())
    meter.began("a", 0.0, Size(1024))
    meter.began("b", 0.0, Size(1024))
    meter.ended("a", 10.0)
    meter.stop(20.0)
    meter.ended("a", 30.0)
    meter.ended("b", 30.0)
    meter.began("c", 30.0, Size(1024))
    assert meter.gb_s == pytest.approx(30)
    assert meter.usd(99.0) == pytest.approx(30 * X86)


def test_what_a_worker_ran_before_its_hello_is_added_once():
    meter = Meter(Prices())
    meter.before("a", 0.5)  # it is not known
    meter.began("a", 10.0, Size(1024))
    meter.before("a", 0.5)
    meter.ended("a", 20.0)
    meter.before("a", 0.5)
    meter.began("b", 10.0, Size(1024))
    meter.ended("b", 11.0)
    meter.before("b", 0.25)
    assert meter.gb_s == pytest.approx(10.5 + 1.25)
    assert meter.usd(99.0) == pytest.approx(11.75 * X86)
    meter.stop(99.0)
    meter.before("b", 5.0)
    assert meter.gb_s == pytest.approx(11.75)


def test_an_engine_may_say_what_a_worker_costs_in_an_hour():
    meter, size = Meter(Prices()), Size(512, hour_usd=3.6)
    meter.invoked(size)
    meter.began("a", 0.0, size)
    meter.ended("a", 100.0)
    assert meter.usd(100.0) == pytest.approx(0.1)
