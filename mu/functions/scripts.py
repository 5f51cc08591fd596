"""The Python scripts of a bundle, which the worker's own Python runs, whatever their first line says."""

import os
import posixpath
import re
import shlex
from collections.abc import Iterable
from pathlib import Path

from mu.functions.contents import BundleError, Entry, add

PACKAGES = "lib/python"
"""The folder of the packages that the scripts import."""

FIND_FOLDER = """\
case $0 in /*) here=${0%/*} ;; */*) here=$PWD/${0%/*} ;; *) here=$PWD ;; esac
"""
"""Shell code that sets `here` to the folder of the starter that contains it."""

_STARTER = """\
#!/bin/sh
# Made by mu bundle: runs the script {script} with the worker's Python.
{find_folder}export PYTHONPATH="$here/{packages}${{PYTHONPATH:+:$PYTHONPATH}}"
exec "${{MU_PYTHON:-python3}}" {options}-c 'import os, sys
sys.argv = sys.argv[1:]
__file__ = os.path.join(os.path.dirname(sys.argv[0]), "." + os.path.basename(sys.argv[0]))
if not sys.path[0]:
    sys.path[0] = os.path.dirname(__file__)
with open(__file__, "rb") as script:
    exec(compile(script.read(), __file__, "exec"))' "$here"/{quoted} "$@"
"""
_INTERPRETER = re.compile(r"python[\d.]*")
_FIRST_LINE = 1024


def python_options(path: Path) -> list[str] | None:
    """Return the options of Python in a script's first line; None: it is no Python script.

    A Python script has a name that ends with .py, or a first line that names python. Raises
    BundleError.
    """
    try:
        with path.open("rb") as file:
            line = file.readline(_FIRST_LINE).decode("utf-8", "replace")
    except OSError as error:
        raise BundleError(f"cannot bundle {path}: {error.strerror or error}") from None
    words = line.removeprefix("\ufeff").removeprefix("#!").split() if "#!" in line[:3] else []
    for number, word in enumerate(words):
        if _INTERPRETER.fullmatch(posixpath.basename(word)):
            return words[number + 1 :]
    return [] if path.suffix == ".py" else None


def add_starter(contents: dict[str, Entry], name: str, options: Iterable[str]) -> None:
    """Put a starter in a script's place. The script stays in its folder, with a dot before its name.

    So it still finds the files beside it, in the bundle as on the machine where it was written. It
    sees its own name in sys.argv, which some programs look at.
    """
    script = contents[name]
    folder, base = posixpath.split(name)
    hidden = posixpath.join(folder, f".{base}")
    add(contents, (), hidden, Entry(script.path, executable=False))
    text = _STARTER.format(
        script=hidden,
        find_folder=FIND_FOLDER,
        packages="../" * name.count("/") + PACKAGES,
        options="".join(f"{shlex.quote(option)} " for option in options),
        quoted=shlex.quote(base),
    )
    contents[name] = Entry(script.path, executable=True, text=os.fsencode(text))
