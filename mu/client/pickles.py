"""Functions, their arguments and their results, between objects and bytes."""

import base64
import io
import pickle
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from mu.client.errors import ClientError, ItemError
from mu.client.function import the_cloudpickle
from mu.wire import frame


def pickled_function(function: object) -> bytes:
    """Return the pickle of a function, with the modules of its own. Raises ClientError."""
    return _pickled(function, "the function")


def pickled_items(items: Iterable[object]) -> tuple[bytes, int]:
    """Return the frames of the pickles of calls, each with one argument; and how many they are."""
    out, count = io.BytesIO(), 0
    for count, item in enumerate(items, 1):
        call: tuple[tuple[object], dict[str, object]] = (item,), {}
        try:
            dumped = pickle.dumps(call, protocol=5) if _is_plain(item) else None
        except Exception:
            dumped = None
        out.write(frame(dumped or _pickled(call, f"item {count - 1}")))
    return out.getvalue(), count


def _is_plain(item: object) -> bool:
    """Whether pickle does what cloudpickle would do, which takes ten times as long."""
    return type(item) in (int, float, str, bytes, bool, type(None))


def _pickled(value: object, what: str) -> bytes:
    cloudpickle = the_cloudpickle()
    with _by_value(cloudpickle):
        try:
            dumped: bytes = cloudpickle.dumps(value, protocol=5)
        except Exception as error:
            raise ClientError(f"{what} cannot be sent: {type(error).__name__}: {error}") from error
    return dumped


@contextmanager
def _by_value(cloudpickle: Any) -> Iterator[None]:
    """Have the client's own modules sent along: the workers do not have them."""
    known = set(cloudpickle.list_registry_pickle_by_value())
    ours = [module for module in own_modules() if module.__name__ not in known]
    for module in ours:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in ours:
            cloudpickle.unregister_pickle_by_value(module)


def own_modules() -> Iterator[ModuleType]:
    """Yield the imported modules that are neither Python's, nor installed, nor mu's."""
    paths = sysconfig.get_paths()
    installed = {
        Path(paths[name]).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")
    }
    installed |= {Path(one).resolve() for one in sys.path if one.endswith(("-packages",))}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if not file or name == "__main__" or name.partition(".")[0] in ("mu", "cloudpickle"):
            continue
        if not any(folder in installed for folder in Path(file).resolve().parents):
            yield module


def value_of(row: Mapping[str, Any], number: int) -> Any:
    """Return what a call returned. Raises what it raised, or ItemError."""
    if "value" in row:
        return pickle.loads(base64.b64decode(row["value"]))
    raise error_of(row, number)


def error_of(row: Mapping[str, Any], number: int) -> Exception:
    """Return the exception of a failed item."""
    error: Exception = ItemError(f"item {number}: {row['error']}")
    if row.get("raised"):
        try:
            raised = pickle.loads(base64.b64decode(row["raised"]))
        except Exception as unknown:  # its class is not here
            error.add_note(f"the exception itself cannot be loaded: {unknown!r}")
        else:
            error = raised if isinstance(raised, Exception) else error
    error.add_note(f"raised for item {number} by a worker:\n{row.get('trace') or row['error']}")
    return error
