"""The switchboard's effects, which its driver performs in order."""

from dataclasses import dataclass

from mu.relay.parties import Frame, Name, Peer


@dataclass(frozen=True, slots=True)
class Link:
    """Pass each complete frame of a sender straight to a receiver of the same kind."""

    sender: Peer
    receiver: Peer


@dataclass(frozen=True, slots=True)
class Hold:
    """Take nothing more from a linked sender until the next Link or Unlink."""

    sender: Peer


@dataclass(frozen=True, slots=True)
class Unlink:
    """Pass the frames of a sender to the switchboard again."""

    sender: Peer


@dataclass(frozen=True, slots=True)
class Deliver:
    """Write this frame to a receiver, then report `delivered`."""

    receiver: Peer
    frame: Frame
    prefixed: bool
    """Whether to send it as F:<frame>."""


@dataclass(frozen=True, slots=True)
class Tell:
    """Send AT:<count>."""

    peer: Peer
    count: int


@dataclass(frozen=True, slots=True)
class Close:
    """Close a connection, then report `gone`."""

    peer: Peer
    reason: str


@dataclass(frozen=True, slots=True)
class Resume:
    """Let a waiting sender announce its frame again."""

    sender: Peer


@dataclass(frozen=True, slots=True)
class Store:
    """Write a frame and its sender's count to disk; then report `stored`, in the same order."""

    frame: Frame


@dataclass(frozen=True, slots=True)
class Give:
    """Record on disk that frames up to this number count as delivered, then report `gave`."""

    name: Name
    number: int


@dataclass(frozen=True, slots=True)
class Unload:
    """Release the memory of a frame that is on disk."""

    frame: Frame


@dataclass(frozen=True, slots=True)
class Drop:
    """Delete a frame, in memory and on disk."""

    frame: Frame


@dataclass(frozen=True, slots=True)
class Forget:
    """Delete everything recorded about a name."""

    name: Name


@dataclass(frozen=True, slots=True)
class ReportLoss:
    """Log that frames were dropped before they were delivered."""

    name: Name
    frames: int
    size: int
    reason: str


RelayEffect = (
    Link
    | Hold
    | Unlink
    | Deliver
    | Tell
    | Close
    | Resume
    | Store
    | Give
    | Unload
    | Drop
    | Forget
    | ReportLoss
)
