"""Functions, their arguments and their results, between objects and bytes."""

import base64
import io
import os
import pickle
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from mu.client.errors import ClientError, ItemError
from mu.client.function import the_cloudpickle
from mu.wire import frame

PLAIN = (int, float, str, bytes, bool, type(None))


@contextmanager
def modules_by_value() -> Iterator[None]:
    """Have pickles contain the client's own modules: the workers do not have them."""
    cloudpickle = the_cloudpickle()
    known = set(cloudpickle.list_registry_pickle_by_value())
    ours = [module for module in own_modules() if module.__name__ not in known]
    for module in ours:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in ours:
            cloudpickle.unregister_pickle_by_value(module)


def pickled(value: object, what: str) -> bytes:
    """Return a pickle, which may contain functions. Raises ClientError, which says what it is."""
    try:
        dumped: bytes = the_cloudpickle().dumps(value, protocol=5)
    except Exception as error:
        raise ClientError(f"{what} cannot be sent: {type(error).__name__}: {error}") from error
    return dumped


def pickled_items(items: Iterable[object]) -> tuple[bytes, int]:
    """Return the frames of the pickles of calls, each with one argument; and how many they are."""
    out, count = io.BytesIO(), 0
    for item in items:
        call: tuple[tuple[object], dict[str, object]] = (item,), {}
        plain = type(item) in PLAIN  # cloudpickle takes ten times as long
        out.write(frame(pickle.dumps(call, 5) if plain else pickled(call, f"item {count}")))
        count += 1
    return out.getvalue(), count


def own_modules() -> Iterator[ModuleType]:
    """Yield the imported modules that are neither Python's, nor installed, nor mu's."""
    known = sysconfig.get_paths()
    folders = {known[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    folders |= {path for path in sys.path if path.endswith("-packages")}
    installed = tuple(f"{path}{os.sep}" for one in folders for path in (one, os.path.realpath(one)))
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if not file or file.startswith(installed) or name.partition(".")[0] == "mu":
            continue
        if name != "__main__" and getattr(module, "__name__", "") == name:
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
