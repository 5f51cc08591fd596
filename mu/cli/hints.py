"""What to type next: the job that fits a function."""

from __future__ import annotations

import re
from importlib.metadata import entry_points
from typing import Any

from mu.parameters import REQUIRED

OF_ANY_FUNCTION = "hello", "map"
"""Pipelines that are not suggested because a function has their name: they fit others, too."""


def job_for(function: str, packaged: str, bucket: bool) -> list[str]:
    """Return the arguments of `mu launch` for a job that fits a function.

    Without a packaged command, that is hello; otherwise the pipeline of the same name, or else map.
    With `bucket`, map has to name one.
    """
    if not packaged:
        return ["hello"]
    required = _required(function)
    if required is not None:
        return [function, *(word for name in required for word in ("-p", f"{name}={name.upper()}"))]
    command = f"command={command_for_map(packaged)}"
    words = ["map", "--in", "FOLDER", "--out", "FOLDER-OUT", "-p", command]
    return [*words, "-p", "bucket=BUCKET"] if bucket else words


def command_for_map(packaged: str) -> str:
    """Return a packaged command as map's parameter, with {in} and {out} for the worker's files."""
    command = packaged.replace("{", "{{").replace("}", "}}")
    files = {"##INFILE##": "{in}", "##OUTFILE##": "{out}"}
    filled = re.sub("|".join(files), lambda found: files[found[0]], command)
    return filled if filled != command else f"{command} {{in}} {{out}}"


def _required(function: str) -> list[str] | None:
    """Return the required parameters of the pipeline with the function's name; None: there is none."""
    if function in OF_ANY_FUNCTION:
        return None
    for entry in entry_points(group="mu.pipelines", name=function):
        try:
            pipeline: Any = entry.load()
            return [one.name for one in pipeline.parameters if one.default is REQUIRED]
        except Exception:  # a plugin's author may raise anything; `mu pipelines` tells it
            return None
    return None
