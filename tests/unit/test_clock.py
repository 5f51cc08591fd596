"""Timers go on when somebody sets the system's time."""

import time

import pytest
from twisted.internet.selectreactor import SelectReactor

from mu.clock import make_steady


@pytest.mark.parametrize("jump_s", [-3600, 3600])
def test_timers_neither_stop_nor_all_go_off_when_the_time_is_set(monkeypatch, jump_s):
    reactor = SelectReactor()
    make_steady(reactor)
    began, real = time.monotonic(), time.time
    assert abs(reactor.seconds() - real()) < 1
    called = []
    reactor.callLater(0.01, called.append, "soon")
    reactor.callLater(600, called.append, "late")
    monkeypatch.setattr(time, "time", lambda: real() + jump_s)
    while not called and time.monotonic() - began < 30:
        reactor.iterate(0.01)
    reactor.iterate(0.01)
    assert called == ["soon"]
