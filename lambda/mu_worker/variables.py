"""The variables that set, seti, get and geti work on; the event's switches are the first."""

import json

from mu_worker.event import Event

_FROM_EVENT = (
    *("bucket", "region", "nonblock", "bg_silent", "expect_statefile", "send_statefile"),
    *("minimal_recode", "hash_s3keys", "rm_tmpdir"),
)


class Variables:
    """Names and values, each a string or an integer. No secret of the event is among them."""

    def __init__(self, event: Event, folder: str) -> None:
        self._values: dict[str, str | int] = {"run_iter": 0, "_tmpdir": folder}
        for name in _FROM_EVENT:
            value = getattr(event, name)
            if value is not None:
                self._values[name] = value

    def set(self, name: str, value: str | int) -> None:
        self._values[name] = value

    def text(self, name: str) -> str | None:
        """Return the variable as text, None if there is none of that name."""
        value = self._values.get(name)
        return None if value is None else str(value)

    def number(self, name: str) -> int:
        """Return the variable as an integer; 0 where it is absent or is none."""
        try:
            return int(self._values.get(name, 0))
        except ValueError:
            return 0

    def dump(self) -> str:
        """Return all of them as one JSON object."""
        return json.dumps(self._values, sort_keys=True)
