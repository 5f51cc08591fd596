"""The messages between the engine and the warm parent: one line of JSON each.

Standard library only, since the warm parent imports this.
"""

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class SandboxSetup:
    """What all sandboxes have in common. The engine sends it, and the warm parent completes it.

    Handlers import from the bundle, the standard library and `search_path`, in this order.
    Bundles are unzipped in `functions`. If either lies under the machine's /tmp, sandboxes see it
    in `place` instead. `why_shared` says why /tmp cannot be private, and `outer_ids` are the user
    and group ids outside of the user namespace, if there is one.
    `home` is the daemon's home, which is hidden from sandboxes but for their own code and the
    directories `kept`; if it lies under /tmp, it is the path in `place`.
    """

    home: str
    functions: str
    search_path: tuple[str, ...]
    checkout: str
    shared_tmp: bool = False
    why_shared: str = ""
    place: str = ""
    kept: tuple[str, ...] = ()
    outer_ids: tuple[int, int] | None = None

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "SandboxSetup":
        fields = json.loads(text)
        fields["search_path"] = tuple(fields["search_path"])
        fields["kept"] = tuple(fields["kept"])
        fields["outer_ids"] = tuple(fields["outer_ids"]) if fields["outer_ids"] else None
        return cls(**fields)


@dataclass(frozen=True, slots=True)
class SandboxTask:
    """One invocation to run. `event` is JSON text, `timeout` is in seconds, `memory` in MB.

    `folder` belongs to this sandbox; the handler's response is written to `answer` in it. /tmp is
    in memory, with a size of `tmpfs` MB, or on disk in `folder` and unlimited if `tmpfs` is 0.
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
    role: dict[str, str]
    code: str
    folder: str
    log: str
    event: str

    def to_line(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> "SandboxTask":
        return cls(**json.loads(line))


@dataclass(frozen=True, slots=True)
class SandboxReport:
    """A sandbox has ended. `status` is its exit status, or the negative signal number.

    With ANSWERED and FAILED, `answer` in its folder holds the payload.
    """

    id: str
    status: int

    def to_line(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> "SandboxReport":
        return cls(**json.loads(line))


ANSWERED, FAILED, BROKEN = 0, 1, 70
WARM_UP = b""
"""The line that has the warm parent import what workers need, before the first task comes."""


class LineBuffer:
    """Splits a stream of bytes into lines, in linear time."""

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
    """Return AWS's payload for a sandbox that ended without a response."""
    fields = {"errorType": kind, "errorMessage": f"RequestId: {request_id} Error: {message}"}
    return json.dumps(fields).encode()
