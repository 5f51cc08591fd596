"""Workers of a job in memory, without a wire: their commands are answered one by one."""

from typing import Any

from mu.jobs.job import Job
from mu.messages import Hello
from mu.testing import FakeWorker


class Seat:
    """The connection of a worker whose commands succeed."""

    peer = "here"

    def __init__(self, job: Job, name: str, launch: str = "") -> None:
        self.session: Any = None
        self.worker, self.ended = FakeWorker(), ""
        job.join(Hello(name, launch), self)

    def adopt(self, session: Any) -> None:
        self.session = session

    def say(self, command: int, reply: str) -> None:
        self.session.receive(f"RE:{command}:{reply}".encode())

    def write(self, data: bytes) -> None:
        pass

    def read_on(self) -> None:
        pass

    def wait(self) -> None:
        self.ended = "waits"

    def goodbye(self) -> None:
        self.ended = "quit"

    def supersede(self, reason: str) -> None:
        self.ended = reason

    def dismiss(self, reason: str) -> None:
        self.ended = reason


def settle(job: Job) -> None:
    """Have everything on disk, and what follows from that."""
    for _ in range(20):
        job.ledger.sync()  # type: ignore[attr-defined]
