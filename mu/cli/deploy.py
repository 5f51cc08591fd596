"""`mu deploy`: creates, changes and deletes functions, on AWS or on the local engine."""

from __future__ import annotations

import contextlib
import shlex
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mu.aws import limits
from mu.cli.completion import complete_function
from mu.cli.functions import (
    Ingredients,
    describes_bundle,
    function_errors,
    function_name,
    make_bundle,
    packaged_command,
    packaged_in,
    warn,
)
from mu.cli.options import (
    CliError,
    chooses_engine,
    chosen_engine,
    finds_daemon,
    local_engine_off,
    print_json,
    shows_json,
    split_regions,
    the_home,
    where,
)

if TYPE_CHECKING:
    from rich.console import Console

    from mu.client.address import Home
    from mu.functions.apis import Clients
    from mu.functions.deploy import Deployment, DeployResult, Settings
    from mu.functions.recipes import Recipe
    from mu.functions.requirements import Requirements
    from mu.functions.shipment import Code, Report, Shipment

AT_ONCE = 4
"""Functions deployed at the same time; AWS accepts about 15 such calls a second."""
LOCAL_ROLE = "arn:aws:iam::000000000000:role/none"
"""The local engine requires a role, but ignores it: functions get the daemon's AWS_* variables."""


@click.command()
@describes_bundle
@click.option(
    "--zip",
    "zipped",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Deploy a zip that mu bundle made.",
)
@click.option("--bare", is_flag=True, help="Deploy the worker only, without a program.")
@click.option(
    "--name",
    metavar="NAME",
    shell_complete=complete_function,
    help="The function.  [default: the first program's or zip's name]",
)
@click.option("--suffix", is_flag=True, help="Add a random suffix to the name.")
@click.option(
    "--copies",
    type=click.IntRange(1, 1000),
    metavar="N",
    help="Deploy NAME-0 to NAME-(N-1). One function grows by 1,000 workers in 10 s; several"
    " functions grow faster.",
)
@chooses_engine
@click.option(
    "--role",
    metavar="ARN",
    envvar="AWS_ROLE",
    help="The function's IAM role.  [default: AWS_ROLE]",
)
@click.option(
    "--memory",
    type=click.IntRange(limits.MEMORY.least),
    metavar="MB",
    help="Memory; CPU time is in proportion to it.  [new: 1769, one CPU]",
)
@click.option(
    "--timeout",
    type=click.IntRange(limits.TIMEOUT.least),
    metavar="SECONDS",
    help="Kill workers that run longer.  [new: 900]",
)
@click.option(
    "--tmp",
    type=click.IntRange(limits.TMP.least),
    metavar="MB",
    help="Size of /tmp.  [new: 512]",
)
@click.option("--runtime", metavar="NAME", help="The worker's Python.  [new: python3.12]")
@click.option(
    "--bucket",
    default="",
    metavar="NAME",
    help="Upload the zip through this S3 bucket; {region} in NAME is replaced."
    "  [default above 50 MiB: that of [s3] in mu.conf]",
)
@click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")
@click.option("--delete", is_flag=True, help="Delete the functions.")
@shows_json
@finds_daemon()
def deploy(
    programs: tuple[str, ...],
    pre: str,
    post: str,
    extra: tuple[str, ...],
    requirements: Path | None,
    arch: str | None,
    lib_dirs: tuple[Path, ...],
    zipped: Path | None,
    bare: bool,
    name: str | None,
    suffix: bool,
    copies: int | None,
    engine: str | None,
    regions: tuple[str, ...],
    role: str | None,
    memory: int | None,
    timeout: int | None,
    tmp: int | None,
    runtime: str | None,
    bucket: str,
    dry_run: bool,
    delete: bool,
    as_json: bool,
) -> None:
    """Create or update functions.

    The code is bundled as by mu bundle, or given with --zip. With neither, only settings are
    changed. In existing functions, only what differs is changed: settings that you do not give
    keep their values, and unchanged code is not uploaded. AWS's own retries are turned off,
    because mu retries failed workers itself.

    For a new function, settings default to the values marked [new] below. The engine and the
    region default to those in mu.conf. Engine local is that of the running daemon.

    \b
    Examples:
      mu deploy --bare --name hello --engine local
      mu deploy ./png2y4m --post '-i -d -o ##OUTFILE## ##INFILE##' --role ARN
      mu deploy ./thumb.py --requirements requirements.txt
      mu deploy --zip big.zip --bucket my-code --tmp 2048
      mu deploy --name png2y4m --memory 3008
      mu deploy ./encode --copies 4 --regions us-east-1,us-west-2 --dry-run
      mu deploy --name encode --copies 4 --delete
    """
    home = the_home()
    engine = chosen_engine(engine, home)
    if engine == "local" and bucket:
        raise CliError("--bucket is for AWS; the local engine accepts zips directly, up to 50 MiB")
    if delete and not name:
        raise CliError("--delete requires --name")
    if not (name or zipped or programs):
        raise CliError("no function given: use --name, a program, or --zip FILE")
    name = name or function_name(str(zipped) if zipped else programs[0])
    chosen = split_regions(regions, home)
    if not delete:
        above = (limits.MEMORY, memory), (limits.TIMEOUT, timeout), (limits.TMP, tmp)
        warn([found for limit, value in above if (found := limit.exceeded(value or 0))])
    with function_errors():
        from mu.functions.deploy import Settings, names_of

        names = names_of(name, copies or 0, suffix)
        clients = _clients(engine, home)
        targets = _Targets(names, chosen, clients, dry_run, as_json)
        if delete:
            results = targets.each(lambda deployment, name: deployment.delete(name))
        else:
            required = None
            if requirements is not None:
                on_aws = _Function(names[0], chosen[0], clients) if engine == "lambda" else None
                required = _requirements(requirements, on_aws, runtime, arch)
            ingredients = Ingredients(programs, pre, post, extra, lib_dirs, arch, required)
            role = role or (LOCAL_ROLE if engine == "local" else None)
            with _code(zipped, bare, engine, ingredients) as code:
                if engine == "local" and code is not None:
                    _check_this_machine(code)
                settings = Settings(role, runtime, memory, timeout, tmp)
                bucket = bucket or _code_bucket(code, engine, home)
                results = targets.deploy(code, settings, bucket)
    if as_json:
        print_json([_as_json(result) for result in results])
    elif not (delete or dry_run):
        packaged = packaged_command(ingredients) if zipped is None else packaged_in(zipped)
        command = _launch_command(home, engine, names, copies, chosen, packaged)
        click.echo(f"\nTo run a job on it:\n  {command}")


