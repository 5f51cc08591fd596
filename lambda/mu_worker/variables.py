"""The variables for set, seti, get and geti. At first, they are the event's switches."""

import json

from mu_worker.event import WorkerEvent

_FROM_EVENT = (
    *("bucket", "region", "nonblock", "bg_silent", "expect_statefile", "send_statefile"),
    *("minimal_recode", "hash_s3keys", "rm_tmpdir"),
)


class Variables:
    """Named strings and integers. They do not include the event's secrets."""

    def __init__(self, event: WorkerEvent, folder: str) -> None:
        self._values: dict[str, str | int] = {"run_iter": 0, "_tmpdir": folder}
        for name in _FROM_EVENT:
            value = getattr(event, name)
            if value is not None:
                self._values[name] = value

    def set(self, name: str, value: str | int) -> None:
        self._values[name] = value

    def text(self, name: str) -> str | None:
        """Return the variable as text; None: it does not exist."""
        value = self._values.get(name)
        return None if value is None else str(value)

    def number(self, name: str) -> int:
        """Return the variable as an integer; 0 if it does not exist or is not a number."""
        try:
            return int(self._values.get(name, 0))
        except ValueError:
            return 0

    def dump(self) -> str:
        """Return all variables as a JSON object."""
        return json.dumps(self._values, sort_keys=True)
