"""The event that starts a worker, parsed once."""

from collections.abc import Mapping

PROBE = 3
"""The mode that only looks around, for `mu doctor`. Earlier workers refuse it."""
LARGEST_OUTPUT = 8 * 2**20
"""The largest output_limit, in bytes: a reply must fit into a frame."""
LARGEST_VARIABLE = 128 * 1024
"""The largest variable (NAME=VALUE and a NUL) with which Linux starts a program, in bytes."""


LONGEST_LAUNCH = 64
"""The most characters of a launch id that a hello can have."""


class EventError(ValueError):
    """A key of the event is invalid; `key` names it, such as `env.PATH`."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


class WorkerEvent:
    """The event's keys and their defaults, which the protocol explains.

    It is no dataclass, to import which takes longer than all else before the hello.
    """

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
    usage_ext: int = 0
    output_limit: int = 65536
    """The most bytes of a program's output that its reply contains."""
    env: tuple[tuple[str, str], ...] = ()
    probe: tuple[tuple[str, str, int], ...] = ()
    """In mode 3, the ports to connect to: name, host and port of each."""

    def __init__(self, **given: object) -> None:
        vars(self).update(given)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, WorkerEvent) and self._values == other._values

    __hash__ = None  # type: ignore[assignment]

    @property
    def _values(self) -> dict[str, object]:
        return vars(type(self)) | vars(self)


def read_event(keys: Mapping[str, object]) -> WorkerEvent:
    """Parse an event. Raises EventError, which names the key, its value and what was expected.

    Unknown keys belong to the user and are ignored. A key whose value is null counts as absent.
    """
    if not isinstance(keys, Mapping):
        raise EventError("", f"the event must be a JSON object, got {keys!r}")
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
    if read.get("mode") == PROBE:
        read["probe"] = _ports(given.get("probe", {}))
    event = WorkerEvent(**read)
    for key, host in (("addr", event.addr), ("server_name", event.server_name)):
        if host is not None and not _is_host(host):
            raise _bad(key, host, "a host name or an IP address")
    if any(c in event.launch for c in ",()"):
        raise EventError(
            "launch", f"event key launch must not contain , ( or ), got {event.launch!r:.200}"
        )
    if len(event.launch) > LONGEST_LAUNCH:  # such a hello would be taken for an original worker's
        raise _bad("launch", event.launch, f"at most {LONGEST_LAUNCH} characters")
    if event.cacert and bool(event.srvcrt) != bool(event.srvkey):
        missing = "srvkey" if event.srvcrt else "srvcrt"
        raise EventError(missing, f"event key {missing} is missing: srvcrt and srvkey go together")
    return event


_TEXTS = (
    *("addr", "cacert", "srvcrt", "srvkey", "server_name", "bucket", "region"),
    *("quality", "infile", "outfile", "job", "launch"),
)
_PEMS = ("cacert", "srvcrt", "srvkey")
_WORDS = ("vars", "args")
_INTEGERS = {
    "mode": (0, PROBE),
    "port": (1, 65535),
    "output_limit": (0, LARGEST_OUTPUT),
} | dict.fromkeys(
    (
        *("nonblock", "bg_silent", "expect_statefile", "send_statefile", "minimal_recode"),
        *("rm_tmpdir", "hash_s3keys", "relay_ext", "usage_ext"),
    ),
    (-(2**31), 2**31),
)


def _bad(key: str, value: object, expected: str) -> EventError:
    shown = "a secret" if key == "srvkey" else repr(value)[:200]
    return EventError(key, f"event key {key} must be {expected}, got {shown}")


def _text(key: str, value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise _bad(key, value, "a string")
    text = str(value)
    if "\0" in text:
        raise _bad(key, value, "a string without a NUL")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise _bad(key, value, "valid Unicode") from None
    if size >= LARGEST_VARIABLE and key not in _PEMS:
        raise EventError(
            key, f"event key {key} must have less than {LARGEST_VARIABLE} bytes, got {size}"
        )
    return text


def _words(key: str, value: object) -> list[str]:
    if isinstance(value, list | tuple):
        return [_text(key, word) for word in value]
    return [_text(key, value)]


def _is_host(text: str) -> bool:
    """Return whether it may be a host: no URL, no port, no brackets, no spaces."""
    plain = text.isprintable() and not any(c in " /[]@?#'\"" for c in text)
    return plain and text != "" and text.count(":") != 1


def _integer(key: str, value: object, least: int, most: int) -> int:
    expected = "an integer" if least < -1 else f"an integer from {least} to {most}"
    number = None
    if isinstance(value, int):
        number = int(value)
    elif isinstance(value, str) and len(value) <= 20:
        digits = value.strip()
        digits = digits[1:] if digits[:1] in ("+", "-") else digits
        if digits.isascii() and digits.isdecimal():
            number = int(value)
    if number is None or not least <= number <= most:
        raise _bad(key, value, expected)
    return number


def _seconds(key: str, value: object) -> float:
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError
        seconds = float(value)
    except (ValueError, OverflowError):
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise _bad(key, value, "at least 0 seconds")
    return seconds


def _ports(value: object) -> tuple[tuple[str, str, int], ...]:
    expected = "an object of [HOST, PORT]"
    if not isinstance(value, Mapping):
        raise _bad("probe", value, expected)
    ports = []
    for name, place in value.items():
        if not isinstance(place, list | tuple) or len(place) != 2:
            raise _bad("probe", value, expected)
        ports.append(
            (str(name), _text("probe", place[0]), _integer("probe", place[1], *_INTEGERS["port"]))
        )
    return tuple(ports)


def _environment(value: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, Mapping):
        raise EventError("env", f"event key env must be an object of strings, got {value!r:.200}")
    return tuple((name, _variable(name, text)) for name, text in value.items())


def _variable(name: str, value: object) -> str:
    """Return the text of an environment variable."""
    if not isinstance(name, str) or not name or "=" in name or "\0" in name:
        raise EventError("env", f"event key env: {name!r:.200} is not a valid variable name")
    key = f"env.{name:.200}"
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise EventError(key, f"event key {key} must be a string, got {value!r:.200}")
    text = str(value)
    try:
        size = len(f"{name}={text}\0".encode())
    except UnicodeEncodeError:
        raise EventError(key, f"event key {key} must be valid Unicode, got {text!r:.200}") from None
    if "\0" in text:
        raise EventError(key, f"event key {key} must not contain a NUL, got {text!r:.200}")
    if size > LARGEST_VARIABLE:
        raise EventError(
            key, f"event key {key} must have less than {LARGEST_VARIABLE} bytes, got {size}"
        )
    return text
