"""What can go wrong between a client and a daemon."""

from collections.abc import Mapping


class ClientError(Exception):
    """The base of the errors that a client raises; the text is a sentence for its user."""


class NoAddress(ClientError):
    """The daemon's address cannot be found; the text says what to do."""


class NotRunning(ClientError):
    """No daemon is running; the text says how to start one."""


class DaemonUnreachable(NotRunning):
    """The daemon does not answer, its answer is incomplete, or the server is not a mu daemon."""


class RequestRefused(ClientError):
    """The daemon refused a request: its error message, HTTP status, and the field it names."""

    def __init__(self, message: str, status: int, field: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.field = field


class JobError(ClientError):
    """A job has failed or was cancelled; `job` is its JSON."""

    def __init__(self, job: Mapping[str, object]) -> None:
        super().__init__(f"job {job['id']} {_ENDS.get(str(job['state']), 'ended')}: {job['error']}")
        self.job = job


_ENDS = {"failed": "failed", "cancelled": "was cancelled"}


class ItemError(ClientError):
    """A call of `map` failed: its worker was lost, or what it raised cannot be had here."""
