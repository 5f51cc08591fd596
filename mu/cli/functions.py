"""`mu bundle`: makes the zip of a function. `mu deploy` shares some of this code."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mu.cli.completion import complete_path
from mu.cli.options import CliError, F, print_json, shows_json

if TYPE_CHECKING:
    from mu.functions.bundle import Bundle
    from mu.functions.requirements import Requirements


@dataclass(frozen=True, slots=True)
class Ingredients:
    """The options that determine the content of a bundle."""

    programs: Sequence[str]
    pre: str
    post: str
    extra: Sequence[str]
    lib_dirs: Sequence[Path]
    arch: str | None
    requirements: Requirements | None = None

    @property
    def given(self) -> bool:
        """Whether there is anything besides the worker."""
        given = self.programs, self.pre, self.post, self.extra, self.lib_dirs, self.requirements
        return any(given)


requirements_option = click.option(
    "--requirements",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Add the Python packages that this requirements.txt names, for Python scripts.",
)


def describes_bundle(command: F) -> F:
    """Add the options that make up Ingredients."""
    options = (
        click.argument("programs", metavar="[PROGRAM]...", nargs=-1, shell_complete=complete_path),
        click.option(
            "--pre",
            default="",
            metavar="TEXT",
            help="Words before the first program in the packaged command.",
        ),
        click.option(
            "--post",
            default="",
            metavar="TEXT",
            help="Words after it: its arguments. The worker replaces ##INFILE##, ##OUTFILE##"
            " and the like.",
        ),
        click.option(
            "--with",
            "extra",
            multiple=True,
            metavar="PATH",
            shell_complete=complete_path,
            help="Add a file or folder; NAME=PATH adds it as NAME. Repeatable.",
        ),
        requirements_option,
        click.option(
            "--arch",
            type=click.Choice(["x86_64", "arm64"]),
            help="The function's architecture.  [default: the programs']",
        ),
        click.option(
            "--lib-dir",
            "lib_dirs",
            multiple=True,
            metavar="FOLDER",
            type=click.Path(exists=True, file_okay=False, path_type=Path),
            help="Look for shared libraries in this folder first. Repeatable.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@describes_bundle
@click.option(
    "-o",
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The zip to write.  [default: the first program's name with .zip]",
)
@click.option(
    "--runtime",
    default="python3.12",
    show_default=True,
    metavar="NAME",
    help="The function's Python, for --requirements.",
)
@shows_json
def bundle(
    programs: tuple[str, ...],
    pre: str,
    post: str,
    extra: tuple[str, ...],
    requirements: Path | None,
    arch: str | None,
    lib_dirs: tuple[Path, ...],
    out: Path | None,
    runtime: str,
    as_json: bool,
) -> None:
    """Make the zip of a function.

    It contains the worker, the programs and the packaged command: the words of --pre, the first
    program, the words of --post. Without programs it contains the worker only, for pipelines
    that run the system's own commands.

    The shared libraries of dynamic programs are added in lib/, except those of glibc, which
    Lambda has. Libraries that a program loads at run time are not detected; add them, as in
    --with lib/libcodec.so=/usr/lib/libcodec.so. The same input gives the same bytes.

    Python scripts, which end in .py or name python in their first line, are run by the worker's
    own Python. --requirements adds the packages that they import, from wheels for Lambda.

    \b
    Examples:
      mu bundle ./png2y4m --post '-i -d -o ##OUTFILE## ##INFILE##'
      mu bundle ./encode ./mux --with models --pre 'nice -n 5' -o encode.zip
      mu bundle ffmpeg=/opt/ffmpeg-arm64/ffmpeg --arch arm64
      mu bundle ./thumb.py --requirements requirements.txt --runtime python3.13
    """
    from mu.functions.bundle import ZIP_LIMIT, sized

    if out is None:
        if not programs:
            raise CliError("a bundle without a program needs a name: -o FILE")
        out = Path(function_name(programs[0]) + ".zip")
    required = None
    if requirements is not None:
        from mu.functions.requirements import Requirements

        required = Requirements(requirements, runtime)
    ingredients = Ingredients(programs, pre, post, extra, lib_dirs, arch, required)
    made, command = make_bundle(out, ingredients)
    if as_json:
        print_json(_as_json(made, command))
        return
    what = f" for {made.architecture}" if made.architecture else ""
    click.echo(f"Wrote {made.path}{what}: {sized(made.zipped)}, unzipped {sized(made.unzipped)}.")
    click.echo(f"Packaged command: {command}" if command else "There is no packaged command.")
    if made.libraries:
        click.echo(f"Shared libraries: {', '.join(made.libraries)}")
    warn(made.warnings)
    bucket = ""
    if made.zipped > ZIP_LIMIT:
        bucket = " --bucket NAME"
        warn([f"Lambda accepts {sized(ZIP_LIMIT)} directly; this zip must go through S3"])
    click.echo(f"\nNext: mu deploy --zip {shlex.quote(str(made.path))}{bucket}")


# ---------------------------------------------------------------- shared with mu deploy


def make_bundle(out: Path, of: Ingredients) -> tuple[Bundle, str]:
    """Make the bundle; return it and its packaged command."""
    if (of.pre or of.post) and not of.programs:
        raise CliError("--pre and --post need a PROGRAM: they are added before and after it")
    named = _named(of.programs, "PROGRAM")
    for path in named.values():
        if zipfile.is_zipfile(path) and path.suffix == ".zip":
            raise CliError(
                f"{path} is a zip, not a program; to deploy it, use mu deploy --zip {path}"
            )
    command = packaged_command(of)
    if of.requirements is not None:
        required = of.requirements
        click.echo(f"Installing {required.file} for {required.python(of.arch)} ...", err=True)
    with function_errors():
        from mu.functions.bundle import bundle

        made = bundle(
            out,
            executables=named,
            files=_named(of.extra, "--with"),
            command=command or None,
            architecture=of.arch,
            library_folders=of.lib_dirs,
            requirements=of.requirements,
            zip_limit=None,
        )
    return made, command


def packaged_command(of: Ingredients) -> str:
    """Return the packaged command; empty: there is no program."""
    named = _named(of.programs, "PROGRAM")
    words = [of.pre, _as_word(f"./{next(iter(named))}"), of.post] if named else []
    return " ".join(word for word in words if word)


def packaged_in(zipped: Path) -> str:
    """Return the packaged command in a bundle; empty: there is none."""
    from mu.functions.bundle import COMMAND_FILE

    with zipfile.ZipFile(zipped) as archive:
        if COMMAND_FILE not in archive.namelist():
            return ""
        return str(json.loads(archive.read(COMMAND_FILE))["command"])


def _as_word(path: str) -> str:
    """Return a path as one word of the packaged command, in which the worker replaces nothing."""
    word = shlex.quote(path)
    return word.replace("#", "#''") if "##" in path else word


def _named(words: Sequence[str], what: str) -> dict[str, Path]:
    """Return paths by their names in the bundle."""
    named: dict[str, Path] = {}
    for word in words:
        name, equals, path = word.partition("=")
        if not equals or Path(word).exists():
            name, path = Path(word).resolve().name, word
        if name in named:
            raise CliError(
                f"{what}: {named[name]} and {path} would both be bundled as {name}; rename one, as"
                f" in other={path}"
            )
        named[name] = Path(path)
    return named


def function_name(word: str) -> str:
    """Return a function name made from that of a program or a zip."""
    name, equals, _ = word.partition("=")
    name = Path(name if equals and not Path(word).exists() else word).name
    stem = name.removesuffix(".zip").removesuffix(".sh").removesuffix(".py")
    return re.sub(r"[^A-Za-z0-9_-]+", "_", stem) or "mu"


@contextlib.contextmanager
def function_errors() -> Iterator[None]:
    """Turn errors of bundling and deploying into CliError."""
    from mu.functions.aws import AwsError
    from mu.functions.bundle import BundleError
    from mu.functions.shipment import DeployError

    try:
        yield
    except (AwsError, BundleError, DeployError) as error:
        raise CliError(str(error)) from None


def warn(warnings: Sequence[str]) -> None:
    for warning in warnings:
        click.echo(f"Warning: {warning}.", err=True)


def _as_json(made: Bundle, command: str) -> dict[str, object]:
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
