"""What Slurm says of tasks, and what that means. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from mu.invocations import Answer, Refused, Throttled, Unreached

FIELDS = ("ArrayJobID", "ArrayTaskID", "State", "Reason", "exit_code", "RestartCnt", "Name")
FORMAT = ",".join(f"{field}:|" for field in FIELDS)
"""For squeue --Format: each field is followed by a bar."""

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


@dataclass(frozen=True, slots=True)
class Task:
    """One task of an array. `restarts` is how often Slurm has requeued it."""

    job: int
    index: int
    state: str
    reason: str
    exit_code: str
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
        if self.exit_code not in ("", "0"):
            details.append(f"exit status {self.exit_code}")
        more = f" ({', '.join(details)})" if details else ""
        return f"ended: Slurm's task {self.job}_{self.index} is {self.state}{more}"


def read_tasks(text: str) -> Iterator[Task]:
    """Yield the tasks in the output of squeue; jobs that are no arrays are left out."""
    for line in text.splitlines():
        job, index, state, reason, exit_code, restarts, name, *_ = f"{line}|||||||".split("|")
        if job.isdecimal() and index.isdecimal():
            counted = int(restarts) if restarts.isdecimal() else 0
            yield Task(int(job), int(index), state, reason, exit_code, counted, name.strip())


def failure_of(said: str) -> Answer:
    """Return what it means for launches that sbatch has failed; `said` is what it printed."""
    reason = " ".join(said.replace("sbatch: error: ", "").split())[:500] or "sbatch failed"
    if any(part in said for part in BUSY):
        return Throttled(reason)
    if any(part in said for part in OUT_OF_REACH):
        return Unreached(reason)
    return Refused(reason)
