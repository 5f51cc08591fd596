"""Debug lines are for those who ask for them."""

import pytest
from twisted.logger import LogLevel

from mu.logs import DaemonLogger


@pytest.mark.parametrize("debugging", [False, True])
def test_debug_lines_appear_only_where_they_are_wanted(monkeypatch, debugging):
    monkeypatch.setattr(DaemonLogger, "debugging", debugging)
    events = []
    log = DaemonLogger("mu", observer=events.append)
    log.debug("one of {count}", count=2)
    log.info("two of {count}", count=2)
    levels = [event["log_level"] for event in events]
    assert levels == [LogLevel.debug, LogLevel.info][not debugging :]