# ---------------------------------------------------------------- the code


@contextlib.contextmanager
def _code(
    zipped: Path | None, bare: bool, engine: str, ingredients: Ingredients
) -> Iterator[Code | None]:
    """Yield the given zip, or one that is made now, or None if the code does not change."""
    from mu.functions.bundle import look_into
    from mu.functions.shipment import Code

    arch = ingredients.arch
    if zipped is not None:
        if bare or ingredients.given:
            raise CliError(
                "--zip is a complete function, so it cannot be combined with programs, --bare,"
                " --pre, --post, --with, --requirements or --lib-dir"
            )
        made = look_into(zipped)
        if engine == "lambda":
            warn(made.warnings)
        if arch and made.architecture not in (None, arch):
            raise CliError(
                f"--arch is {arch}, but the programs in {zipped} are for {made.architecture}"
            )
        yield Code.of(zipped, made.architecture or arch)
    elif bare or ingredients.given:
        if bare and ingredients.programs:
            raise CliError("--bare deploys the worker only, so it cannot be combined with programs")
        with tempfile.TemporaryDirectory(prefix="mu-deploy-") as folder:
            made, _ = make_bundle(Path(folder, "bundle.zip"), ingredients)
            if engine == "lambda":
                warn(made.warnings)
            yield Code.of(made.path, made.architecture)
    else:
        yield None


@dataclass(frozen=True, slots=True)
class _Function:
    """A function on AWS, whether it exists or not."""

    name: str
    region: str
    clients: Clients


def _requirements(
    file: Path, function: _Function | None, runtime: str | None, arch: str | None
) -> Requirements:
    """Return what a function requires; without one, it is for the local engine. Raises AwsError."""
    from mu.functions.deploy import DEFAULTS, Deployment
    from mu.functions.requirements import Requirements

    if function is None:
        return Requirements(file)
    deployment = Deployment(function.clients, function.region, lambda sentence: None)
    there = deployment.python(function.name) or (DEFAULTS.runtime or "", "x86_64")
    return Requirements(file, runtime or there[0], arch or there[1])


def _recipe(function: str, ingredients: Ingredients, required: Requirements) -> Recipe:
    """Return what a function is to be made from, before pip runs."""
    from mu.functions.recipes import Recipe
    from mu.functions.shipment import Code

    with tempfile.TemporaryDirectory(prefix="mu-deploy-") as folder:
        made, _ = make_bundle(Path(folder, "bundle.zip"), ingredients)
        digest = Code.of(made.path, None).sha256
    return Recipe.of(function, digest, required, made.architecture)


