"""The program of `mu launch --program`."""

import pytest

from mu.cli.functions import Ingredients
from mu.cli.options import CliError
from mu.cli.program import LaunchedProgram

PARTS = Ingredients(["bin/ffmpeg"], "", "", [], [], None)
PROGRAM = LaunchedProgram(PARTS, None, None, None, "", 0, [])
MAP = {"name": "map", "parameters": [{"name": "command", "required": True}]}


def test_a_command_is_given_for_the_program_unless_there_is_one():
    assert PROGRAM.with_command(MAP, ()) == ("command=./ffmpeg {in} {out}",)
    given = ("command=nice ./ffmpeg -i {in} {out}",)
    assert PROGRAM.with_command(MAP, given) == given


@pytest.mark.parametrize("command", ["ffmpeg -i {in} {out}", " ffmpeg"])
def test_a_command_that_looks_for_the_program_in_the_path_is_refused(command):
    with pytest.raises(CliError, match=r"not in its PATH: call it \./ffmpeg"):
        PROGRAM.with_command(MAP, (f"command={command}",))
