"""Which actors of a job have changed since when, at a cost that depends on the changes alone."""


class Changes:
    """Counts versions; each change of an actor is a new one."""

    def __init__(self) -> None:
        self.version = 0
        self._last: dict[int, int] = {}  # by actor; the latest change comes last

    def touch(self, actor: int) -> None:
        """Note that an actor has changed."""
        self.version = version = self.version + 1
        self._last.pop(actor, None)
        self._last[actor] = version

    def advance(self) -> int:
        """Begin a new version, and return it."""
        self.version += 1
        return self.version

    def since(self, version: int) -> list[int]:
        """Return the actors that have changed after this version, the latest first."""
        changed = []
        for actor, last in reversed(self._last.items()):
            if last <= version:
                break
            changed.append(actor)
        return changed
