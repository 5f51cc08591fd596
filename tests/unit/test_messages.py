"""Payloads to values and back."""

import pytest

from mu.messages import (
    PING_BYTES,
    Ack,
    BadMessage,
    Command,
    Hello,
    Log,
    Ping,
    Pong,
    Reply,
    Use,
    Welcome,
    decode,
    encode,
    expected_reply,
    from_coordinator,
    from_worker,
    parse_info,
    parse_retval,
)


def test_any_bytes_go_through_text_unaltered():
    every = bytes(range(256)) * 2
    assert encode(decode(every)) == every


def test_a_hello_says_what_protocol_says():
    hello = Hello("ab12", "launch-1", 3, 0xDEADBEEF, 4)
    assert hello.payload() == (b"OK:HELLO(session=ab12,launch=launch-1,received=3:deadbeef,sent=4)")
    assert Hello.parse(hello.payload()) == hello


@pytest.mark.parametrize("text", [b"OK:HELLO", b"OK:HELLO(v2)", b"OK:HELLO(session=)"])
def test_another_hello_is_an_original_workers(text):
    assert Hello.parse(text) == Hello()
    assert Hello().payload() == b"OK:HELLO"


@pytest.mark.parametrize("text", [b"", b"OK", b"HELLO", b"\xff\xfe"])
def test_what_is_no_hello_is_refused(text):
    with pytest.raises(BadMessage, match="must begin with OK:HELLO"):
        Hello.parse(text)


@pytest.mark.parametrize(
    ("payload", "value"),
    [
        (b"RE:12:OK:ECHO(a:b)", Reply("OK:ECHO(a:b)", 12)),
        (b"RE:0:INFO:k:v", Reply("INFO:k:v", 0)),
        (b"LOG:3:\x00raw:\xff", Log(3, b"\x00raw:\xff")),
        (b'USED:0:{"init_s": 0.25}', Use.of(0, {"init_s": 0.25})),
        (b"ping:7", Ping("7")),
        (b"pong:", Pong("")),
    ],
)
def test_what_a_welcomed_worker_says(payload, value):
    assert from_worker(payload, welcomed=True) == value
    assert value.payload() == payload


def test_messages_are_compared_and_shown_by_their_fields():
    assert {Ping("7"), Ping("7"), Pong("7"), Ping("8")} == {Ping("7"), Ping("8"), Pong("7")}
    assert repr(Reply("OK", 2)) == "Reply(text='OK', command=2)"


@pytest.mark.parametrize(
    "payload",
    [
        b"OK:ECHO(x)",
        b"RE:x:OK",
        b"RE:",
        b"RE:" + b"1" * 16 + b":OK",
        b"LOG:-1:x",
        b"USED:x:{}",
        b"",
        b"ping:" + b"x" * PING_BYTES,
    ],
)
def test_what_a_welcomed_worker_may_not_say(payload):
    with pytest.raises(BadMessage):
        from_worker(payload, welcomed=True)


@pytest.mark.parametrize("payload", [b"RE:1:OK", b"ping:1", b"LOG:1:x", b"OK:SET(a)"])
def test_all_that_an_original_worker_says_is_a_reply(payload):
    assert from_worker(payload, welcomed=False) == Reply(payload.decode())


@pytest.mark.parametrize(
    ("payload", "value"),
    [
        (b"welcome:7:2:15", Welcome(7, 2, 15)),
        (b"welcome:-:0:0", Welcome(None, 0, 0)),
        (b"ack:64", Ack(64)),
        (b"ping:x", Ping("x")),
        (b"pong:x", Pong("x")),
        (b"run:echo a:b", Command("run:echo a:b")),
        (b"quit:", Command("quit:")),
        (b"nonsense", Command("nonsense")),
    ],
)
def test_what_a_coordinator_says(payload, value):
    assert from_coordinator(payload) == value
    assert value.payload() == payload


@pytest.mark.parametrize("payload", [b"welcome:", b"welcome:1:2", b"welcome:a:0:0", b"ack:x"])
def test_what_a_coordinator_may_not_say(payload):
    with pytest.raises(BadMessage):
        from_coordinator(payload)


def test_a_command_is_a_name_and_an_argument_that_may_hold_anything():
    command = Command("retrieve:a:b\0/tmp/c")
    assert (command.name, command.argument) == ("retrieve", "a:b\0/tmp/c")


@pytest.mark.parametrize(
    ("command", "prefix"),
    [
        ("set:a:1", "OK:SET"),
        ("seti:a:1", "OK:SETI"),
        ("run:", "OK:R"),
        ("retrieve:", "OK:RETRIEV"),
        ("upload:a\0b", "OK:UPLOAD"),
        ("connect:h:1:x", "OK:CONNECT"),
        ("close_connect:", "OK:CLOSE_CONNECT"),
        ("quit:", "OK"),
        ("whatever", "OK"),
        (None, "OK"),
    ],
)
def test_what_is_expected_after_a_command(command, prefix):
    assert expected_reply(command) == prefix


def test_info_is_split_at_its_first_two_colons():
    assert parse_info("INFO:key:a:b") == ("key", "a:b")
    assert parse_info("INFO:key:") == ("key", "")
    assert parse_info("OK:INFO") is None


@pytest.mark.parametrize("text", ["INFO:", "INFO:key", "INFO::value"])
def test_info_without_a_key_or_a_second_colon_is_refused(text):
    with pytest.raises(BadMessage):
        parse_info(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("OK:RETVAL(0):OUTPUT(a)\n(b)):COMMAND(echo)", (0, "a)\n(b)")),
        ("OK:RETVAL(-9):OUTPUT():COMMAND(x)", (-9, "")),
        ("OK:RETVAL(1)", (1, "")),
    ],
)
def test_a_programs_end_has_a_status_and_an_output(text, expected):
    assert parse_retval(text) == expected


def test_another_reply_is_not_a_programs_end():
    with pytest.raises(BadMessage, match="must be OK:RETVAL"):
        parse_retval("OK:RUNNING(x)")


def test_a_number_without_a_second_colon_has_an_empty_reply():
    assert from_worker(b"RE:7", welcomed=True) == Reply("", 7)
