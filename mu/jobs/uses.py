"""What a job records of the use that its workers tell."""

import re

from mu.jobs.actors import Attempt
from mu.jobs.launches import Launch
from mu.jobs.unseen import before_hello_s
from mu.jobs.usage import as_told, told_by
from mu.journal.records import CommandUsed, Used
from mu.messages import Use

_REQUEST = re.compile(r"[0-9A-Za-z-]{1,100}")
"""What an invocation's id, which a worker tells, may be: it becomes part of a file's name."""


def before_hello(use: Use, session: str, launch: Launch, now: float) -> Used:
    """Return the record of what the worker of a launch ran before its hello. Raises BadMessage."""
    told = use.values
    request = str(told.get("request", ""))
    return Used(
        now,
        session,
        before_hello_s(use, now - launch.begun),
        as_told(told.get("init_s")),
        as_told(told.get("memory_mb")),
        request if _REQUEST.fullmatch(request) else "",
    )


def of_command(use: Use, attempt: Attempt, now: float) -> CommandUsed | None:
    """Return the record of what a command used, or the worker at its end (0).

    None: it is known already, or nothing is known. A worker tells it before the command's last
    reply, and again if that gets lost. Raises BadMessage.
    """
    command, outstanding = use.command, attempt.machine.worker.outstanding
    if command in attempt.told or (command and command not in outstanding):
        return None
    told = told_by(use)
    if not told:
        return None
    attempt.told &= {0, *outstanding}  # the others have their last reply
    attempt.told.add(command)
    return CommandUsed(now, attempt.actor_number, attempt.number, command, told)
