"""Checks the `event` of an order as its workers will read it, so that no worker fails at it."""

from collections.abc import Mapping

from mu.parameters import FieldError
from mu.worker_code.mu_worker.event import EventError, read_event

REQUIRED_KEYS = (
    *("mode", "addr", "port", "cacert", "srvcrt", "srvkey", "server_name"),
    *("region", "job", "reconnect_s", "relay_ext", "usage_ext"),
)
"""Keys that mu sets. An order may replace their values, but a worker must have some."""


def check_event(event: Mapping[str, object]) -> None:
    """Raise FieldError for keys that a worker would refuse, or with which it could not connect."""
    for key in REQUIRED_KEYS:
        if key in event and event[key] is None:
            raise FieldError(f"event.{key}", f"event.{key} must not be null: leave it out")
    if "launch" in event:
        raise FieldError("event.launch", "event.launch cannot be set: mu sets it for each worker")
    try:
        read = read_event({"srvcrt": "set", "srvkey": "set", "mode": 1} | dict(event))
    except EventError as error:
        raise FieldError(
            f"event.{error.key}", str(error).replace("event key ", "event.", 1)
        ) from None
    if read.mode not in (1, 2):
        raise FieldError(
            "event.mode",
            f"event.mode must be 1 or 2, got {read.mode}: such a worker runs no commands",
        )