def _check_this_machine(code: Code) -> None:
    """Refuse programs for another architecture: the local engine cannot run them."""
    import platform

    machine = {"aarch64": "arm64"}.get(platform.machine(), platform.machine())
    if code.architecture not in (None, machine):
        raise CliError(
            f"the programs are for {code.architecture}, but this machine is {machine}, and the"
            " local engine does not emulate: deploy them with --engine lambda"
        )


# ---------------------------------------------------------------- deploying


@dataclass(frozen=True, slots=True)
class _Targets:
    """Functions in regions."""

    names: Sequence[str]
    regions: Sequence[str]
    clients: Clients
    dry: bool
    quiet: bool
    """Print no sentences, because stdout is for JSON."""

    def deploy(self, code: Code | None, settings: Settings, bucket: str) -> list[DeployResult]:
        from mu.cli.display.text import console
        from mu.functions.shipment import Shipment

        screen = console()
        with _progress(screen) as report, contextlib.ExitStack() as stack:
            shipments: dict[str, Shipment] = {}
            if code is not None:
                for region in self.regions:
                    shipment = Shipment(code, region, self.clients, bucket, report)
                    shipment.check()
                    shipments[region] = shipment
                    stack.callback(_close, shipment)
            return self.each(
                lambda deployment, name: deployment.deploy(
                    name, settings, code, shipments.get(deployment.region)
                ),
                report,
                screen,
            )

    def have(self, digest: str) -> bool:
        """Whether all functions have the zip with this digest already."""
        from mu.functions.deploy import Deployment

        return all(
            Deployment(self.clients, region, lambda sentence: None).has(name, digest)
            for region in self.regions
            for name in self.names
        )

    def each(
        self,
        one: Callable[[Deployment, str], DeployResult],
        report: Report = lambda sentence: None,
        screen: Console | None = None,
    ) -> list[DeployResult]:
        """Call `one` for each function in each region, some at a time, and print the results."""
        from concurrent.futures import ThreadPoolExecutor

        from mu.cli.display.text import console
        from mu.functions.deploy import Deployment

        screen = screen or console()

        def run(name: str, region: str) -> DeployResult:
            result = one(Deployment(self.clients, region, report, self.dry), name)
            if not self.quiet:
                screen.print(sentence(result, self.dry))
            return result

        with ThreadPoolExecutor(AT_ONCE) as pool:
            running = [
                pool.submit(run, name, region) for region in self.regions for name in self.names
            ]
            return [future.result() for future in running]


def _close(shipment: Shipment) -> None:
    from mu.functions.aws import AwsError

    try:
        shipment.close()
    except AwsError as error:
        warn([f"the uploaded zip could not be deleted: {error}"])


def _clients(engine: str, home: Home) -> Clients:
    from mu.aws.s3 import S3Place
    from mu.functions.aws import AwsClients

    if engine == "lambda":
        # Lambda reads code from AWS's S3 only, and from its own region.
        return AwsClients(s3=S3Place(profile=home.config.s3.place.profile))
    if off := local_engine_off(home):
        raise CliError(off)
    from mu.client.local import local_clients

    return local_clients(home)


def _code_bucket(code: Code | None, engine: str, home: Home | None) -> str:
    """Return the configured bucket if code is too large for a request; empty: it is not on AWS."""
    from mu.functions.bundle import ZIP_LIMIT

    if code is None or code.size <= ZIP_LIMIT or engine != "lambda" or home is None:
        return ""
    s3 = home.config.s3
    return "" if s3.bucket == "none" or s3.endpoint != "auto" else s3.bucket


def deploy_bare(home: Home, name: str) -> None:
    """Create a function with the worker alone on the local engine, unless one has this name."""
    with function_errors():
        from mu.functions.deploy import Deployment, Settings

        region, clients = home.config.launch.region, _clients("local", home)
        if Deployment(clients, region, lambda sentence: None).exists(name):
            return
        with _code(None, True, "local", Ingredients((), "", "", (), (), None)) as code:
            _Targets([name], [region], clients, False, True).deploy(code, Settings(LOCAL_ROLE), "")
    click.echo(f"Created function {name} on the local engine, with the worker alone.", err=True)


