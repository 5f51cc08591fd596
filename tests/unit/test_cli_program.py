"""The program of `mu launch --program`."""

from mu.cli.functions import Ingredients
from mu.cli.program import LaunchedProgram

PARTS = Ingredients(["bin/ffmpeg"], "", "", [], [], None)
PROGRAM = LaunchedProgram(PARTS, None, None, None, "", 0, [])
MAP = {"name": "map", "parameters": [{"name": "command", "required": True}]}


def test_a_command_is_given_for_the_program_unless_there_is_one():
    assert PROGRAM.with_command(MAP, ()) == ("command=./ffmpeg {in} {out}",)
    given = ("command=nice ./ffmpeg -i {in} {out}",)
    assert PROGRAM.with_command(MAP, given) == given
