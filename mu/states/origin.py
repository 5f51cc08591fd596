"""Where in a pipeline author's code an exception was raised, and whether on purpose."""

import dis
import sys
from collections.abc import Iterator
from pathlib import PurePath
from types import FrameType, TracebackType

CALLERS = {"mu", "twisted"}
"""The packages that call an author's code. mu's own pipelines are such code, too."""
PIPELINES = "mu.pipelines"
DROPINS = "twisted.plugins."


def explained(error: BaseException) -> str:
    """Return the type, the text and the origin of an exception."""
    where = origin(error)
    return f"{type(error).__name__}: {error}" + (f" ({where})" if where else "")


def origin(error: BaseException) -> str:
    """Return a line of the author's code, such as `my_package/words.py, line 12`; empty: none.

    It is the innermost line of the package that mu called, though a library may have raised.
    """
    package, where = "", ""
    for step in _steps(error):
        owner = _package(step.tb_frame)
        if owner not in CALLERS and owner == (package := package or owner):
            path = PurePath(step.tb_frame.f_code.co_filename)
            where = f"{'/'.join(path.parts[-2:])}, line {step.tb_lineno}"
    return where


def is_deliberate(error: BaseException) -> bool:
    """Return whether a `raise` outside Python's library raised this, so that its text is for users.

    `raise ValueError("no such key")` is deliberate; `int("x")` and `json.loads("x")` are accidents.
    """
    *_, last = _steps(error)
    raised = dis.opname[last.tb_frame.f_code.co_code[last.tb_lasti]] == "RAISE_VARARGS"
    return raised and _package(last.tb_frame) not in sys.stdlib_module_names


def _steps(error: BaseException) -> Iterator[TracebackType]:
    """Yield the steps of the traceback, the outermost first."""
    step = error.__traceback__
    while step is not None:
        yield step
        step = step.tb_next


def _package(frame: FrameType) -> str:
    """Return the top-level package of the code that a frame runs, mu.pipelines, or a dropin's module."""
    module: str = frame.f_globals.get("__name__", "")
    if module.startswith(DROPINS):
        return module
    if module == PIPELINES or module.startswith(f"{PIPELINES}."):
        return PIPELINES
    return module.partition(".")[0]
