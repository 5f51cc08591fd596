"""Limits the size of a job's events in the journal, so that no worker can fill the disk. Pure."""

from mu.events import Answered, Event, encode

EVENT_BYTES = 40
"""Roughly the size of an event's record without its own text: actor, attempt, digest of effects."""
REPLY_BYTES = EVENT_BYTES + 40
"""Roughly that of a reply's: its time and command, too."""


def size_of(event: Event) -> int:
    """Return roughly how many bytes the record of an event has."""
    if isinstance(event, Answered) and event.text.isascii() and event.text.isprintable():
        return REPLY_BYTES + len(event.text)
    return EVENT_BYTES + len(encode(event))


class JobAllowance:
    """The bytes left for the attempts of one job, together and each."""

    __slots__ = ("each", "left", "limit")

    def __init__(self, limit: int, each: int) -> None:
        self.limit = limit
        self.each = each
        """The limit of one attempt, in bytes."""
        self.left = limit
        """In bytes; below 0, every further event ends its attempt, and the job ends."""

    @property
    def spent(self) -> bool:
        """Whether the limit was exceeded, so that no attempt can succeed."""
        return self.left < 0

    @property
    def excess(self) -> str:
        """A sentence about that limit."""
        return (
            f"the replies of this job's workers take more than {self.limit} bytes in the journal"
            " (max_job_bytes in mu.conf)"
        )

    def attempt(self) -> "Allowance":
        """Return the allowance of a new attempt."""
        return Allowance(self)


class Allowance:
    """The bytes left for one attempt."""

    __slots__ = ("_job", "left")

    def __init__(self, job: JobAllowance) -> None:
        self._job = job
        self.left = job.each

    def take(self, size: int) -> bool:
        """Subtract that many bytes from both limits; return whether they were left."""
        job = self._job
        self.left -= size
        job.left -= size
        return self.left >= 0 and job.left >= 0

    @property
    def excess(self) -> str:
        """A sentence about the limit that was exceeded."""
        job = self._job
        if self.left < 0:
            return (
                f"the replies of its worker take more than {job.each} bytes in the journal"
                " (max_attempt_bytes in mu.conf)"
            )
        return job.excess
