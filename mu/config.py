"""etc/mu.conf, read once into frozen values.

Each class below is a section of the file: its options with their types, defaults and bounds.
"""

import base64
import re
from collections.abc import Callable, Mapping
from configparser import ConfigParser
from configparser import Error as ParserError
from dataclasses import Field, dataclass, field, fields, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from mu.aws.s3 import S3Place
from mu.engines.cost import GB_S_USD, REQUEST_USD
from mu.engines.local.faults import NO_FAULTS, Faults
from mu.hosts import read_host, read_place, read_public_host
from mu.parameters import FieldError, Parameter, Params, read_fields

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from mu.plugins import Engine

T = TypeVar("T")
Section = TypeVar("Section", bound="DataclassInstance")


LARGEST = 2**53
"""Of any number without a limit of its own."""
SECRET_BYTES = 24
"""The shortest secret."""
YEAR_S = 366 * 86400.0
"""The largest time, in seconds."""


class ConfigError(ValueError):
    """The configuration is invalid; the text names the option, its value and what is allowed."""


def _option(
    default: T, minimum: float | None = None, maximum: float | None = None, live: bool = False
) -> T:
    """`live`: a running daemon can take a new value of it (see `reloaded`)."""
    return field(default=default, metadata={"minimum": minimum, "maximum": maximum, "live": live})


def _live(default: T, minimum: float | None = None, maximum: float | None = None) -> T:
    return _option(default, minimum, maximum, live=True)


def _form(default: T, form: Callable[[str], T], live: bool = False, empty: bool = False) -> T:
    """`form` returns the value for a text, or raises ValueError. `empty`: the text may be empty."""
    return field(default=default, metadata={"form": form, "live": live, "empty": empty})


def _text(default: str, form: Callable[[str], str], live: bool = False) -> str:
    return _form(default, form, live)


def _choice(default: str, *others: str) -> str:
    return field(default=default, metadata={"choices": (default, *others), "live": True})


def _region(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9-]{1,64}", text):
        raise ValueError(f"must be a region such as us-east-1, got {text:.200}")
    return text


def _auto_or_region(text: str) -> str:
    return text if text == "auto" else _region(text)


def _auto_or_url(text: str) -> str:
    if text == "auto":
        return text
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # the port is not a number
        good = False
    if not good or parts.query or parts.fragment or parts.username is not None:
        raise ValueError(f"must be auto or a URL such as https://s3.example.org, got {text:.200}")
    return text.rstrip("/")


def _url_or_none(text: str) -> str:
    if text != "none" and not re.fullmatch(r"https?://[!-~]+", text):
        raise ValueError(f"must be a URL or none, got {text:.200}")
    return text


def _secret(text: str) -> str:
    if text != "none":
        try:
            key = base64.b64decode(text.removeprefix("whsec_"), validate=True)
        except ValueError:
            key = b""
        if len(key) < SECRET_BYTES:  # the message must not have the text
            raise ValueError(f"must be none, or at least {SECRET_BYTES} random bytes in base64")
    return text


def _canary(text: str) -> tuple[int, ...]:
    if text == "none":
        return ()
    words = text.split()
    if not all(word.isascii() and word.isdecimal() and 0 < int(word) <= 10_000 for word in words):
        raise ValueError(f"must be numbers from 1 to 10000, such as 1 8, or none, got {text:.200}")
    return tuple(map(int, words))


def _auto_or_place(text: str) -> str:
    return text if text == "auto" else read_place(text)


def _port(default: int) -> int:
    return _option(default, 0, 65535)


@dataclass(frozen=True, slots=True)
class MuSection:
    home: Path = _option(Path("~/.mu"))
    on_stop: str = _choice("keep", "cancel")
    debug: bool = _live(False)
    allowed_hosts: str = _option("none")


