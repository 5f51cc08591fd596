"""docs/porting.md: the port that it shows is a pipeline that runs."""

import re
import textwrap
from pathlib import Path

import pytest

from mu.interfaces import IPipeline
from mu.registry import Registry
from mu.testing import run

PAGE = (Path(__file__).parents[2] / "docs" / "porting.md").read_text()


def code(heading: str) -> str:
    """Return the indented block under a heading."""
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    return textwrap.dedent(section)


@pytest.fixture(scope="module")
def pipeline():
    module: dict = {}
    exec(compile(code("After"), "docs/porting.md", "exec"), module)
    return module["pipeline"]


def test_the_port_is_a_pipeline(pipeline):
    registry = Registry()
    registry.add(IPipeline, pipeline, "docs/porting.md")
    assert registry.broken == []


def test_the_port_gives_the_commands_that_the_original_gave(pipeline):
    job = run(pipeline, {"num_frames": 2, "num_offset": 1}, workers=2)
    assert job.actors[1].commands == [
        "seti:nonblock:0",
        "set:bucket:films",
        "set:fromfile:##TMPDIR##/out.mkv",
        "set:inkey:sintel/00000005.png",
        "set:targfile:##TMPDIR##/00000005.png",
        "retrieve:",
        "set:inkey:sintel/00000006.png",
        "set:targfile:##TMPDIR##/00000006.png",
        "retrieve:",
        "run:",
        "set:outkey:sintel/out/00000002.mkv",
        "upload:",
        "quit:",
    ]
    assert all(actor.finish.error is None for actor in job.actors)


def test_only_imports_and_the_global_were_changed_in_the_states():
    before, after = (
        re.search(r"class DoneState.*?\n(?=def main|class Grey)", code(heading), re.DOTALL)[0]
        for heading in ("Before", "After")
    )
    assert before.replace("ServerInfo.", "self.job.params.") == after
