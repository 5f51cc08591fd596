"""etc/mu.conf, read once into frozen values.

Each class below is a section of the file: its options with their types, defaults and bounds.
"""

from collections.abc import Mapping
from configparser import ConfigParser
from configparser import Error as ParserError
from dataclasses import Field, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from mu.engines.cost import GB_S_USD, REQUEST_USD
from mu.engines.local.faults import NO_FAULTS, Faults

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")
Section = TypeVar("Section", bound="DataclassInstance")


class ConfigError(ValueError):
    """The configuration is invalid; the text names the option, its value and what is allowed."""


def _option(default: T, minimum: float | None = None, maximum: float | None = None) -> T:
    return field(default=default, metadata={"minimum": minimum, "maximum": maximum})


def _choice(default: str, *others: str) -> str:
    return field(default=default, metadata={"choices": (default, *others)})


def _port(default: int) -> int:
    return _option(default, 0, 65535)


@dataclass(frozen=True, slots=True)
class MuSection:
    home: Path = _option(Path("~/.mu"))
    on_stop: str = _choice("keep", "cancel")
    allowed_hosts: str = _option("none")


@dataclass(frozen=True, slots=True)
class WorkerSection:
    host: str = _option("0.0.0.0")
    port: int = _port(13579)
    frame_limit: int = _option(16 * 2**20, 2**10, 10**12 - 1)
    hello_s: float = _option(20.0, 0.1)
    heartbeat_s: float = _option(15.0, 0.1)
    silence_s: float = _option(60.0, 0.1)
    hold_s: float = _option(10.0, 0)
    reconnect_s: float = _option(60.0, 0)
    log_bytes: int = _option(65536, 0)
    max_held: int = _option(1000, 1)
    max_info: int = _option(16 * 2**20, 1024)
    max_connections: int = _option(20_000, 1)
    max_handshakes: int = _option(2000, 1)


@dataclass(frozen=True, slots=True)
class RelaySection:
    enabled: bool = _option(True)
    host: str = _option("0.0.0.0")
    port: int = _port(13337)
    address: str = _option("auto")
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
    host: str = _option("127.0.0.1")
    port: int = _port(13580)
    max_body: int = _option(2**20, 1)
    max_depth: int = _option(100, 10, 500)


@dataclass(frozen=True, slots=True)
class LocalSection:
    enabled: bool = _option(True)
    port: int = _port(13590)
    concurrency: int = _option(1000, 1)
    invoke_rate: float = _option(0.0, 0)
    linger_s: float = _option(60.0, 0)
    faults: Faults = _option(NO_FAULTS)


@dataclass(frozen=True, slots=True)
class LaunchSection:
    public_host: str = _option("127.0.0.1")
    region: str = _option("us-east-1")
    engine: str = _option("local")
    in_flight: int = _option(64, 1)
    timeout_s: float = _option(30.0, 0.1)
    first_byte_s: float = _option(10.0, 0.1)
    idle_s: float = _option(60.0, 0.1)
    keepalive_s: float = _option(30.0, 1)
    hello_timeout_s: float = _option(120.0, 0.1)
    accept_timeout_s: float = _option(600.0, 0.1)
    outage_s: float = _option(600.0, 0)
    growth: int = _option(1000, 0)


@dataclass(frozen=True, slots=True)
class JobsSection:
    max_workers: int = _option(10_000, 1)
    deadline_s: float = _option(3600.0, 1)
    worker_timeout_s: float = _option(900.0, 1)
    retries: int = _option(2, 0)
    retry_pause_s: float = _option(1.0, 0)
    spares: int = _option(0, 0)
    stragglers: float = _option(3.0, 0)
    keep: int = _option(1000, 1)


@dataclass(frozen=True, slots=True)
class JournalSection:
    enabled: bool = _option(True)
    commit_s: float = _option(0.1, 0, 10)
    keep_days: float = _option(30.0, 0)
    max_bytes: int = _option(2**30, 2**20)
    max_attempt_bytes: int = _option(2**28, 2**10)
    max_job_bytes: int = _option(2**32, 2**10)


