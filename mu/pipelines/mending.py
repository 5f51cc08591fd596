"""Which failures no retry can mend, and the check for missing programs that comes before long work."""

import re

from mu.messages import parse_retval
from mu.states import ActorFailed, ScriptWorker

__all__ = [
    "ProgramsMissing",
    "check_programs",
    "first_program",
    "is_final",
    "may_mend",
    "need",
    "not_found",
]

NOT_THERE = (126, 127)
"""The exit statuses of a shell that cannot execute a program, or not find it."""
WRONG_USE = 64
"""EX_USAGE of sysexits.h."""

_USAGE = re.compile(r"^\s*(?:\S+: )?usage\b|\bsyntax error\b", re.IGNORECASE | re.MULTILINE)
_NO_OBJECT = re.compile(r"FAIL\(.*: NoSuch(?:Key|Bucket)(: [^:()]*)?\)", re.DOTALL)
_PLAIN = re.compile(r"\s*([A-Za-z0-9_./+-]+)(?=[\s;|&]|\Z)")


def may_mend(reply: str) -> bool:
    """Return whether a retry may mend a failure with this reply, as Pipeline.may_mend does.

    It cannot if a program or an object is not there, or if a program was used wrongly.
    """
    if reply.startswith("OK:RETVAL("):
        return not is_final(*parse_retval(reply))
    return not _NO_OBJECT.fullmatch(reply)


def is_final(status: int, output: str) -> bool:
    """Return whether a program with this exit status and output would always fail like that.

    >>> is_final(127, "sh: 1: ffmpeg: not found"), is_final(2, "usage: join [-a] FILE"), is_final(1, "")
    (True, True, False)
    """
    return status in (WRONG_USE, *NOT_THERE) or (status > 0 and bool(_USAGE.search(output)))


def first_program(command: str) -> list[str]:
    """Return the program with which a shell command begins; empty: it begins with anything else.

    >>> first_program("./ffmpeg -i {url}"), first_program("x=1 ./ffmpeg"), first_program("(cd a; ls)")
    (['./ffmpeg'], [], [])
    """
    plain = _PLAIN.match(command)
    return [plain[1]] if plain else []


def check_programs(*programs: str) -> str:
    """Return the shell command that exits with 127 and names those that are not there.

    The programs are words of a shell command.
    """
    return (
        f'none=; for it in {" ".join(programs)}; do command -v "$it" >/dev/null || none="$none $it"; done;'
        ' [ -z "$none" ] || { echo "not found in the function:$none"; exit 127; }'
    )


class ProgramsMissing(ActorFailed):
    """Programs that a script needs are not there, so that its actor has failed for good."""

    def __init__(self, message: str) -> None:
        super().__init__(message, final=True)


async def need(worker: ScriptWorker, *programs: str) -> None:
    """Raise ProgramsMissing if one of these programs is not there."""
    if programs:
        ran = await worker.run(check_programs(*programs), check=False, quiet=True)
        if none := not_found(ran.status, ran.output):
            raise ProgramsMissing(none)


def not_found(status: int, output: str) -> str:
    """Return which programs are not there, as `check_programs` says; empty: all are."""
    return (output.strip() or f"exit status {status}") if status else ""
