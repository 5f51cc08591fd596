"""Calls a function of Python for each of some items, in a process that stays for all of them.

    python -m mu_worker.calls FOLDER 'JSON'

`pymap` runs it. FOLDER has `items`: frames of JSON or of pickles; and `code`, the pickle of the function,
unless the JSON names it as `call`, MODULE:FUNCTION. It writes FOLDER/progress: how many items have ended,
and how many of them in vain; at the end FOLDER/answer, with a row for each item; and if these are too
large for a reply, FOLDER/results instead.

The items run in a child, forked once everything is imported. If it dies, the item that it was at has
failed, and another child goes on with the rest.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence

from mu.wire import Framer

UNUSABLE = 64
"""The exit status for what no retry can mend (EX_USAGE of sysexits.h)."""
LONGEST_TEXT = 2000
"""How many characters of an exception's text and of its traceback are kept."""

Row = str
"""JSON: {"value": ...}, or {"error": TEXT, "trace": TEXT, "raised": pickle or null}."""


def main(folder: str, told: str) -> None:
    wanted = json.loads(told)
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if wanted["python"] not in ("", here):
        _refuse(
            f"the client runs Python {wanted['python']} and the function Python {here}, which cannot"
            " read each other's functions: use the same version on both sides"
        )
    root = os.getcwd()
    sys.path[:0] = [root, os.path.join(root, "lib", "python")]
    with open(os.path.join(folder, "items"), "rb") as file:
        items = list(Framer(2**40).feed(file.read()))
    name = wanted["call"]
    call = _named(name) if name else _pickled(os.path.join(folder, "code"))
    results = Rows(folder, len(items))
    calls = Calls(call, items, wanted["tries"])
    deaths = 0  # at the next item
    while (done := len(results)) < len(items):
        died = run_child(calls, results)
        if len(results) > done:
            deaths = 0
        deaths += 1
        if died and deaths >= calls.tries:
            results.add(json.dumps({"error": f"its process died: {died}"}))
            deaths = 0
    results.write(wanted["wire_bytes"])


def _refuse(why: str) -> None:
    print(why, file=sys.stderr)
    sys.exit(UNUSABLE)


def _named(name: str) -> Callable[[bytes], str]:
    """Return what calls the function MODULE:FUNCTION with JSON."""
    from importlib import import_module

    module, _, attribute = name.partition(":")
    try:
        function = import_module(module)
        for part in attribute.split("."):
            function = getattr(function, part)
    except (ImportError, AttributeError) as error:
        _refuse(f"{name} cannot be imported: {error}")
    return lambda item: json.dumps({"value": function(json.loads(item))})  # type: ignore[operator]


def _pickled(path: str) -> Callable[[bytes], str]:
    """Return what calls the pickled function with pickles."""
    import base64
    import pickle

    try:
        with open(path, "rb") as file:
            function = pickle.load(file)
    except Exception as error:
        _refuse(f"the function cannot be loaded: {type(error).__name__}: {error}")

    def call(item: bytes) -> str:
        arguments, keywords = pickle.loads(item)
        value = dump(function(*arguments, **keywords))
        return f'{{"value": "{base64.b64encode(value).decode("ascii")}"}}'

    return call


def dump(value: object) -> bytes:
    """Return a pickle; what pickle cannot do, cloudpickle may."""
    import pickle

    try:
        return pickle.dumps(value, protocol=5)
    except Exception:
        import cloudpickle

        dumped: bytes = cloudpickle.dumps(value, protocol=5)
        return dumped


class Calls:
    """The items, and what is called with them."""

    def __init__(self, call: Callable[[bytes], str], items: Sequence[bytes], tries: int) -> None:
        self.items = items
        self.tries = tries
        self._call = call

    def row(self, number: int) -> Row:
        """Return the row of an item; it is tried again after an exception."""
        for left in reversed(range(self.tries)):
            try:
                return self._call(self.items[number])
            except Exception as error:
                if not left:
                    return failure(error)
        raise AssertionError(self.tries)


def failure(error: Exception) -> Row:
    """Return the row of an item whose call raised this."""
    import base64
    import traceback

    text = f"{type(error).__name__}: {error}"[:LONGEST_TEXT]
    frames = traceback.format_tb(error.__traceback__)[2:]  # those below are ours
    try:
        raised = base64.b64encode(dump(error)).decode("ascii")
    except Exception:
        raised = None
    return json.dumps({"error": text, "trace": "".join(frames)[-LONGEST_TEXT:], "raised": raised})


class Rows:
    """The rows so far."""

    def __init__(self, folder: str, items: int) -> None:
        self._folder = folder
        self._rows: list[Row] = []
        self._failed = 0
        self._next = 1
        self._step = max(1, items // 100)

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, row: Row) -> None:
        self._rows.append(row)
        self._failed += row.startswith('{"error"')
        if len(self._rows) >= self._next:
            self._next += self._step
            self._put("progress", f"{len(self._rows)} {self._failed}")

    def write(self, wire_bytes: int) -> None:
        """Write all rows, and an answer of at most `wire_bytes`, which contains them if they fit."""
        rows = f"[{','.join(self._rows)}]"
        answer = f'{{"failed": {self._failed}, "bytes": {len(rows)}'
        whole = f'{answer}, "rows": {rows}}}'
        if len(whole) > wire_bytes:  # all is ASCII
            self._put("results", rows)
            whole = f"{answer}}}"
        self._put("answer", whole)

    def _put(self, name: str, text: str) -> None:
        path = os.path.join(self._folder, name)
        with open(f"{path}.part", "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(f"{path}.part", path)


def run_child(calls: Calls, results: Rows) -> str:
    """Have a child do the rest of the items, as far as it gets; return how it died, if it did."""
    begin = len(results)
    out, into = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if not child:
        os.close(out)
        with os.fdopen(into, "wb") as pipe:
            for number in range(begin, len(calls.items)):
                row = calls.row(number).encode("utf-8", "surrogatepass")
                pipe.write(b"%d\n%b" % (len(row), row))
                pipe.flush()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    os.close(into)
    with os.fdopen(out, "rb") as pipe:
        while line := pipe.readline():
            row = pipe.read(int(line))
            if len(row) < int(line):
                break
            results.add(row.decode("utf-8", "replace"))
    _, status = os.waitpid(child, 0)
    if len(results) == len(calls.items):
        return ""
    code = os.waitstatus_to_exitcode(status)
    return f"signal {-code}" if code < 0 else f"exit status {code}"


if __name__ == "__main__":
    main(*sys.argv[1:])
