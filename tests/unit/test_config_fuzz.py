"""Any bytes as etc/mu.conf: a configuration, or an error that names the file, section and option."""

import math
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mu.config import LARGEST, Config, ConfigError, read_config, sections
from mu.engines.local.faults import Faults

OPTIONS = [
    (section.name, option.name)
    for section in sections(Config)
    for option in fields(getattr(Config(), section.name))
]
VALUES = [
    *("", " ", "0", "-1", "-0", "+5", "1_000", "1e309", "1e-400", "nan", "inf", "-inf", "0x10"),
    *("1" * 5000, "9" * 400, "٣", "½", "1,5", "1.5", "yes", "no", "YES", "None", "true # really"),
    *(
        "\x00",
        "a\x00b",
        "\x85",
        "\u2028",
        "\ufeff",
        "é",
        "~",
        "~nobody",
        "~/x",
        "/",
        "..",
        "%(home)s",
    ),
    *(
        "${HOME}",
        "[::1]",
        "::",
        "::1%lo",
        "localhost",
        "http://x",
        "a b",
        '"x"',
        "'",
        "127.0.0.1:5",
    ),
    *(
        "1.2.3",
        "256.1.1.1",
        "x" * 300,
        "xn--a",
        "ü.example",
        "keep",
        "cancel",
        "lambda",
        "us-east-1",
    ),
    *("throttle=2", "throttle=nan", "throttle=0.5 seed=7", "late=1e999", "seed=-1", "auto"),
    *("host:1", "[::1]:2", "\n b", "=", ":", ";x", "#x", "a\\", "\x1b[31m", "\u202e"),
]


def is_sound(config):
    """Whether its numbers are finite and within the largest that mu knows."""
    values = [
        getattr(getattr(config, section), option)
        for section, option in OPTIONS
        if section != "local" or option != "faults"
    ]
    numbers = [value for value in values if isinstance(value, int | float)]
    texts = [str(value) for value in values if not isinstance(value, int | float)]
    return (
        all(math.isfinite(number) and 0 <= number <= LARGEST for number in numbers)
        and all(text and text.isprintable() for text in texts)
        and isinstance(config.local.faults, Faults)
        and config.home.is_absolute()
    )


def outcome(path, data):
    """Return the configuration, or its error's text after the file's name."""
    path.write_bytes(data)
    try:
        config = read_config(path)
    except ConfigError as error:
        said = str(error)
        assert said.startswith(f"{path}: ")
        assert said.isprintable()
        assert len(said) < 2000
        return said.removeprefix(f"{path}: ")
    assert is_sound(config), config
    return config


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "mu.conf"


texts = st.one_of(
    st.sampled_from(VALUES),
    st.text(max_size=30),
    st.integers(-(10**30), 10**30).map(str),
    st.floats().map(repr),
)


@given(option=st.sampled_from(OPTIONS), value=texts)
@example(option=("local", "faults"), value="1" * 5000)
@example(option=("worker", "hold_s"), value="nan")
def test_any_value_of_an_option_is_taken_or_refused_by_its_name(path: Path, option, value):
    section, name = option
    value = value.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    told = outcome(path, f"[{section}]\n{name} = {value}\n".encode())
    if isinstance(told, str) and not set(value) & {
        "\n",
        "\r",
        *"\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029",
    }:
        assert f"[{section}] {name} " in told.replace(":", " ")


lines = st.one_of(
    st.tuples(st.sampled_from(OPTIONS), texts).map(
        lambda one: f"[{one[0][0]}]\n{one[0][1]} = {one[1]}".encode("utf-8", "surrogatepass")
    ),
    st.tuples(st.sampled_from(OPTIONS), st.sampled_from(["=", ":", "", " = "]), texts).map(
        lambda one: f"{one[0][1]}{one[1]}{one[2]}".encode("utf-8", "surrogatepass")
    ),
    st.sampled_from(
        [b"[mu]", b"[]", b"[worker", b"[DEFAULT]", b"[mu] x", b"# a", b"; b", b"  c", b"="]
    ),
    st.binary(max_size=20),
)


@given(
    start=st.sampled_from(
        [b"", b"\xef\xbb\xbf", b"\xff\xfe", b"\xef\xbb\xbf\xef\xbb\xbf", b"\x00"]
    ),
    given_lines=st.lists(lines, max_size=8),
    end=st.sampled_from([b"\n", b"\r\n", b"\r"]),
)
def test_any_file_is_taken_or_refused_by_its_name(path: Path, start, given_lines, end):
    outcome(path, start + end.join(given_lines))


@pytest.mark.parametrize("text", ["[mu]\r\nhome = /x\r\n", "\ufeff[mu]\nhome = /x\n"])
def test_line_ends_and_a_byte_order_mark_change_nothing(path, text):
    assert outcome(path, text.encode()).home == Path("/x")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"[worker]\nport = 1\nport = 2\n", "option 'port' in section 'worker' already exists"),
        (b"[mu]\n[mu]\n", "section 'mu' already exists"),
        (b"[mu]\nhome = \xff\n", "can't decode byte 0xff"),
        (b"[mu]\nhome = a\x00b\n", "[mu] home must be one line of printable text"),
        (b"port = 1\n", "File contains no section headers"),
    ],
)
def test_what_is_wrong_is_said(path, data, says):
    assert says in outcome(path, data)


def test_a_folder_or_a_missing_file_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "missing", tmp_path / "a\x00b"):
        with pytest.raises(ConfigError, match="cannot be read"):
            read_config(path)
