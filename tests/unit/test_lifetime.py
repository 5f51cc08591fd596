"""When the local engine ends by itself."""

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from mu.engines.local.lifetime import Lifetime


class Engine:
    """A Lifetime of 60 s with a fake clock."""

    def __init__(self) -> None:
        self.clock, self.idle, self.ended_at = Clock(), True, 0.0
        self.lifetime = Lifetime(self.clock, lambda: self.idle, 60.0, self._end)

    def _end(self) -> None:
        self.ended_at = self.clock.seconds()


@pytest.fixture
def engine() -> Engine:
    return Engine()


def test_an_unused_engine_ends(engine: Engine) -> None:
    engine.clock.pump([30, 30])
    assert engine.ended_at == 60


def test_a_request_extends_its_life(engine: Engine) -> None:
    engine.clock.advance(59)
    engine.lifetime.touched()
    engine.clock.pump([59, 1])
    assert engine.ended_at == 119


def test_an_engine_with_invocations_does_not_end(engine: Engine) -> None:
    engine.idle = False
    engine.clock.pump([60, 60])
    assert not engine.ended_at
    engine.idle = True
    engine.clock.advance(60)
    assert engine.ended_at == 180


def test_it_does_not_end_while_any_daemon_is_attached(engine: Engine) -> None:
    daemons: list[Deferred[None]] = [Deferred(), Deferred()]
    for lost in daemons:
        engine.lifetime.attached(lost)
    engine.clock.advance(60)
    daemons[0].callback(None)
    engine.clock.advance(60)
    assert not engine.ended_at
    daemons[1].errback(ConnectionError())
    engine.clock.advance(60)
    assert engine.ended_at == 180
