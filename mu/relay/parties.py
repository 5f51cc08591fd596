"""The switchboard's records: frames, names with their mailboxes, and connections.

Only the switchboard and its mailboxes change them; a frame's body belongs to the driver.
"""

from collections import Counter
from collections.abc import Hashable
from typing import NamedTuple

from mu.relay.limits import OVERHEAD

Peer = Hashable
"""A connection; the driver may use any object to identify it."""


class Name(NamedTuple):
    """The name of a worker for its neighbours. The job is that of its certificate."""

    job: str
    uniq: str
    number: str

    def __str__(self) -> str:
        return f"{self.uniq}_{self.number} of job {self.job}"


class Frame:
    """One frame, in transit or in a mailbox."""

    __slots__ = (
        *("at", "body", "delivered", "dropped", "file", "in_memory", "number", "party"),
        *("place", "sender", "sender_number", "size", "skipped", "stored", "storing", "via"),
    )

    def __init__(self, size: int, at: float, party: "Party") -> None:
        self.size = size
        self.at = at
        """When it began to arrive, in seconds."""
        self.party = party
        """The name whose mailbox it is for."""
        self.number = 0
        """Its number in that mailbox, from 1; 0: it is not in it yet."""
        self.sender: Party | None = None
        """The sender, if it is an extended peer."""
        self.sender_number = 0
        """The frame's number among all frames of that sender, from 1."""
        self.via: Party | None = None
        """The sender, if the frame travels over a link."""
        self.file = False
        """Whether its body is written to a file while it arrives."""
        self.in_memory = False
        self.skipped = False
        """Whether the relay already holds it, so that its body is ignored."""
        self.storing = self.stored = False
        """Whether it is being written to disk, and whether it is on disk."""
        self.delivered = False
        """Whether an extended receiver got it, and none has requested it since."""
        self.dropped = False
        self.body: object = None
        """Only for the driver."""
        self.place: int | None = None
        """The driver's id for it on disk."""

    @property
    def cost(self) -> int:
        """How much it counts towards the limits, in bytes."""
        return self.size + OVERHEAD

    @property
    def name(self) -> Name:
        return self.party.name


class Party:
    """A name: what it sent, its mailbox, and the connections that use it."""

    __slots__ = (
        *("bytes", "candidates", "count", "current", "disk", "doubt", "durable", "frames"),
        *("given", "giving", "heir", "held", "idle_since", "links", "loose", "name", "passing"),
        *("senders", "top", "_lowest"),
    )

    def __init__(self, name: Name) -> None:
        self.name = name
        # as a sender
        self.held = 0  # frames accepted from it since it first said AT ...
        self.disk = 0  # ... and how many of them are on disk
        self.top = 0  # the highest attempt that was admitted
        # as a receiver
        self.frames: dict[int, Frame] = {}  # its mailbox, by number
        self.loose: dict[int, Frame] = {}  # those that need not be on disk yet
        self._lowest = 1  # no frame in the mailbox has a lower number
        self.count = 0  # the last number in the mailbox so far
        self.bytes = 0  # in the mailbox or arriving for it
        self.given = 0  # frames on disk up to this number may go to a plain peer ...
        self.giving = 0  # ... once this many records about it are on disk
        self.durable = False  # whether anything about it is on disk
        self.senders: dict[Peer, PeerState] = {}
        self.links: dict[Peer, PeerState] = {}  # the senders that are linked to `current`
        self.passing: Counter[Party] = Counter()  # frames on links, by sender
        self.doubt = False  # whether these links are on hold
        # the connections that use it
        self.current: PeerState | None = None
        self.heir: PeerState | None = None  # admitted as soon as `current` is gone
        self.candidates: dict[Peer, PeerState] = {}  # not yet known to be plain or extended
        self.idle_since: float | None = None

    @property
    def first(self) -> int:
        """The lowest frame number that is still available."""
        if not self.frames:
            return self.count + 1
        while self._lowest not in self.frames:  # the first of a dict may be slow to find
            self._lowest += 1
        return self._lowest

    def put(self, frame: Frame) -> None:
        """Put a numbered frame into its mailbox; its number is higher than those before."""
        if not self.frames:
            self._lowest = frame.number
        self.frames[frame.number] = frame
        self.count = max(self.count, frame.number)

    @property
    def receiver(self) -> "PeerState | None":
        """The connection to which frames may be delivered now."""
        peer = self.current
        return None if peer is None or peer.closing or self.candidates else peer

    @property
    def extended(self) -> bool:
        """Whether its frames go to an extended peer, as far as known."""
        return self.top > 0 if self.current is None else self.current.extended

    @property
    def unused(self) -> bool:
        return not (
            self.frames
            or self.current
            or self.heir
            or self.candidates
            or self.senders
            or self.bytes
            or self.giving
            or self.passing
        )

    def is_out(self, frame: Frame) -> bool:
        """Return whether a frame is being delivered now."""
        return self.current is not None and frame in self.current.out


class PeerState:
    """One connection."""

    __slots__ = (
        *("arriving", "closing", "extended", "id", "next", "next_in", "out", "out_bytes"),
        *("partner", "party", "received", "seated", "sent"),
    )

    def __init__(self, peer: Peer, party: Party, partner: Party) -> None:
        self.id = peer
        self.party = party
        self.partner = partner
        self.extended = False
        self.sent = self.received = 0  # from its AT
        self.seated = False  # whether it holds its name: `party.current` is this one
        self.closing = False
        self.next_in = 1  # extended: the number of the next frame from it
        self.next = 1  # the mailbox number of the next frame for it
        self.out: dict[Frame, None] = {}  # frames being delivered to it
        self.out_bytes = 0
        self.arriving: Frame | None = None
