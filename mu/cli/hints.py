"""What to type next: the job that fits a function."""

from __future__ import annotations

import re
from importlib.metadata import entry_points
from typing import Any

OF_ANY_FUNCTION = "hello", "map"
"""Pipelines that are not suggested because a function has their name: they fit others, too."""


def job_for(function: str, packaged: str, bucket: bool) -> list[str]:
    """Return the arguments of `mu launch` for a job that fits a function.

    That is the pipeline of the same name, or map for a packaged command, or else hello. With
    `bucket`, the job has to name one.
    """
    if required := _required(function):
        return [function, *(word for name in required for word in ("-p", f"{name}={name.upper()}"))]
    if not packaged:
        return ["hello"]
    command = f"command={command_for_map(packaged)}"
    words = ["map", "--in", "FOLDER", "--out", "FOLDER-OUT", "-p", command]
    return [*words, "-p", "bucket=BUCKET"] if bucket else words


def command_for_map(packaged: str) -> str:
    """Return a packaged command as map's parameter, with {in} and {out} for the worker's files."""
    command = packaged.replace("{", "{{").replace("}", "}}")
    files = {"##INFILE##": "{in}", "##OUTFILE##": "{out}"}
    filled = re.sub("|".join(files), lambda found: files[found[0]], command)
    return filled if filled != command else f"{command} {{in}} {{out}}"


def _required(function: str) -> list[str]:
    """Return the required parameters of the pipeline with the function's name, if there is one."""
    if function in OF_ANY_FUNCTION:
        return []
    for entry in entry_points(group="mu.pipelines", name=function):
        try:
            pipeline: Any = entry.load()
            return [one.name for one in pipeline.parameters if one.required]
        except Exception:  # a plugin's author may raise anything; `mu pipelines` tells it
            return []
    return []
