"""Properties that hold for any input: bytes from the network, parameters, templates, orders."""

import json
import subprocess
from contextlib import suppress

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mu.config import Config
from mu.jobs.orders import read_order
from mu.jobs.spec import JobSpec
from mu.messages import (
    Ack,
    BadMessage,
    Command,
    Hello,
    Log,
    Ping,
    Pong,
    Reply,
    Welcome,
    decode,
    encode,
    from_coordinator,
    from_worker,
    parse_info,
    parse_retval,
)
from mu.parameters import FieldError, Parameter, Params, read_fields
from mu.pipelines.hello import hello
from mu.pipelines.map import map_pipeline
from mu.pipelines.png2y4m import png2y4m
from mu.pipelines.templates import ShellTemplate, fill, parse, quoted
from mu.wire import FrameError, Framer, frame

any_text = st.text().map(lambda text: text.encode("utf-8", "surrogatepass")).map(decode)
counts = st.integers(0, 10**15 - 1)
MANY_DIGITS = b"9" * 5000


# ---------------------------------------------------------------- wire


@given(st.lists(st.binary(max_size=40), max_size=6), st.data())
def test_frames_survive_any_split(payloads, data):
    stream = b"".join(map(frame, payloads))
    ends = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    framer = Framer(40)
    heard = []
    for begin, end in zip([0, *ends], [*ends, len(stream)], strict=True):
        heard += framer.feed(stream[begin:end])
    assert heard == payloads
    assert not framer.partial


@given(st.binary(max_size=60), st.integers(0, 60))
def test_any_bytes_are_frames_or_a_frame_error_however_they_are_split(stream, at):
    def outcome(*parts):
        framer = Framer(20)
        heard = []
        try:
            for part in parts:
                for payload in framer.feed(part):
                    heard.append(payload)
        except FrameError:
            return heard, "error"
        return heard, framer.partial

    assert outcome(stream[:at], stream[at:]) == outcome(stream)


# ---------------------------------------------------------------- messages


@given(st.binary())
def test_any_bytes_can_be_text_and_bytes_again(payload):
    assert encode(decode(payload)) == payload


@given(any_text, counts, st.binary())
def test_what_a_worker_sends_is_read_back(text, number, output):
    short = text[:10]
    for message in (Reply(text, number), Log(number, output), Ping(short), Pong(short)):
        assert from_worker(message.payload(), welcomed=True) == message
    assert from_worker(encode(text), welcomed=False) == Reply(text)


@given(counts | st.none(), counts, counts, any_text)
def test_what_a_coordinator_sends_is_read_back(actor, attempt, replies, text):
    for message in (Welcome(actor, attempt, replies), Ack(replies), Ping(text), Pong(text)):
        assert from_coordinator(message.payload()) == message
    command = Command(f"run:{text}")
    assert from_coordinator(command.payload()) == command
    assert (command.name, command.argument) == ("run", text)


@given(
    st.text("0123456789abcdef", min_size=1, max_size=32),
    st.text("abcdefXYZ0189-_", max_size=20),
    counts,
    st.integers(0, 2**32 - 1),
    counts,
)
def test_a_hello_is_read_back(session, launch, received, crc, sent):
    greeting = Hello(session, launch, received, crc, sent)
    assert Hello.parse(greeting.payload()) == greeting


@given(
    st.sampled_from(
        [
            b"",
            b"RE:",
            b"LOG:",
            b"USED:",
            b"ping:",
            b"pong:",
            b"welcome:",
            b"ack:",
            b"INFO:",
            b"OK:RETVAL(",
        ]
    ),
    st.binary() | st.text("0123456789:-)²٣", max_size=30).map(encode),
)
@example(b"RE:", MANY_DIGITS + b":x")
@example(b"ack:", MANY_DIGITS)
@example(b"ack:", "٣".encode())
@example(b"welcome:", b"1:1:" + MANY_DIGITS)
@example(b"OK:RETVAL(", MANY_DIGITS + b")")
@example(b"OK:HELLO:aa::", MANY_DIGITS + b":00000000:0")
def test_parsing_raises_nothing_but_bad_message(begin, rest):
    payload = begin + rest
    text = decode(payload)
    for call in (
        lambda: from_worker(payload, welcomed=True),
        lambda: from_worker(payload, welcomed=False),
        lambda: from_coordinator(payload),
        lambda: Hello.parse(payload),
        lambda: parse_info(text),
        lambda: parse_retval(text),
    ):
        with suppress(BadMessage):
            call()


# ---------------------------------------------------------------- parameters

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
KINDS = (bool, int, float, str, list, dict)


@given(st.sampled_from(KINDS), json_values, st.none() | st.integers(-5, 5))
def test_a_value_has_the_parameters_kind_and_bounds_or_is_refused(kind, value, minimum):
    parameter = Parameter("x", kind, "", minimum=minimum)
    error = None
    try:
        read = read_fields([parameter], {"x": value}, "params")["x"]
    except FieldError as raised:
        error = raised
    if error:
        assert error.field == "params.x"
        assert str(error).startswith("params.x must be ")
        return
    assert type(read) is kind
    if minimum is not None and kind in (int, float):
        assert read >= minimum
    assert read == value


