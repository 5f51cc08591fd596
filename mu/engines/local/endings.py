"""Tells the daemons that are attached to the engine which launches have ended."""

import json
from collections import Counter, deque
from typing import Protocol

from mu.engines.local.pool import InvocationResult

KEPT = 10_000
"""How many endings a daemon is told that attaches later: it may have been away meanwhile."""


class Attached(Protocol):
    """The open response to a daemon that is attached."""

    def write(self, data: bytes) -> None: ...


class Endings:
    """The last endings, and the responses that get each further one."""

    def __init__(self) -> None:
        self._last: deque[bytes] = deque(maxlen=KEPT)
        self._attached: list[Attached] = []
        self._running: Counter[str] = Counter()
        """Invocations by launch: a daemon that is killed before the answer launches once more."""

    def attach(self, response: Attached) -> None:
        self._attached.append(response)
        if self._last:
            response.write(b"".join(self._last))

    def detach(self, response: Attached) -> None:
        self._attached.remove(response)

    def began(self, event: str) -> None:
        """Note that an invocation with this payload is running."""
        if launch := launch_in(event):
            self._running[launch] += 1

    def add(self, event: str, result: InvocationResult) -> None:
        """Note that the invocation with this payload has ended, if that was its launch's last."""
        launch = launch_in(event)
        if not launch:
            return
        self._running[launch] -= 1
        if self._running[launch] > 0:
            return
        del self._running[launch]
        line = json.dumps({"ended": launch, "why": ending(result)}).encode() + b"\n"
        self._last.append(line)
        for response in self._attached:
            response.write(line)


def launch_in(event: str) -> str:
    """Return the id of the launch in a worker's payload; "" for any other payload."""
    try:
        launch = json.loads(event)["launch"]
    except (LookupError, TypeError, ValueError):
        return ""
    return launch if isinstance(launch, str) else ""


def ending(result: InvocationResult) -> str:
    """Return how an invocation ended, as a clause.

    >>> from pathlib import Path
    >>> error = b'{"errorMessage": "RequestId: r-1 Error: Runtime exited with error: signal: killed"}'
    >>> ending(InvocationResult(error, True, Path()))
    'ended: Runtime exited with error: signal: killed'
    """
    if not result.failed:
        return "ended"
    try:
        message = str(json.loads(result.payload)["errorMessage"])
    except (LookupError, TypeError, ValueError):
        return "failed"
    return f"ended: {message.partition('Error: ')[2] or message}"[:500]