@dataclass(frozen=True, slots=True)
class WorkerSection:
    host: str = _text("0.0.0.0", read_host)
    port: int = _port(13579)
    haproxy: bool = _option(False)
    frame_limit: int = _option(16 * 2**20, 2**10, 10**12 - 1)
    hello_s: float = _option(20.0, 0.1)
    heartbeat_s: float = _option(15.0, 0.1)
    silence_s: float = _option(60.0, 0.1)
    hold_s: float = _live(10.0, 0)
    reconnect_s: float = _live(60.0, 0)
    max_held: int = _live(1000, 1)
    max_info: int = _live(16 * 2**20, 1024)
    max_connections: int = _option(20_000, 1)
    max_handshakes: int = _option(2000, 1)


@dataclass(frozen=True, slots=True)
class RelaySection:
    enabled: bool = _option(True)
    host: str = _text("0.0.0.0", read_host)
    port: int = _port(13337)
    address: str = _text("auto", _auto_or_place)
    frame_limit: int = _option(256 * 2**20, 2**10, 10**12 - 1)
    hello_s: float = _option(20.0, 0.1)
    settle_s: float = _option(0.5, 0, 60)
    keep_s: float = _option(600.0, 1)
    memory: int = _option(64 * 2**20, 2**20)
    mailbox_bytes: int = _option(2**30, 2**20)
    total_bytes: int = _option(2**33, 2**20)
    max_connections: int = _option(20_000, 1)
    max_handshakes: int = _option(2000, 1)
    relay_keep_s: float = _option(0.0, 0)


@dataclass(frozen=True, slots=True)
class ControlSection:
    host: str = _text("127.0.0.1", read_host)
    port: int = _port(13580)
    hosts: str = _option("none")
    max_body: int = _option(2**20, 1)
    max_depth: int = _live(100, 10, 500)
    code_s: float = _live(60.0, 1)
    session_s: float = _live(7 * 86400.0, 60)
    max_viewers: int = _live(200, 0)
    slow_viewer_s: float = _live(60.0, 1)
    longest_wait_s: float = _live(30.0, 0)


@dataclass(frozen=True, slots=True)
class BlobsSection:
    max_bytes: int = _live(2**28, 2**20)
    total_bytes: int = _live(2**32, 2**20)


@dataclass(frozen=True, slots=True)
class LocalSection:
    enabled: bool = _option(True)
    port: int = _port(13590)
    concurrency: int = _option(1000, 1)
    invoke_rate: float = _option(0.0, 0)
    linger_s: float = _option(60.0, 0)
    faults: Faults = _option(NO_FAULTS)


@dataclass(frozen=True, slots=True)
class S3Section:
    endpoint: str = _text("auto", _auto_or_url, live=True)
    region: str = _text("auto", _auto_or_region, live=True)
    addressing: str = _choice("auto", "path", "virtual")
    profile: str = _option("none")
    bucket: str = _live("none")
    port: int = _port(0)

    @property
    def place(self) -> S3Place:
        """The server of all buckets but the embedded one's."""
        endpoint, region = ("" if one == "auto" else one for one in (self.endpoint, self.region))
        return S3Place(
            endpoint, region, self.addressing, "" if self.profile == "none" else self.profile
        )


@dataclass(frozen=True, slots=True)
class LaunchSection:
    public_host: str = _text("127.0.0.1", read_public_host)
    checkip: str = _text("https://checkip.amazonaws.com", _url_or_none, live=True)
    region: str = _text("us-east-1", _region, live=True)
    engine: str = _live("local")
    in_flight: int = _live(64, 1)
    timeout_s: float = _option(30.0, 0.1)
    first_byte_s: float = _option(10.0, 0.1)
    idle_s: float = _option(60.0, 0.1)
    keepalive_s: float = _option(30.0, 1)
    hello_timeout_s: float = _live(120.0, 0.1)
    accept_timeout_s: float = _live(600.0, 0.1)
    outage_s: float = _live(600.0, 0)
    ahead_s: float = _live(0.0, 0)
    growth: int = _option(1000, 0)
    canary: tuple[int, ...] = _form((1, 8), _canary, live=True, empty=True)


