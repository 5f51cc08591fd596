"""The handlers of signals, around those of the reactor."""

import os
import signal

import pytest

from mu.signals import Signals


class InThread:
    """A reactor that calls at once."""

    def callFromThread(self, call, *args):
        call(*args)

    def callWhenRunning(self, call, *args):
        raise AssertionError


@pytest.fixture
def heard():
    """Signals that the reactor's handlers hear; the test's own handlers come back afterwards."""
    numbers = signal.SIGTERM, signal.SIGINT, signal.SIGHUP
    before = {number: signal.getsignal(number) for number in numbers}
    kept: list[int] = []
    for number in numbers:
        signal.signal(number, lambda number, frame: kept.append(number))
    yield kept
    for number, handler in before.items():
        signal.signal(number, handler)


def test_the_reactor_hears_of_the_first_signal_to_end_only(heard):
    Signals(InThread(), lambda: None).install()
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
        os.kill(os.getpid(), number)
    assert heard == [signal.SIGTERM]


def test_each_hang_up_reloads(heard):
    reloads: list[str] = []
    Signals(InThread(), lambda: reloads.append("again")).install()
    os.kill(os.getpid(), signal.SIGHUP)
    os.kill(os.getpid(), signal.SIGHUP)
    assert (heard, reloads) == ([], ["again", "again"])


def test_a_signal_that_is_ignored_stays_ignored(heard):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Signals(InThread(), lambda: None).install()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
