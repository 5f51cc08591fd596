"""What the doctor is asked to check."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from mu.config import Config
from mu.findings import FAIL, OK, UNKNOWN, Finding
from mu.functions.apis import Clients
from mu.functions.aws import AwsClients, LocalClients
from mu.functions.deploy import DEFAULTS, NAME
from mu.parameters import RESTART, FieldError, Parameter, read_fields

_REGION = re.compile(r"[a-z0-9-]{1,64}")
_MOST = 1_000_000


@dataclass(frozen=True, slots=True)
class Needs:
    """What a pipeline needs besides workers."""

    name: str
    relay: bool
    all_at_once: bool


@dataclass(frozen=True, slots=True)
class Case:
    """What to check."""

    config: Config
    source: str
    """The source of the configuration: a file's path, or `the defaults`."""
    engine: str
    clients: Clients | None
    """None: no engine can be asked, and a finding in `known` says why."""
    regions: Sequence[str]
    functions: Sequence[str] = ()
    workers: int = 1
    role: str = ""
    bucket: str = ""
    write: bool = False
    known: Sequence[Finding] = ()
    """Findings made before the checks."""
    needs: Needs | None = None
    """None: those of any pipeline."""
    run: bool = False
    """Run also functions that do not say that they are workers of mu."""
    memory: int = DEFAULTS.memory or 0
    """How much the functions are to have, in MB."""
    storage: Clients = field(default_factory=AwsClients)
    """Clients of S3."""
    endpoint: str = ""
    """The URL of the S3 server that [s3] of mu.conf names; empty: it is AWS's."""
    plugged: Callable[[], Iterable[Finding]] | None = None
    """What finds whether jobs can run on the engine, if it comes as a plugin."""
    whose: str = "these"
    """Whose credentials the clients have, such as `the daemon's`."""

    @property
    def share(self) -> int:
        """The number of workers in each region."""
        return -(-self.workers // len(self.regions))

    @property
    def at_once(self) -> str:
        """The pipeline, if it needs all its workers at the same time."""
        return self.needs.name if self.needs and self.needs.all_at_once else ""

    @property
    def relay_user(self) -> str:
        """The pipeline, if it is known to need the relay."""
        return self.needs.name if self.needs and self.needs.relay else ""

    @property
    def may_use_relay(self) -> bool:
        return self.needs is None or self.needs.relay


def case_fields(config: Config) -> tuple[Parameter, ...]:
    """Return the fields of POST /doctor."""
    return (
        Parameter("engine", str, "lambda or local", config.launch.engine),
        Parameter("functions", list, "names of functions", []),
        Parameter("regions", list, "AWS regions", [config.launch.region]),
        Parameter("workers", int, "how many workers the job will have", 1, 1, _MOST),
        Parameter("pipeline", str, "the job's pipeline (empty: any)", ""),
        Parameter("memory", int, "how many MB the functions are to have", DEFAULTS.memory, 1),
        Parameter("role", str, "ARN of the functions' role (empty: the function's)", ""),
        Parameter("bucket", str, "a data bucket", _configured_bucket(config)),
        Parameter("write", bool, "whether to write an object there", False),
        Parameter("run", bool, "whether to run functions that may not be workers", False),
    )


def _configured_bucket(config: Config) -> str:
    return "" if config.s3.bucket == "none" else config.s3.bucket


def read_case(
    given: Mapping[str, object],
    config: Config,
    source: str,
    aws: Clients,
    local: LocalClients | Finding,
    pipelines: Collection[Needs] | None,
    whose: str,
    plugged: Mapping[str, Callable[[Sequence[str]], Iterable[Finding]]] | None = None,
) -> Case:
    """Return the case that a request describes. Raises FieldError.

    `local` may say why the local engine cannot be asked; `pipelines` is None if nobody knows them
    here. `plugged` has what examines the engines of plugins, by their names.
    """
    asked = read_fields(case_fields(config), given, known="fields")
    examiner = (plugged or {}).get(asked.engine)
    if asked.engine not in ("lambda", "local") and examiner is None:
        said = "got" if "engine" in given else "but [launch] engine is"
        names = " or ".join([", ".join(["lambda", *sorted(plugged or {})]), "local"])
        raise FieldError("engine", f"engine must be {names}, {said} {asked.engine!r:.200}")
    _check_names("functions", asked.functions, NAME, "1 to 64 letters, digits, - and _")
    _check_names("regions", asked.regions, _REGION, "names of AWS regions")
    if not asked.regions:
        raise FieldError("regions", "regions must name at least one region, got []")
    found: list[Finding] = []
    needs = None
    if asked.pipeline and pipelines is None:
        sentence = f"what pipeline {asked.pipeline} needs is known only to a running daemon"
        found.append(Finding("pipeline", UNKNOWN, sentence))
    elif asked.pipeline:
        by_name = {needs.name: needs for needs in pipelines or ()}
        if asked.pipeline not in by_name:
            raise FieldError(
                "pipeline",
                f"unknown pipeline {asked.pipeline!r:.200}; the pipelines are {', '.join(by_name)};"
                f" {RESTART}",
            )
        needs = by_name[asked.pipeline]
    clients: Clients | None = aws
    if asked.engine == "local":
        clients = None if isinstance(local, Finding) else local
        found.append(local if isinstance(local, Finding) else _listening(local))
    elif examiner is not None:
        clients = None
    return Case(
        config,
        source,
        asked.engine,
        clients,
        asked.regions,
        asked.functions,
        asked.workers,
        asked.role,
        asked.bucket,
        asked.write,
        found,
        needs,
        asked.run,
        asked.memory,
        aws,
        config.s3.place.endpoint,
        None if examiner is None else partial(examiner, asked.functions),
        whose,
    )


def no_local_engine(why: str, remedy: str = "") -> Finding:
    return Finding("local engine", FAIL, why, remedy)


def _listening(clients: LocalClients) -> Finding:
    return Finding("local engine", OK, f"listening on port {clients.port}")


def _check_names(field: str, names: list[object], form: re.Pattern[str], expected: str) -> None:
    for name in names:
        if not (isinstance(name, str) and form.fullmatch(name)):
            raise FieldError(field, f"{field} must be {expected}, got {name!r:.200}")