@dataclass(frozen=True, slots=True)
class JobsSection:
    max_workers: int = _live(10_000, 1)
    deadline_s: float = _live(3600.0, 1)
    worker_timeout_s: float = _live(900.0, 1)
    retries: int = _live(2, 0, 1000)
    retry_pause_s: float = _live(1.0, 0)
    spares: int = _live(0, 0)
    stragglers: float = _live(3.0, 0)
    blocked_s: float = _live(1.0, 0.001)
    keep: int = _option(1000, 1)


@dataclass(frozen=True, slots=True)
class LogsSection:
    actor_bytes: int = _live(2**20, 0)
    total_bytes: int = _live(2**31, 2**20)


@dataclass(frozen=True, slots=True)
class JournalSection:
    enabled: bool = _option(True)
    commit_s: float = _option(0.1, 0, 10)
    keep_days: float = _live(30.0, 0)
    max_bytes: int = _live(2**30, 2**20)
    max_attempt_bytes: int = _option(2**28, 2**10)
    max_job_bytes: int = _option(2**32, 2**10)


@dataclass(frozen=True, slots=True)
class NotifySection:
    secret: str = field(
        default="none", repr=False, metadata={"form": _secret, "live": True, "secret": True}
    )
    timeout_s: float = _live(10.0, 0.1)
    pause_s: float = _live(1.0, 0.1)
    longest_pause_s: float = _live(300.0, 0.1)
    give_up_s: float = _live(86400.0, 0)
    in_flight: int = _option(16, 1)


@dataclass(frozen=True, slots=True)
class CostSection:
    x86_gb_s_usd: float = _live(GB_S_USD["x86_64"], 0)
    arm_gb_s_usd: float = _live(GB_S_USD["arm64"], 0)
    request_usd: float = _live(REQUEST_USD, 0)


@dataclass(frozen=True, slots=True)
class Config:
    """The whole of etc/mu.conf."""

    mu: MuSection = field(default_factory=MuSection)
    worker: WorkerSection = field(default_factory=WorkerSection)
    relay: RelaySection = field(default_factory=RelaySection)
    control: ControlSection = field(default_factory=ControlSection)
    blobs: BlobsSection = field(default_factory=BlobsSection)
    local: LocalSection = field(default_factory=LocalSection)
    s3: S3Section = field(default_factory=S3Section)
    launch: LaunchSection = field(default_factory=LaunchSection)
    jobs: JobsSection = field(default_factory=JobsSection)
    logs: LogsSection = field(default_factory=LogsSection)
    journal: JournalSection = field(default_factory=JournalSection)
    notify: NotifySection = field(default_factory=NotifySection)
    cost: CostSection = field(default_factory=CostSection)
    plugins: Mapping[str, Mapping[str, str]] = field(
        default_factory=dict, metadata={"section": False}
    )
    """The options in the sections of engines that come as plugins, as texts."""

    @property
    def home(self) -> Path:
        return self.mu.home


DEPRECATED = {
    ("worker", "log_bytes"): "[logs] actor_bytes limits the log of an actor, which is on disk",
    ("jobs", "output_bytes"): "[logs] total_bytes limits the logs of all jobs, which are on disk",
}
"""Options that no longer have an effect, and what there is instead."""


