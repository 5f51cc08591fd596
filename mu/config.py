"""etc/mu.conf, read once into frozen values."""

import configparser
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

from mu.engines.cost import GB_S_USD, REQUEST_USD
from mu.engines.local.faults import NO_FAULTS, Faults


class ConfigError(ValueError):
    """An option that cannot be taken: one line that names it, its value and what is allowed."""


def _option(default: Any, minimum: float | None = None, maximum: float | None = None) -> Any:
    return field(default=default, metadata={"minimum": minimum, "maximum": maximum})


def _choice(default: str, *others: str) -> Any:
    return field(default=default, metadata={"choices": (default, *others)})


def _port(default: int) -> Any:
    return _option(default, 0, 65535)


@dataclass(frozen=True, slots=True)
class Mu:
    home: Path = _option(Path("~/.mu"))
    on_stop: str = _choice("keep", "cancel")


@dataclass(frozen=True, slots=True)
class WorkerPort:
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


@dataclass(frozen=True, slots=True)
class RelayPort:
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
    relay_keep_s: float = _option(0.0, 0)


@dataclass(frozen=True, slots=True)
class ControlPort:
    host: str = _option("127.0.0.1")
    port: int = _port(13580)
    max_body: int = _option(2**20, 1)


@dataclass(frozen=True, slots=True)
class LocalEngine:
    enabled: bool = _option(True)
    port: int = _port(13590)
    concurrency: int = _option(1000, 1)
    invoke_rate: float = _option(0.0, 0)
    linger_s: float = _option(60.0, 0)
    faults: Faults = _option(NO_FAULTS)


@dataclass(frozen=True, slots=True)
class JournalFile:
    enabled: bool = _option(True)
    commit_s: float = _option(0.1, 0, 10)
    keep_days: float = _option(30.0, 0)
    max_bytes: int = _option(2**30, 2**20)


@dataclass(frozen=True, slots=True)
class Launch:
    public_host: str = _option("127.0.0.1")
    region: str = _option("us-east-1")
    engine: str = _option("local")
    in_flight: int = _option(64, 1)
    timeout_s: float = _option(30.0, 0.1)
    hello_timeout_s: float = _option(120.0, 0.1)
    accept_timeout_s: float = _option(600.0, 0.1)


@dataclass(frozen=True, slots=True)
class Jobs:
    max_workers: int = _option(10_000, 1)
    deadline_s: float = _option(3600.0, 1)
    worker_timeout_s: float = _option(900.0, 1)
    retries: int = _option(2, 0)
    retry_pause_s: float = _option(1.0, 0)
    spares: int = _option(0, 0)
    stragglers: float = _option(3.0, 0)
    keep: int = _option(1000, 1)


@dataclass(frozen=True, slots=True)
class Cost:
    x86_gb_s_usd: float = _option(GB_S_USD["x86_64"], 0)
    arm_gb_s_usd: float = _option(GB_S_USD["arm64"], 0)
    request_usd: float = _option(REQUEST_USD, 0)


@dataclass(frozen=True, slots=True)
class Config:
    """All of etc/mu.conf; each section's options, defaults and bounds are the classes above."""

    mu: Mu = field(default_factory=Mu)
    worker: WorkerPort = field(default_factory=WorkerPort)
    relay: RelayPort = field(default_factory=RelayPort)
    control: ControlPort = field(default_factory=ControlPort)
    local: LocalEngine = field(default_factory=LocalEngine)
    launch: Launch = field(default_factory=Launch)
    jobs: Jobs = field(default_factory=Jobs)
    journal: JournalFile = field(default_factory=JournalFile)
    cost: Cost = field(default_factory=Cost)

    @property
    def home(self) -> Path:
        return self.mu.home


def read_config(path: Path | None) -> Config:
    """Return the configuration in the file `path`, or the defaults. Raises ConfigError."""
    parser = configparser.ConfigParser(interpolation=None, default_section="")
    if path is not None:
        try:
            parser.read_string(path.read_text(encoding="utf-8"), str(path))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: cannot be read: {error}") from None
        except configparser.Error as error:
            raise ConfigError(" ".join(str(error).split())) from None
    known = {section.name: section for section in fields(Config)}
    for name in parser.sections():
        if name not in known:
            raise ConfigError(f"{path}: [{name}] is no section; there are {', '.join(known)}")
    kinds = get_type_hints(Config)
    base = path.parent if path else Path()
    return Config(
        **{
            name: _read_section(path, name, kinds[name], base, parser[name])
            for name in known
            if parser.has_section(name)
        }
        | ({} if parser.has_section("mu") else {"mu": _read_section(path, "mu", Mu, base, {})})
    )


def _read_section(path: Path | None, section: str, kind: type, base: Path, given: Any) -> Any:
    options = {option.name: option for option in fields(kind)}
    for name in given:
        if name not in options:
            raise ConfigError(
                f"{path}: [{section}] has no option {name!r}; it has {', '.join(options)}"
            )
    values: dict[str, Any] = {}
    for name, option in options.items():
        text = given.get(name, str(option.default)).strip()
        try:
            value = _read_value(text, option.type, option.metadata)
        except ValueError as error:
            raise ConfigError(f"{path}: [{section}] {name} = {text}: {error}") from None
        if isinstance(value, Path):
            value = Path(base, value.expanduser()).absolute()
        values[name] = value
    return kind(**values)


def _read_value(text: str, kind: Any, bounds: Any) -> Any:
    if kind is bool:
        try:
            return configparser.ConfigParser.BOOLEAN_STATES[text.lower()]
        except KeyError:
            raise ValueError("it must be yes or no") from None
    if kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            what = "a whole number" if kind is int else "a number"
            raise ValueError(f"it must be {what}") from None
        low, high = bounds["minimum"], bounds["maximum"]
        if not (low is None or value >= low) or not (high is None or value <= high):
            allowed = f"from {low:g} to {high:g}" if high is not None else f"at least {low:g}"
            raise ValueError(f"it must be {allowed}")
        return value
    if "choices" in bounds and text not in bounds["choices"]:
        raise ValueError(f"it must be {' or '.join(bounds['choices'])}")
    if kind is Faults:
        return Faults.parse(text)
    if not text:
        raise ValueError("it must not be empty")
    return kind(text)
