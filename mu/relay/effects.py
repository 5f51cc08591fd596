"""What the switchboard wants done. Its driver performs these effects in their order."""

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
    """Hand the frames of a sender to the switchboard again."""

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
    """Let a sender that had to wait announce its frame again."""

    sender: Peer


@dataclass(frozen=True, slots=True)
class Store:
    """Write a frame and its sender's count to disk, then report `stored`, in the order of these."""

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
    """Delete all that is recorded about a name."""

    name: Name


@dataclass(frozen=True, slots=True)
class ReportLoss:
    """Log that frames were dropped before anyone received them."""

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