@given(st.dictionaries(st.text(max_size=8) | st.sampled_from(["a", "b"]), json_values, max_size=4))
def test_what_was_read_reads_the_same_again(values):
    fields = [Parameter("a", int, "", 1), Parameter("b", str, "", "none")]
    try:
        read = read_fields(fields, values, "params")
    except FieldError:
        return
    assert read_fields(fields, dict(read), "params") == read
    assert set(read) == {"a", "b"}


# ---------------------------------------------------------------- templates


@given(st.text(st.characters(exclude_characters="{}")), st.text())
def test_text_without_braces_is_kept_and_a_value_is_inserted_as_it_is(text, value):
    assert fill(parse(text, []), {}) == text
    assert fill(parse(f"{text}{{x}}{text}", ["x"]), {"x": value}) == text + value + text


@given(st.text("{}x a!:'\"", max_size=12))
def test_a_template_is_parsed_or_refused_with_a_value_error(text):
    try:
        pieces = parse(text, ["x"])
    except ValueError:
        return
    assert isinstance(fill(pieces, {"x": "-"}), str)


shell_text = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"])
    | st.sampled_from("'\"$`\\# "),
    max_size=12,
)


@given(st.lists(shell_text, min_size=8, max_size=8))
@settings(max_examples=12)
def test_a_shell_never_executes_a_value(values):
    """All values go through one shell: outside quotes as a word, inside double quotes in one."""
    names = [f"v{n}" for n in range(len(values))]
    words = " ".join(f'{{{name}}} "<{{{name}}}>"' for name in names)
    template = ShellTemplate(f"printf '%s\\0' {words}", [], names)
    command = template.fill(dict(zip(names, values, strict=True)))
    assert "##" not in command.replace("#''", "")
    done = subprocess.run(["sh", "-c", command], capture_output=True, check=True)
    printed = done.stdout.decode().split("\0")[:-1]
    assert printed == [word for value in values for word in (value, f"<{value}>")]


@given(shell_text)
def test_no_worker_finds_a_name_to_replace_in_a_quoted_value(value):
    assert "##" not in quoted(f"##TMPDIR##{value}##")


# ---------------------------------------------------------------- orders

PIPELINES = {pipeline.name: pipeline for pipeline in (hello, png2y4m, map_pipeline)}
orders = st.fixed_dictionaries(
    {},
    optional={
        "pipeline": st.sampled_from([*PIPELINES, "nothing"]) | json_values,
        "workers": st.integers(-1, 20_000) | json_values,
        "actors": st.lists(st.integers(-1, 5) | json_values, max_size=3) | json_values,
        "params": st.fixed_dictionaries(
            {},
            optional={
                "text": json_values,
                "rounds": st.integers(-1, 5) | json_values,
                "frames": json_values,
                "command": st.just("cp {in} {out}") | json_values,
                "keys": st.lists(st.text(max_size=5), max_size=3) | json_values,
                "prefix": json_values,
                "out_prefix": json_values,
                "bucket": st.just("films") | json_values,
                "suffix": json_values,
            },
        )
        | json_values,
        "engine": st.sampled_from(["local", "lambda", "external"]) | json_values,
        "function": json_values,
        "regions": st.lists(st.just("us-east-1") | json_values, max_size=2) | json_values,
        "spares": json_values,
        "retries": json_values,
        "on_failure": st.sampled_from(["finish", "stop"]) | json_values,
        "deadline_s": json_values,
        "max_cost_usd": json_values,
        "event": json_values,
        "other": json_values,
    },
)


@given(orders | json_values)
def test_any_json_is_an_order_or_a_field_error(body):
    check_order(json.dumps(body).encode())


@given(st.binary(max_size=20))
@example(b"[" * 100_000)
@example(b"9" * 5000)
@example(b'"\\ud800"')
def test_any_bytes_are_an_order_or_a_field_error(body):
    check_order(body)


def check_order(body: bytes) -> None:
    try:
        spec = read_order(body, Config(), PIPELINES, ["local", "lambda", "external"])
    except FieldError:
        return
    again = json.dumps(spec.order).encode()
    read = read_order(again, Config(), PIPELINES, ["local", "lambda", "external"])
    assert isinstance(read, JobSpec)
    assert (read.order, read.workers, read.params) == (spec.order, spec.workers, spec.params)


def test_an_order_that_is_taken_is_among_them():
    body = {"pipeline": "hello", "workers": 3, "params": {"rounds": 2}}
    spec = read_order(json.dumps(body).encode(), Config(), PIPELINES, ["local"])
    assert (spec.workers, spec.params) == (3, Params(text="hello", rounds=2, workers=3))
    with pytest.raises(FieldError):
        read_order(b"{}", Config(), PIPELINES, ["local"])
