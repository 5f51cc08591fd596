"""Who may do what at the control port: tokens, one-time codes and the sessions of browsers."""

import pytest
from twisted.internet.task import Clock

from mu.access import MOST_CODES, Access, Rights
from mu.config import ControlSection
from mu.home import Tokens

TOKENS = Tokens("t0ken", "reader")


@pytest.fixture
def clock():
    clock = Clock()
    clock.advance(1000)
    return clock


def access(clock, tokens=TOKENS, key="key", **options):
    return Access(ControlSection(**options), tokens, key, clock.seconds)


def test_a_code_is_exchanged_once_for_a_session_with_its_rights(clock):
    door = access(clock)
    for rights in Rights:
        code = door.new_code(rights)
        session = door.exchange(code)
        assert session is not None
        assert session.rights is rights
        assert door.of(session.bearer.encode()) is rights
        assert door.exchange(code) is None
    assert door.exchange("") is None


def test_a_code_is_valid_for_a_minute(clock):
    door = access(clock)
    codes = door.new_code(Rights.READ), door.new_code(Rights.READ)
    clock.advance(59)
    assert door.exchange(codes[0]) is not None
    clock.advance(1)
    assert door.exchange(codes[1]) is None


def test_codes_do_not_pile_up(clock):
    door = access(clock)
    codes = [door.new_code(Rights.READ) for _ in range(MOST_CODES + 1)]
    assert door.exchange(codes[0]) is None
    assert door.exchange(codes[-1]) is not None


def test_codes_of_the_read_token_do_not_push_out_those_of_the_other(clock):
    door = access(clock)
    codes = [door.new_code(Rights.CONTROL), door.new_code(Rights.READ, Rights.CONTROL)]
    for _ in range(MOST_CODES + 1):
        door.new_code(Rights.READ)
    sessions = [door.exchange(code) for code in codes]
    assert [one and one.rights for one in sessions] == [Rights.CONTROL, Rights.READ]


def test_a_session_says_until_when_it_lasts_and_a_token_lasts(clock):
    door = access(clock, session_s=100)
    assert door.until(session_of(door)) == clock.seconds() + 100
    assert door.until(b"t0ken") == float("inf")


def session_of(door, rights=Rights.CONTROL):
    session = door.exchange(door.new_code(rights))
    assert session is not None
    return session.bearer.encode()


def test_a_session_survives_a_restart_and_ends_in_time(clock):
    bearer = session_of(access(clock, session_s=100))
    restarted = access(clock, session_s=100)
    clock.advance(99)
    assert restarted.of(bearer) is Rights.CONTROL
    clock.advance(1)
    assert restarted.of(bearer) is None


def test_a_session_ends_with_the_token_that_it_came_from(clock):
    door = access(clock)
    bearers = [session_of(door, rights) for rights in Rights]
    door.reload(ControlSection(), Tokens("other", "reader"))
    assert [door.of(bearer) for bearer in bearers] == [Rights.READ, None]
    door.reload(ControlSection(), TOKENS)
    assert [door.of(bearer) for bearer in bearers] == list(Rights)
    assert access(clock, key="another home's").of(bearers[0]) is None


def test_a_code_ends_with_the_token_that_it_came_from(clock):
    door = access(clock)
    code = door.new_code(Rights.CONTROL)
    door.reload(ControlSection(), TOKENS)
    kept = door.exchange(code)
    assert kept is not None
    code = door.new_code(Rights.CONTROL)
    door.reload(ControlSection(), Tokens("other", "reader"))
    assert door.exchange(code) is None


def test_a_session_is_no_token(clock):
    door = access(clock)
    assert door.of_token(session_of(door)) is None
    assert door.of_token(b"t0ken") is Rights.CONTROL
    assert door.of_token(b"reader") is Rights.READ


def test_a_session_that_was_changed_is_worth_nothing(clock):
    door = access(clock)
    bearer = session_of(door, Rights.READ).decode()
    _, expires, signature = bearer.split(".")
    for forged in (
        f"control.{expires}.{signature}",
        f"read.{int(expires) + 1}.{signature}",
        f"read.{expires}.",
        f"read.{expires}",
        f"read.{signature}",
        "read..",
        "...",
        "",
        "ä.ö.ü",
        f"{bearer}x",
        f" {bearer}",
    ):
        assert door.of(forged.encode()) is None, forged
    assert door.of(b"\xff.\xff.\xff") is None
