"""`mu launch --program`: a job on a function that is made from a program of this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mu.cli.deploy import deploy_program, sentence
from mu.cli.functions import Ingredients, function_name, packaged_command
from mu.cli.hints import command_for_map
from mu.cli.options import CliError, the_home, where

if TYPE_CHECKING:
    from mu.client.answers import PipelineJson
    from mu.functions.deploy import DeployResult


@dataclass(frozen=True, slots=True)
class LaunchedProgram:
    """The program of one order, and its function."""

    parts: Ingredients
    """What the bundle contains besides the requirements."""
    requirements: Path | None
    role: str | None
    engine: str | None
    function: str
    """The name given; empty: that of the program."""
    copies: int
    regions: Sequence[str]

    @property
    def name(self) -> str:
        return self.function or function_name(self.parts.programs[0])

    def with_command(self, pipeline: PipelineJson, words: tuple[str, ...]) -> tuple[str, ...]:
        """Return the parameters, with a command that runs the program if the pipeline needs one."""
        needs = any(
            parameter["name"] == "command" and parameter["required"]
            for parameter in pipeline["parameters"]
        )
        if not needs or any(word.startswith("command=") for word in words):
            return words
        return (*words, f"command={command_for_map(packaged_command(self.parts))}")

    def deploy(self, dry: bool = False) -> list[DeployResult]:
        """Create the function, or update it if its content differs; say so on stderr.

        With `dry`, nothing is changed and nothing is said.
        """
        if self.engine not in (None, "lambda", "local"):
            raise CliError(f"--program is for engines lambda and local, got {self.engine}")
        home = None
        if "url" not in where():
            home = the_home()
        elif self.engine != "lambda" or not self.regions:
            raise CliError(
                "with --url, --program deploys to AWS from this machine: give --engine lambda and"
                " --region NAME"
            )
        deployed = deploy_program(
            home,
            self.engine,
            self.regions,
            self.name,
            self.copies,
            self.parts,
            self.requirements,
            self.role,
            dry,
        )
        for result in () if dry else deployed:
            click.echo(f"Function {sentence(result)}.", err=True)
        return deployed