def set_memory(
    home: Home | None, regions: Sequence[str], functions: Sequence[str], memory: int
) -> list[DeployResult]:
    """Give functions this much memory in MB, on the local engine of a home, or on AWS without one.

    Versions and functions of other accounts are refused.
    """
    with function_errors():
        from mu.functions.aws import AwsClients
        from mu.functions.deploy import Settings, names_of

        if above := limits.MEMORY.exceeded(memory):
            warn([above])
        for name in functions:
            names_of(name)
        clients = _clients("local", home) if home is not None else AwsClients()
        targets = _Targets(functions, regions, clients, False, True)
        return targets.deploy(None, Settings(memory=memory), "")


def deploy_program(
    home: Home | None,
    engine: str | None,
    regions: Sequence[str],
    name: str,
    copies: int,
    ingredients: Ingredients,
    requirements: Path | None,
    role: str | None,
    dry: bool,
) -> list[DeployResult]:
    """Create or update a job's function, with default settings, and print nothing on stdout.

    Its packages are not looked up again while what it was made from is the same.

    Without the daemon's home, `engine` and `regions` must be given.
    """
    if home is not None:
        engine, regions = chosen_engine(engine, home), split_regions(regions, home)
    assert engine is not None
    with function_errors():
        from mu.functions.aws import AwsClients
        from mu.functions.bundle import ZIP_LIMIT, sized
        from mu.functions.deploy import Settings, names_of

        names = names_of(name, copies)
        clients = _clients(engine, home) if home is not None else AwsClients()
        targets = _Targets(names, regions, clients, dry, True)
        settings = Settings(role or (LOCAL_ROLE if engine == "local" else None))
        recipe = None
        if requirements is not None:
            on_aws = _Function(names[0], regions[0], clients) if engine == "lambda" else None
            required = _requirements(requirements, on_aws, None, None)
            recipe = _recipe(f"{engine}-{names[0]}", ingredients, required)
            if (known := recipe.known()) and targets.have(known):
                return targets.deploy(None, settings, "")
            ingredients = replace(ingredients, requirements=required)
        with _code(None, False, engine, ingredients) as code:
            if recipe is not None and code is not None:
                recipe.keep(code.sha256)
            if engine == "local" and code is not None:
                _check_this_machine(code)
            bucket = _code_bucket(code, engine, home)
            if code is not None and code.size > ZIP_LIMIT and not bucket:
                raise CliError(
                    f"the bundle must be at most {sized(ZIP_LIMIT)}, got {sized(code.size)}"
                    " directly: use mu deploy --bucket NAME for AWS, then launch with --function"
                    f" {name} instead of --program"
                )
            return targets.deploy(code, settings, bucket)


# ---------------------------------------------------------------- output


def sentence(result: DeployResult, dry: bool = False) -> str:
    """Return what was done to a function, or in a dry run would be, without a full stop."""
    function = f"{result.name} in {result.region}"
    changes = f": {', '.join(result.changes)}" if result.changes else ""
    if result.did == "absent":
        return f"{function} does not exist"
    if result.did == "unchanged":
        return f"{function} is up to date"
    return f"{function} {'would be' if dry else 'was'} {result.did}{changes}"


def _as_json(result: DeployResult) -> dict[str, object]:
    return {
        "function": result.name,
        "region": result.region,
        "did": result.did,
        "changes": result.changes,
    }


def _launch_command(
    home: Home,
    engine: str,
    names: Sequence[str],
    copies: int | None,
    regions: Sequence[str],
    packaged: str,
) -> str:
    """Return the command that runs a job that fits the functions."""
    from mu.cli.hints import job_for

    words = ["mu"]
    for option, value in where().items():
        words += [f"--{option}", value]
    function = names[0].removesuffix("-0") if copies else names[0]
    bucket = engine == "lambda" and home.config.s3.bucket == "none"
    pipeline, *params = job_for(function, packaged, bucket)
    words += ["launch", pipeline, "--function", function]
    words += ["--copies", str(copies)] if copies else []
    if engine != home.config.launch.engine:
        words += ["--engine", engine]
    if engine == "lambda" and list(regions) != [home.config.launch.region]:
        words += ["--regions", ",".join(regions)]
    return shlex.join([*words, *params, "-n", "5", "--watch"])


@contextlib.contextmanager
def _progress(screen: Console) -> Iterator[Report]:
    """Yield a function that shows the current step: beside a spinner, or in lines on stderr.

    `screen` is for the results, on stdout.
    """
    from mu.cli.display.text import beside

    waiting = beside(screen)
    if not waiting.is_terminal:
        yield lambda sentence: click.echo(sentence, err=True)
        return
    with waiting.status("") as status:
        yield status.update
