"""The event that a worker is started with, read once into a frozen value."""

from collections.abc import Mapping
from dataclasses import dataclass

LARGEST_OUTPUT = 8 * 2**20
"""The most output that one reply may carry, in bytes: it must fit a frame with room to spare."""


@dataclass(frozen=True, slots=True)
class Event:
    """What the worker was told at its start; the keys' meanings are in the protocol's table."""

    mode: int = 0
    addr: str = "127.0.0.1"
    port: int = 13579
    cacert: str | None = None
    srvcrt: str | None = None
    srvkey: str | None = None
    server_name: str | None = None
    bucket: str | None = None
    region: str | None = None
    nonblock: int = 0
    bg_silent: int = 0
    expect_statefile: int = 0
    send_statefile: int = 0
    minimal_recode: int = 0
    rm_tmpdir: int = 1
    hash_s3keys: int = 0
    vars: str | None = None
    args: str | None = None
    quality: str | None = None
    infile: str | None = None
    outfile: str | None = None
    job: str = ""
    launch: str = ""
    reconnect_s: float = 0
    relay_ext: int = 0
    output_limit: int = 65536
    """How much of a run's output its reply carries, in bytes."""
    env: tuple[tuple[str, str], ...] = ()


def read_event(keys: Mapping[str, object]) -> Event:
    """Read the event. Raises ValueError, naming the key, what came and what was expected.

    Keys that nobody here knows are the user's own, and no error. A key that is null counts as
    absent.
    """
    if not isinstance(keys, Mapping):
        raise ValueError(f"the event must be a JSON object; {keys!r} came")
    given = {key: value for key, value in keys.items() if value is not None}
    read: dict[str, object] = {}
    for key, value in given.items():
        if key in _TEXTS:
            read[key] = _text(key, value)
        elif key in _WORDS:
            read[key] = " ".join(_words(key, value))
        elif key in _INTEGERS:
            read[key] = _integer(key, value, *_INTEGERS[key])
    if "reconnect_s" in given:
        read["reconnect_s"] = _seconds("reconnect_s", given["reconnect_s"])
    if "env" in given:
        read["env"] = _environment(given["env"])
    event = Event(**read)  # type: ignore[arg-type]  # each was made by the reader of its kind
    if any(c in event.launch for c in ",()"):
        raise ValueError(
            f"event key launch: {event.launch!r} came, an id without , ( ) is expected"
        )
    if event.cacert and bool(event.srvcrt) != bool(event.srvkey):
        missing = "srvkey" if event.srvcrt else "srvcrt"
        raise ValueError(f"event key {missing}: nothing came, srvcrt and srvkey go together")
    return event


_TEXTS = (
    *("addr", "cacert", "srvcrt", "srvkey", "server_name", "bucket", "region"),
    *("quality", "infile", "outfile", "job", "launch"),
)
_WORDS = ("vars", "args")
_INTEGERS = {
    "mode": (0, 2),
    "port": (1, 65535),
    "output_limit": (0, LARGEST_OUTPUT),
} | dict.fromkeys(
    (
        *("nonblock", "bg_silent", "expect_statefile", "send_statefile", "minimal_recode"),
        *("rm_tmpdir", "hash_s3keys", "relay_ext"),
    ),
    (-(2**31), 2**31),
)


def _bad(key: str, value: object, expected: str) -> ValueError:
    shown = "a secret" if key == "srvkey" else repr(value)[:200]
    return ValueError(f"event key {key}: {shown} came, {expected} is expected")


def _text(key: str, value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise _bad(key, value, "a string")


def _words(key: str, value: object) -> list[str]:
    if isinstance(value, list | tuple):
        return [_text(key, word) for word in value]
    return [_text(key, value)]


def _integer(key: str, value: object, least: int, most: int) -> int:
    expected = "an integer" if least < -1 else f"an integer from {least} to {most}"
    try:
        number = int(value) if isinstance(value, int | str) else None
    except ValueError:
        number = None
    if number is None or not least <= number <= most:
        raise _bad(key, value, expected)
    return number


def _seconds(key: str, value: object) -> float:
    try:
        seconds = float(value) if isinstance(value, int | float | str) else -1.0
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise _bad(key, value, "a number of seconds, 0 or more")
    return seconds


def _environment(value: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, Mapping):
        raise ValueError("event key env: an object of names and strings is expected")
    for name, text in value.items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise ValueError(f"event key env: {name!r} came, a variable's name is expected")
        if not isinstance(text, str | int | float) or "\0" in str(text):
            raise ValueError(f"event key env: the value of {name} is no string")
    return tuple((name, str(text)) for name, text in value.items())