def read_config(
    path: Path | None, warn: Callable[[str], object] = lambda said: None, owner: str = ""
) -> Config:
    """Return the configuration in the file `path`, or the defaults if it is None.

    `warn` is called with a sentence about each deprecated option. ~ is the home of the user `owner`,
    or else of this process. Raises ConfigError.
    """
    try:
        parser = _parse(path)
        for (section, option), instead in DEPRECATED.items():
            if parser.has_section(section) and parser.remove_option(section, option):
                warn(f"{path}: [{section}] {option} no longer has an effect: {instead}")
        config = _read_sections(Config(), parser)
        if config.jobs.spares > config.jobs.max_workers:
            raise ValueError(
                f"[jobs] spares must be at most max_workers, {config.jobs.max_workers}, got"
                f" {config.jobs.spares}"
            )
        if 0 < config.jobs.stragglers < 1:
            raise ValueError(
                f"[jobs] stragglers must be 0 (never) or at least 1, got {config.jobs.stragglers:g}"
            )
        if config.worker.haproxy and not config.worker.port:
            raise ValueError(
                "[worker] haproxy = yes needs a port, at which HAProxy listens, got port = 0"
            )
        base = path.parent if path else Path()
        home = Path(base, _expanded(config.home, owner)).absolute()
    except ValueError as error:
        raise ConfigError(f"{path or 'the defaults'}: {_printable(str(error))}") from None
    return replace(config, mu=replace(config.mu, home=home))


def _printable(text: str) -> str:
    """Return a text with escapes for what a terminal would not print."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _expanded(home: Path, owner: str) -> Path:
    whose = Path(f"~{owner}", *home.parts[1:]) if home.parts[:1] == ("~",) else home
    try:
        return whose.expanduser()
    except RuntimeError as error:  # ~nobody/.mu
        raise ValueError(f"[mu] home = {home}: {error}") from None


def _parse(path: Path | None) -> ConfigParser:
    parser = ConfigParser(interpolation=None, default_section="")
    if path is not None:
        try:
            parser.read_string(path.read_text(encoding="utf-8-sig"), path.name)
        except OSError as error:
            raise ValueError(f"cannot be read: {error.strerror}") from None
        except ValueError as error:  # not UTF-8, or a NUL in the file's name
            raise ValueError(f"cannot be read: {error}") from None
        except ParserError as error:
            raise ValueError(f"{' '.join(str(error).split()):.500}") from None
    return parser


def _read_sections(config: Config, parser: ConfigParser) -> Config:
    known = [section.name for section in sections(config)]
    for name in parser.sections():
        if name not in known and name not in entry_points(group="mu.engines").names:
            raise ValueError(f"unknown section [{name:.80}]; the sections are {', '.join(known)}")
    given = {
        name: _read_section(name, getattr(config, name), parser[name])
        for name in parser.sections()
        if name in known
    }
    plugins = {name: dict(parser[name]) for name in parser.sections() if name not in known}
    return replace(config, **given, plugins=plugins)


def sections(config: Config | type[Config]) -> list[Field[Any]]:
    """Return the fields of Config that are sections of mu itself."""
    return [one for one in fields(config) if one.metadata.get("section", True)]


def read_engine_options(engine: "Engine", config: Config) -> Params:
    """Return the options of an engine from its section, with defaults. Raises ConfigError."""
    known, values = {one.name: one for one in engine.options}, {}
    for name, text in config.plugins.get(engine.name, {}).items():
        where = f"[{engine.name}] {name}"
        if name not in known:
            has = ", ".join(known) or "none"
            raise ConfigError(
                f"unknown option {name!r:.80} in [{engine.name}]; the options are {has}"
            )
        try:
            values[name] = read_typed(text.strip(), known[name], where)
        except ValueError as error:
            raise ConfigError(str(error)) from None
    try:
        options = read_fields(engine.options, values, f"[{engine.name}]")
        engine.check(options)
    except FieldError as error:
        raise ConfigError(f"[{engine.name}] {error}".replace(f"[{engine.name}].", "")) from None
    return options


def read_typed(text: str, option: Parameter, where: str) -> object:
    """Parse the text of a plugin's option. Raises ValueError."""
    kind = option.kind
    if re.search(r"\s[#;]", text):
        raise ValueError(f"{where}: a comment must have a line of its own, got {text!r:.200}")
    if kind is bool:
        if text.lower() not in ConfigParser.BOOLEAN_STATES:
            raise ValueError(f"{where} must be yes or no, got {text!r:.200}")
        return ConfigParser.BOOLEAN_STATES[text.lower()]
    value: object = text
    if kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            what = "a whole number" if kind is int else "a number"
            raise ValueError(f"{where} must be {what}, got {text!r:.200}") from None
    return option.read(value, where)


