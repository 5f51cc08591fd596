"""What Slurm says of tasks, and what that means. Pure."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from mu.invocations import Answer, Refused, Throttled, Unreached

FIELDS = ("ArrayJobID", "ArrayTaskID", "State", "Reason", "exit_code", "RestartCnt", "Name")
FORMAT = ",".join(f"{field}:|" for field in FIELDS)
"""For squeue --Format: each field is followed by a bar."""
PAST_FORMAT = "JobID,State,Reason,ExitCode,JobName"
"""For sacct --format, which puts bars between the fields."""

ENDED = {
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL"),
    *("OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT"),
}
QUEUED = {"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT"}

BUSY = ("submit limit", "SubmitJob", "temporarily un", "QOSMax", "AssocMax", "AssocGrp")
OUT_OF_REACH = (
    *("contact slurm controller", "onnection refused", "standby", "Zero Bytes", "timed out"),
    *("configuration source", "endpoint is not connected", "uthentication", "did not answer"),
)
LAST_SIGNAL = 64
_PLACE = re.compile(r"(\d+)_(\d+)")


@dataclass(frozen=True, slots=True)
class Task:
    """One task of an array. `restarts` is how often Slurm has requeued it."""

    job: int
    index: int
    state: str
    reason: str
    exit_status: int
    """As a shell has it: 128 and the number of a signal that ended it."""
    restarts: int
    name: str

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    @property
    def queued(self) -> bool:
        return self.state in QUEUED

    @property
    def why_ended(self) -> str:
        """For users: how it ended."""
        if self.state == "COMPLETED":
            return "ended"
        details = [] if self.reason in ("", "None", self.state) else [self.reason]
        if self.exit_status:
            details.append(f"exit status {self.exit_status}")
        more = f" ({', '.join(details)})" if details else ""
        return f"ended: Slurm's task {self.job}_{self.index} is {self.state}{more}"


def read_tasks(text: str) -> Iterator[Task]:
    """Yield the tasks in the output of squeue; jobs that are no arrays are left out."""
    for line in text.splitlines():
        job, index, state, reason, exit_code, restarts, name, *_ = f"{line}|||||||".split("|")
        if job.isdecimal() and index.isdecimal():
            counted = int(restarts) if restarts.isdecimal() else 0
            status = _status_of_wait(exit_code)
            yield Task(int(job), int(index), state, reason, status, counted, name.strip())


def read_past_tasks(text: str) -> Iterator[Task]:
    """Yield the tasks in the output of sacct that have ended; steps are left out."""
    for line in text.splitlines():
        place, state, reason, exit_code, name, *_ = f"{line}||||".split("|")
        state = state.partition(" ")[0]  # CANCELLED by 1000
        if (found := _PLACE.fullmatch(place)) and state in ENDED:
            job, index = map(int, found.groups())
            yield Task(job, index, state, reason, _status_of_pair(exit_code), 0, name)


def _status_of_wait(told: str) -> int:
    """Return the exit status in what wait() returned, which is what squeue has."""
    return _exit_status(int(told) >> 8, int(told) & 0x7F) if told.isdecimal() else 0


def _status_of_pair(told: str) -> int:
    """Return the exit status in STATUS:SIGNAL, which is what sacct has."""
    status, _, signal = told.partition(":")
    both = status.isdecimal() and signal.isdecimal()
    return _exit_status(int(status), int(signal)) if both else 0


def _exit_status(status: int, signal: int) -> int:
    # Slurm has signal 125, which does not exist, for OUT_OF_MEMORY.
    return 128 + signal if 0 < signal <= LAST_SIGNAL else status


def failure_of(said: str) -> Answer:
    """Return what it means for launches that sbatch has failed; `said` is what it printed."""
    reason = " ".join(said.replace("sbatch: error: ", "").split())[:500] or "sbatch failed"
    if any(part in said for part in BUSY):
        return Throttled(reason)
    if any(part in said for part in OUT_OF_REACH):
        return Unreached(reason)
    return Refused(reason)
