"""What the engine and the warm parent say to each other: JSON, one line each.

Standard library only: the warm parent imports this.
"""

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Ground:
    """Where sandboxes stand; the engine says it, enclosure fills in what it found.

    `search_path` is where they import from, after the bundle and the standard library, and
    `functions` where bundles are unzipped; `place` is where both are seen inside when they lie
    under the machine's /tmp. `why_shared` says why /tmp could not be made private, and
    `outer_ids` are the user and group when a user namespace was needed.
    """

    functions: str
    search_path: tuple[str, ...]
    checkout: str
    shared_tmp: bool = False
    why_shared: str = ""
    place: str = ""
    outer_ids: tuple[int, int] | None = None

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Ground":
        fields = json.loads(text)
        fields["search_path"] = tuple(fields["search_path"])
        fields["outer_ids"] = tuple(fields["outer_ids"]) if fields["outer_ids"] else None
        return cls(**fields)


@dataclass(frozen=True, slots=True)
class Order:
    """Run one invocation. `event` is JSON text, `timeout` in seconds, `memory` in MB.

    `folder` is this sandbox's own, with `answer`, what the handler returned, in it. Its /tmp is in
    memory and holds `tmpfs` MB; or, where that is 0, in `folder`, and holds what the disk does.
    """

    id: str
    function: str
    arn: str
    handler: str
    timeout: int
    memory: int
    tmpfs: int
    region: str
    environment: dict[str, str]
    code: str
    folder: str
    log: str
    event: str

    def to_line(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> "Order":
        return cls(**json.loads(line))


@dataclass(frozen=True, slots=True)
class Report:
    """A sandbox has ended, and everything in it. `status`: its exit code, or minus its signal.

    ANSWERED and FAILED mean that `answer` in its folder holds the payload.
    """

    id: str
    status: int

    def to_line(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> "Report":
        return cls(**json.loads(line))


ANSWERED, FAILED, BROKEN = 0, 1, 70


class Lines:
    """Cuts a stream of bytes into lines, in time linear in their length."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def feed(self, received: bytes) -> list[bytes]:
        first, *rest = received.split(b"\n")
        self._parts.append(first)
        if not rest:
            return []
        complete = [b"".join(self._parts), *rest[:-1]]
        self._parts = [rest[-1]]
        return complete


def error_payload(request_id: str, kind: str, message: str) -> bytes:
    """The payload with which AWS tells of a sandbox that ended without an answer."""
    told = {"errorType": kind, "errorMessage": f"RequestId: {request_id} Error: {message}"}
    return json.dumps(told).encode()