@dataclass(frozen=True, slots=True)
class CostSection:
    x86_gb_s_usd: float = _option(GB_S_USD["x86_64"], 0)
    arm_gb_s_usd: float = _option(GB_S_USD["arm64"], 0)
    request_usd: float = _option(REQUEST_USD, 0)


@dataclass(frozen=True, slots=True)
class Config:
    """The whole of etc/mu.conf."""

    mu: MuSection = field(default_factory=MuSection)
    worker: WorkerSection = field(default_factory=WorkerSection)
    relay: RelaySection = field(default_factory=RelaySection)
    control: ControlSection = field(default_factory=ControlSection)
    local: LocalSection = field(default_factory=LocalSection)
    launch: LaunchSection = field(default_factory=LaunchSection)
    jobs: JobsSection = field(default_factory=JobsSection)
    journal: JournalSection = field(default_factory=JournalSection)
    cost: CostSection = field(default_factory=CostSection)

    @property
    def home(self) -> Path:
        return self.mu.home


def read_config(path: Path | None) -> Config:
    """Return the configuration in the file `path`, or the defaults if it is None.

    Raises ConfigError.
    """
    try:
        config = _read_sections(Config(), _parse(path))
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None
    base = path.parent if path else Path()
    home = Path(base, config.home.expanduser()).absolute()
    return replace(config, mu=replace(config.mu, home=home))


def _parse(path: Path | None) -> ConfigParser:
    parser = ConfigParser(interpolation=None, default_section="")
    if path is not None:
        try:
            parser.read_string(path.read_text(encoding="utf-8"), path.name)
        except OSError as error:
            raise ValueError(f"cannot be read: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise ValueError(f"cannot be read: {error}") from None
        except ParserError as error:
            raise ValueError(" ".join(str(error).split())) from None
    return parser


def _read_sections(config: Config, parser: ConfigParser) -> Config:
    known = [section.name for section in fields(config)]
    for name in parser.sections():
        if name not in known:
            raise ValueError(f"unknown section [{name}]; the sections are {', '.join(known)}")
    given = {
        name: _read_section(name, getattr(config, name), parser[name]) for name in parser.sections()
    }
    return replace(config, **given)


def _read_section(name: str, default: Section, given: Mapping[str, str]) -> Section:
    """Return the `default` section with the options that the file has. Raises ValueError."""
    options = {option.name: option for option in fields(default)}
    for option in given:
        if option not in options:
            raise ValueError(
                f"unknown option {option!r} in [{name}]; the options are {', '.join(options)}"
            )
    values = {
        option: _read_option(f"[{name}] {option}", text.strip(), options[option])
        for option, text in given.items()
    }
    return replace(default, **values)


def _read_option(where: str, text: str, option: Field[object]) -> object:
    """Parse the text of an option. Raises ValueError."""
    kind, bounds = option.type, option.metadata
    shown = " ".join(text.split())  # a value may have several lines, an error only one
    if kind is Faults:
        try:
            return Faults.parse(text)
        except ValueError as error:
            raise ValueError(f"{where} = {shown}: {error}") from None
    if not text:
        raise ValueError(f"{where} must not be empty")
    if kind is bool:
        if text.lower() not in ConfigParser.BOOLEAN_STATES:
            raise ValueError(f"{where} must be yes or no, got {shown}")
        return ConfigParser.BOOLEAN_STATES[text.lower()]
    if kind is int or kind is float:
        try:
            number = kind(text)
        except ValueError:
            what = "a whole number" if kind is int else "a number"
            raise ValueError(f"{where} must be {what}, got {shown}") from None
        low, high = bounds["minimum"], bounds["maximum"]
        if not low <= number or (high is not None and number > high):
            raise ValueError(f"{where} must be {_bounds(low, high)}, got {shown}")
        return number
    if "choices" in bounds and text not in bounds["choices"]:
        raise ValueError(f"{where} must be {' or '.join(bounds['choices'])}, got {shown}")
    return Path(text) if kind is Path else text


def _bounds(low: float, high: float | None) -> str:
    return f"at least {low:.15g}" if high is None else f"between {low:.15g} and {high:.15g}"
