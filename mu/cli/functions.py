"""`mu bundle` and `mu deploy`: from programs to a zip, from a zip to functions."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mu.cli.options import WHERE, F, Failure, finds_daemon

if TYPE_CHECKING:
    from mu.cli.address import Home
    from mu.functions.aws import Clients
    from mu.functions.bundle import Bundle
    from mu.functions.deploy import Code, Deployment, Outcome, Settings, Shipment, Tell

AT_ONCE = 4
"""Functions that are deployed at the same time; AWS takes some 15 such calls a second."""
LOCAL_ROLE = "arn:aws:iam::000000000000:role/none"
"""The local engine wants the form of one, and gives functions the daemon's AWS_* variables."""


# ---------------------------------------------------------------- options of both


def describes_bundle(command: F) -> F:
    """Add what goes into a bundle."""
    options = (
        click.argument("programs", metavar="[PROGRAM]...", nargs=-1),
        click.option(
            "--pre",
            default="",
            metavar="TEXT",
            help="What stands before the first program in the packaged command.",
        ),
        click.option(
            "--post",
            default="",
            metavar="TEXT",
            help="What stands behind it: its arguments. ##INFILE##, ##OUTFILE## and such are"
            " filled in by the worker.",
        ),
        click.option(
            "--with",
            "extra",
            multiple=True,
            metavar="PATH",
            help="A further file or folder; NAME=PATH puts it in as NAME. As often as needed.",
        ),
        click.option(
            "--arch",
            type=click.Choice(["x86_64", "arm64"]),
            help="The function's architecture.  [default: the programs' own]",
        ),
        click.option(
            "--lib-dir",
            "lib_dirs",
            multiple=True,
            metavar="FOLDER",
            type=click.Path(exists=True, file_okay=False, path_type=Path),
            help="Look for shared libraries there first. As often as needed.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


# ---------------------------------------------------------------- commands


@click.command()
@describes_bundle
@click.option(
    "-o",
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Where to write it.  [default: the first program's name and .zip]",
)
@as_json_option
def bundle(programs: tuple[str, ...], out: Path | None, as_json: bool, **given: Any) -> None:
    """Make the zip of a function.

    It has the worker, the programs and the packaged command: what stands in --pre, the first
    program, what stands in --post. Without programs it has the worker alone, whose pipelines run
    what the system has.

    A dynamic program's shared libraries are found and put in lib/, but for glibc's, which stay
    Lambda's; what a program loads by itself while it runs is not found: name it, as in --with
    lib/libcodec.so=/usr/lib/libcodec.so. The same input gives the same bytes.

    \b
    Examples:
      mu bundle ./png2y4m --post '-i -d -o ##OUTFILE## ##INFILE##'
      mu bundle ./encode ./mux --with models --pre 'nice -n 5' -o encode.zip
      mu bundle ffmpeg=/opt/ffmpeg-arm64/ffmpeg --arch arm64
    """
    from mu.functions.bundle import ZIP_LIMIT, sized

    if out is None:
        if not programs:
            raise Failure("a bundle without a program needs a name: -o FILE")
        out = Path(_plain_name(programs[0]) + ".zip")
    made, command = _bundled(out, programs, **given)
    if as_json:
        _print_json(_told_bundle(made, command))
        return
    what = f" for {made.architecture}" if made.architecture else ""
    click.echo(f"Wrote {made.path}{what}: {sized(made.zipped)}, unzipped {sized(made.unzipped)}.")
    click.echo(f"Its command: {command}" if command else "It has no command of its own.")
    if made.libraries:
        click.echo(f"Shared libraries: {', '.join(made.libraries)}")
    _warn(made.warnings)
    bucket = ""
    if made.zipped > ZIP_LIMIT:
        bucket = " --bucket NAME"
        _warn([f"Lambda takes {sized(ZIP_LIMIT)} directly: this one goes by S3"])
    zipped = shlex.quote(str(made.path))
    click.echo(f"\nNext: mu deploy --zip {zipped}{bucket}")


@click.command()
@describes_bundle
@click.option(
    "--zip",
    "zipped",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Deploy what mu bundle wrote.",
)
@click.option("--bare", is_flag=True, help="Deploy the worker alone, without a program.")
@click.option(
    "--name", metavar="NAME", help="The function.  [default: the first program's or zip's name]"
)
@click.option("--suffix", is_flag=True, help="Add a random suffix: a function of its own.")
@click.option(
    "--copies",
    type=click.IntRange(1, 1000),
    metavar="N",
    help="Deploy NAME-0 to NAME-(N-1): one function grows by 1,000 workers in 10 s, several grow"
    " faster.",
)
@click.option("--engine", type=click.Choice(["lambda", "local"]), help="AWS, or this machine.")
@click.option(
    "--region", "--regions", "regions", multiple=True, metavar="NAME,...", help="AWS regions."
)
@click.option(
    "--role",
    metavar="ARN",
    envvar="AWS_ROLE",
    help="What the function may do.  [default: AWS_ROLE]",
)
@click.option(
    "--memory",
    type=click.IntRange(128, 10240),
    metavar="MB",
    help="CPU grows with it.  [new: 1769, one CPU]",
)
@click.option(
    "--timeout",
    type=click.IntRange(1, 900),
    metavar="SECONDS",
    help="A worker that runs for longer is killed.  [new: 900]",
)
@click.option(
    "--tmp",
    type=click.IntRange(512, 10240),
    metavar="MB",
    help="The size of /tmp.  [new: 512]",
)
@click.option("--runtime", metavar="NAME", help="The Python of the worker.  [new: python3.12]")
@click.option(
    "--bucket",
    default="",
    metavar="NAME",
    help="Let the zip go by this S3 bucket, as it must if larger than 50 MiB. {region} in it is"
    " filled in.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--delete", is_flag=True, help="Delete the functions.")
@as_json_option
@finds_daemon()
@click.pass_context
def deploy(
    ctx: click.Context,
    /,
    zipped: Path | None,
    bare: bool,
    name: str | None,
    suffix: bool,
    copies: int | None,
    engine: str | None,
    regions: tuple[str, ...],
    bucket: str,
    dry_run: bool,
    delete: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Make or update functions.

    The code is bundled as by mu bundle, or given with --zip; with neither, settings alone are
    changed. Functions that are there are changed only where they differ: what is not asked for
    stays as it is, and code that is the same is not sent again. AWS is told not to retry failed
    workers, since mu does.

    What is not given is, for a new function, what stands below under [new]. The engine and the
    region are mu.conf's unless given; engine local is that of the running daemon.

    \b
    Examples:
      mu deploy --bare --name hello --engine local
      mu deploy ./png2y4m --post '-i -d -o ##OUTFILE## ##INFILE##' --role ARN
      mu deploy --zip big.zip --bucket my-code --tmp 2048
      mu deploy --name png2y4m --memory 3008
      mu deploy ./encode --copies 4 --regions us-east-1,us-west-2 --dry-run
      mu deploy --name encode --copies 4 --delete
    """
    from mu.cli.address import find_home

    home = find_home(ctx.meta.get(WHERE, {}), os.environ)
    engine = engine or home.config.launch.engine
    if engine not in ("lambda", "local"):
        raise Failure(f"[launch] engine in {home.source} is {engine}: say --engine lambda or local")
    if engine == "local" and bucket:
        raise Failure("--bucket is for AWS: the local engine takes zips directly, up to 50 MiB")
    if delete and not name:
        raise Failure("--delete needs --name: say which function")
    programs = given["programs"]
    if not (name or zipped or programs):
        raise Failure("which function? Give --name, a program, or --zip FILE")
    name = name or _plain_name(str(zipped) if zipped else programs[0])
    regions = tuple(dict.fromkeys(word for each in regions for word in each.split(",") if word))
    regions = regions or (home.config.launch.region,)
    with _sentences():
        from mu.functions.deploy import names_of

        names = names_of(name, copies or 0, suffix)
        targets = _Targets(names, regions, _clients(engine, home), dry_run, as_json)
        if delete:
            outcomes = targets.each(lambda deployment, name: deployment.delete(name))
        else:
            with _code(zipped, bare, engine, **given) as code:
                if engine == "local" and code is not None:
                    _check_this_machine(code)
                outcomes = targets.deploy(code, _settings(engine, **given), bucket)
    if as_json:
        _print_json([_told_outcome(outcome) for outcome in outcomes])
    elif not (delete or dry_run):
        click.echo(
            f"\nRun a job on it:\n  {_launch_command(ctx, home, engine, names, copies, regions)}"
        )


# ---------------------------------------------------------------- bundling


def _bundled(
    out: Path,
    programs: Sequence[str],
    pre: str,
    post: str,
    extra: Sequence[str],
    arch: str | None,
    lib_dirs: Sequence[Path],
) -> tuple[Bundle, str]:
    """Make the bundle; return it and its command."""
    if (pre or post) and not programs:
        raise Failure("--pre and --post stand around a program in the packaged command: name it")
    named = _named(programs, "PROGRAM")
    for path in named.values():
        if zipfile.is_zipfile(path) and path.suffix == ".zip":
            raise Failure(f"{path} is a zip, no program: to deploy it, say mu deploy --zip {path}")
    words = [pre, f"./{next(iter(named))}", post] if named else []
    command = " ".join(word for word in words if word)
    with _sentences():
        from mu.functions.bundle import bundle

        made = bundle(
            out,
            executables=named,
            files=_named(extra, "--with"),
            command=command or None,
            architecture=arch,
            library_folders=lib_dirs,
            zip_limit=None,
        )
    return made, command


def _named(words: Sequence[str], what: str) -> dict[str, Path]:
    """Return files by the names that they get."""
    named: dict[str, Path] = {}
    for word in words:
        name, equals, path = word.partition("=")
        if not equals or Path(word).exists():
            name, path = Path(word).resolve().name, word
        if name in named:
            raise Failure(
                f"{what}: {named[name]} and {path} would both be {name}; give one another name, as"
                f" in other={path}"
            )
        named[name] = Path(path)
    return named


def _plain_name(word: str) -> str:
    """Return a function's name made of a program's or a zip's."""
    name, equals, _ = word.partition("=")
    name = Path(name if equals and not Path(word).exists() else word).name
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name.removesuffix(".zip").removesuffix(".sh")) or "mu"


def _told_bundle(made: Bundle, command: str) -> dict[str, Any]:
    return {
        "path": str(made.path),
        "zipped": made.zipped,
        "unzipped": made.unzipped,
        "architecture": made.architecture,
        "command": command or None,
        "libraries": made.libraries,
        "names": made.names,
        "warnings": made.warnings,
    }


# ---------------------------------------------------------------- deploying


@contextlib.contextmanager
def _code(
    zipped: Path | None, bare: bool, engine: str, arch: str | None, **given: Any
) -> Iterator[Code | None]:
    """Yield the zip that is given, or one that is made now, or None if the code stays as it is."""
    from mu.functions.bundle import look_into
    from mu.functions.deploy import Code

    of_bundle = {name: given[name] for name in ("programs", "pre", "post", "extra", "lib_dirs")}
    if zipped is not None:
        if bare or any(of_bundle.values()):
            raise Failure(
                "--zip has all that is in the function: programs, --bare, --pre, --post, --with and"
                " --lib-dir are for a bundle that is made now"
            )
        made = look_into(zipped)
        if arch and made.architecture not in (None, arch):
            raise Failure(f"--arch is {arch}; the programs in {zipped} are for {made.architecture}")
        yield Code.of(zipped, made.architecture or arch)
    elif bare or any(of_bundle.values()):
        if bare and given["programs"]:
            raise Failure("--bare is for the worker alone, without a program")
        with tempfile.TemporaryDirectory(prefix="mu-deploy-") as folder:
            made, _ = _bundled(Path(folder, "bundle.zip"), arch=arch, **of_bundle)
            if engine == "lambda":
                _warn(made.warnings)
            yield Code.of(made.path, made.architecture)
    else:
        yield None


def _check_this_machine(code: Code) -> None:
    """The local engine runs programs as they are."""
    import platform

    machine = {"aarch64": "arm64"}.get(platform.machine(), platform.machine())
    if code.architecture not in (None, machine):
        raise Failure(
            f"the programs are for {code.architecture}, this machine is {machine}: the local engine"
            " emulates nothing, so deploy this with --engine lambda"
        )


def _settings(engine: str, role: str | None, **given: Any) -> Settings:
    from mu.functions.deploy import Settings

    if engine == "local":
        role = role or LOCAL_ROLE
    fields = ("runtime", "memory", "timeout", "tmp")
    return Settings(role, **{field: given[field] for field in fields})


@dataclass(frozen=True, slots=True)
class _Targets:
    """Functions in regions, and how they are dealt with."""

    names: Sequence[str]
    regions: Sequence[str]
    clients: Clients
    dry: bool
    quiet: bool
    """stdout is for JSON."""

    def deploy(self, code: Code | None, settings: Settings, bucket: str) -> list[Outcome]:
        from mu.functions.deploy import Shipment

        with _progress() as tell, contextlib.ExitStack() as stack:
            shipments: dict[str, Shipment] = {}
            if code is not None:
                for region in self.regions:
                    shipment = Shipment(code, region, self.clients, bucket, tell)
                    shipment.check()
                    shipments[region] = shipment
                    stack.callback(_close, shipment)
            return self.each(
                lambda deployment, name: deployment.deploy(
                    name, settings, code, shipments.get(deployment.region)
                ),
                tell,
            )

    def each(
        self, one: Callable[[Deployment, str], Outcome], tell: Tell = lambda sentence: None
    ) -> list[Outcome]:
        """Have it done for each function in each region, and say what became of it."""
        from concurrent.futures import ThreadPoolExecutor

        from mu.cli.console import console
        from mu.functions.deploy import Deployment

        screen = console()

        def run(name: str, region: str) -> Outcome:
            outcome = one(Deployment(self.clients, region, tell, self.dry), name)
            if not self.quiet:
                screen.print(_sentence(outcome, self.dry))
            return outcome

        with ThreadPoolExecutor(AT_ONCE) as pool:
            running = [
                pool.submit(run, name, where) for where in self.regions for name in self.names
            ]
            return [future.result() for future in running]


def _close(shipment: Shipment) -> None:
    from mu.functions.aws import AwsError

    try:
        shipment.close()
    except AwsError as error:
        _warn([f"what was uploaded is left behind: {error}"])


def _clients(engine: str, home: Home) -> Clients:
    from mu.cli.address import find_port
    from mu.functions.aws import Aws, LocalEngine

    if engine == "lambda":
        return Aws()
    if not home.config.local.enabled:
        raise Failure(f"[local] enabled = no in {home.source}: there is no local engine")
    return LocalEngine(find_port(home, "local"))


def _launch_command(
    ctx: click.Context,
    home: Home,
    engine: str,
    names: Sequence[str],
    copies: int | None,
    regions: Sequence[str],
) -> str:
    words = ["mu"]
    for option, value in ctx.meta.get(WHERE, {}).items():
        words += [f"--{option}", value]
    words += ["launch", "hello", "--function"]
    words += [names[0].removesuffix("-0"), "--copies", str(copies)] if copies else [names[0]]
    if engine != home.config.launch.engine:
        words += ["--engine", engine]
    if engine == "lambda" and list(regions) != [home.config.launch.region]:
        words += ["--regions", ",".join(regions)]
    return shlex.join([*words, "-n", "5", "--watch"])


def _told_outcome(outcome: Outcome) -> dict[str, Any]:
    return {
        "function": outcome.name,
        "region": outcome.region,
        "did": outcome.did,
        "changes": outcome.changes,
    }


# ---------------------------------------------------------------- telling


@contextlib.contextmanager
def _sentences() -> Iterator[None]:
    """What goes wrong in bundling and deploying is a sentence and status 2."""
    from mu.functions.aws import AwsError
    from mu.functions.bundle import BundleError
    from mu.functions.deploy import DeployError

    try:
        yield
    except (AwsError, BundleError, DeployError) as error:
        raise Failure(str(error)) from None


def _sentence(outcome: Outcome, dry: bool) -> str:
    where = f"{outcome.name} in {outcome.region}"
    changes = f": {', '.join(outcome.changes)}" if outcome.changes else ""
    if outcome.did == "absent":
        return f"{where} is not there"
    if outcome.did == "unchanged":
        return f"{where} is as it should be"
    return f"{where} {'would be' if dry else 'was'} {outcome.did}{changes}"


@contextlib.contextmanager
def _progress() -> Iterator[Tell]:
    """Yield what says what is done now: beside a spinner on a terminal, else in lines on stderr."""
    from mu.cli.console import console

    screen = console(stderr=True)
    if not screen.is_terminal:
        yield lambda sentence: click.echo(sentence, err=True)
        return
    with screen.status("") as status:
        yield status.update


def _warn(warnings: Sequence[str]) -> None:
    for warning in warnings:
        click.echo(f"Warning: {warning}.", err=True)


def _print_json(told: Any) -> None:
    click.echo(json.dumps(told, indent=2 if sys.stdout.isatty() else None))
