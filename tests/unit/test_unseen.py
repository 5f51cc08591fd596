"""The bound for what workers ran that nobody saw, and the whole bill with it."""

import pytest

from mu.engines.cost import GB_S_USD, REQUEST_USD, Prices
from mu.invocations import Size
from mu.jobs.bill import Bill, sized
from mu.jobs.unseen import longest_s

GB = {"us-east-1": Size(1024)}
X86 = GB_S_USD["x86_64"]


def make_bill(longest=100.0):
    bill = Bill(Prices(), ["us-east-1"])
    bill.measure(sized(GB, {"us-east-1": longest}))
    return bill


def unseen_s(bill, now):
    """Return the seconds that nobody saw."""
    return (bill.usd_at_most(now) - bill.usd(now)) / X86


def test_a_worker_that_cannot_connect_runs_until_it_gives_up_or_its_function_times_out():
    assert longest_s(900, 60) == 10 + 30 + 30 + 60  # INIT, TCP, TLS, reconnect_s
    assert longest_s(20, 60) == 10 + 20
    assert longest_s(0, 0) == 10 + 60  # the timeout is not known


def test_a_launch_without_a_hello_counts_from_its_acceptance_and_no_longer_than_it_can_run():
    bill = make_bill()
    bill.invoked("a", 0, 50.0)
    assert bill.usd(60.0) == pytest.approx(REQUEST_USD)
    assert unseen_s(bill, 50.0) == pytest.approx(0)
    assert unseen_s(bill, 60.0) == pytest.approx(10)
    assert unseen_s(bill, 999.0) == pytest.approx(100)
    assert bill.absent == 1


def test_what_a_worker_tells_replaces_the_bound():
    bill = make_bill()
    bill.invoked("a", 0, 0.0)
    bill.began("worker", 0, 5.0)
    bill.connected("a", 5.0)
    assert bill.absent == 0
    assert unseen_s(bill, 60.0) == pytest.approx(5)  # as long as it has told nothing
    bill.used_before("worker", "a", 0.5)
    assert unseen_s(bill, 60.0) == pytest.approx(0)
    assert bill.usd(60.0) == pytest.approx(REQUEST_USD + 55.5 * X86)
    bill.used_before("worker", "a", 0.5)
    assert bill.usd(60.0) == pytest.approx(REQUEST_USD + 55.5 * X86)
    assert bill.gb_s == pytest.approx(0.5)


def test_a_worker_that_comes_late_is_counted_as_it_was():
    bill = make_bill()
    bill.invoked("a", 0, 0.0)
    assert unseen_s(bill, 300.0) == pytest.approx(100)
    bill.connected("a", 300.0)  # from AWS's queue
    bill.began("worker", 0, 300.0)
    bill.used_before("worker", "a", 1.0)
    assert unseen_s(bill, 310.0) == pytest.approx(0)
    assert bill.usd(310.0) == pytest.approx(REQUEST_USD + 11 * X86)


def test_a_launch_that_found_no_place_costs_its_request_only():
    bill = make_bill()
    bill.invoked("a", 0, 0.0)
    bill.never_ran("a")
    assert bill.usd_at_most(300.0) == pytest.approx(REQUEST_USD)


def test_at_the_end_absent_workers_count_with_all_that_they_can_still_run():
    bill = make_bill()
    for launch in "ab":
        bill.invoked(launch, 0, 0.0)
    bill.close(10.0)
    assert unseen_s(bill, 10.0) == pytest.approx(200)
    bill.connected("a", 12.0)  # and is told to quit
    assert unseen_s(bill, 10.0) == pytest.approx(112)


def test_a_bill_of_an_older_journal_has_no_bound():
    bill = Bill(Prices(), ["us-east-1"])
    bill.measure(sized(GB, {}))
    bill.invoked("a", 0, 0.0)
    assert bill.usd_at_most(300.0) == bill.usd(300.0) == pytest.approx(REQUEST_USD)


def test_nothing_is_known_before_the_sizes_are():
    bill = Bill(Prices(), ["us-east-1"])
    bill.invoked("a", 0, 0.0)
    bill.used_before("worker", "a", 0.5)
    assert (bill.usd(9.0), bill.usd_at_most(9.0)) == (None, None)