def _read_section(name: str, default: Section, given: Mapping[str, str]) -> Section:
    """Return the `default` section with the options that the file has. Raises ValueError."""
    options = {option.name: option for option in fields(default)}
    for option in given:
        if option not in options:
            raise ValueError(
                f"unknown option {option[:80]!r} in [{name}]; the options are {', '.join(options)}"
            )
    values = {
        option: _read_option(f"[{name}] {option}", text.strip(), options[option])
        for option, text in given.items()
    }
    return replace(default, **values)


def _read_option(where: str, text: str, option: Field[object]) -> object:
    """Parse the text of an option. Raises ValueError."""
    kind, bounds = option.type, option.metadata
    shown = f"{' '.join(text.split()):.200}"  # a value may have several lines, an error only one
    if bounds.get("secret"):
        shown = "a value that is not shown here"
    if kind is Faults:
        try:
            return Faults.parse(text)
        except ValueError as error:
            raise ValueError(f"{where} = {shown}: {error}") from None
    if not text and not bounds.get("empty"):
        raise ValueError(f"{where} must not be empty")
    if re.search(r"\s[#;]", text):
        raise ValueError(f"{where}: a comment must have a line of its own, got {shown}")
    if kind is bool:
        if text.lower() not in ConfigParser.BOOLEAN_STATES:
            raise ValueError(f"{where} must be yes or no, got {shown}")
        return ConfigParser.BOOLEAN_STATES[text.lower()]
    if kind is int or kind is float:
        return _read_number(where, text, kind, bounds["minimum"], bounds["maximum"])
    if "choices" in bounds and text not in bounds["choices"]:
        raise ValueError(f"{where} must be {' or '.join(bounds['choices'])}, got {shown}")
    if not text.isprintable():
        raise ValueError(f"{where} must be one line of printable text, got {shown!r}")
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        raise ValueError(f"{where} must not be in quotes, got {shown}")
    if "form" in bounds:
        try:
            return bounds["form"](text)
        except ValueError as error:
            raise ValueError(f"{where} {error}") from None
    return Path(text) if kind is Path else text


def _read_number(
    where: str, text: str, kind: type[int] | type[float], low: float, high: float | None
) -> float:
    """Return the value of an option that is a number. Raises ValueError."""
    shown = f"{' '.join(text.split()):.200}"
    try:
        number = kind(text)
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise ValueError(f"{where} must be {what}, got {shown}") from None
    if not low <= number or (high is not None and number > high):
        raise ValueError(f"{where} must be {_bounds(low, high)}, got {shown}")
    most = YEAR_S if where.endswith("_s") else LARGEST
    if number > most:
        raise ValueError(f"{where} must be {_bounds(low, most)}, got {shown}")
    return number


def _bounds(low: float, high: float | None) -> str:
    return f"at least {low:.15g}" if high is None else f"between {low:.15g} and {high:.16g}"


def reloaded(now: Config, new: Config) -> tuple[Config, list[str], list[str]]:
    """Return what a running daemon makes of a new configuration.

    That is `now` with the new values of those options that need no restart, the names of these, and
    the names of the other options that differ.
    """
    taken: list[str] = []
    left: list[str] = []
    changed: dict[str, Any] = {}
    for section in sections(now):
        before, after = getattr(now, section.name), getattr(new, section.name)
        values = {}
        for option in fields(before):
            value = getattr(after, option.name)
            if value == getattr(before, option.name):
                continue
            name = f"[{section.name}] {option.name}"
            if option.metadata.get("live"):
                values[option.name] = value
                taken.append(name)
            else:
                left.append(name)
        changed[section.name] = replace(before, **values)
    for name in sorted({*now.plugins, *new.plugins}):
        if now.plugins.get(name) != new.plugins.get(name):
            left.append(f"[{name}]")
    return replace(now, **changed), taken, left
