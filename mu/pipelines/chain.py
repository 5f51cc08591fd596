"""chain: an index of the lines of one large object, its parts read at the same time.

Each actor has a part of the bytes. It can count its own lines, but which numbers they have depends
on all that is before: it gets the sums from its left neighbour, adds its own and passes them on, by
way of the relay. So the sums run along the chain while all that takes time is done side by side.

The program (chain_program.py) is sent along: any function that has a python3 will do.
"""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mu.events import Finish
from mu.messages import parse_retval
from mu.parameters import FieldError, Parameter, Params
from mu.pipelines import s3
from mu.plugins import Pipeline
from mu.states import (
    CommandListState,
    ErrorState,
    OnePassState,
    TerminalState,
    connect_command,
)
from mu.states.context import Context, JobFacts

PROGRAM = Path(__file__).with_name("chain_program.py").read_text(encoding="utf-8")
TAIL = 500
"""How many characters of a failed program's output are told."""


class Ended(OnePassState):
    """Waits for a program's end. The URL, which is in some commands, is not told in an error."""

    expect = "OK:RETVAL("
    output = ""

    def post_transition(self) -> Any:
        status, self.output = parse_retval(self.messages[-1])
        if status:
            part = self.worker.actor
            said = self.output[-TAIL:].strip()
            return ErrorState(self, f"part {part}: exit status {status}: {said}")
        return self.nextState(self)


class Final(TerminalState):
    extra = "(done)"

    def __init__(self, prevState: Any, actorNum: int = 0) -> None:
        super().__init__(prevState, actorNum)
        self.result = {
            "actor": self.actorNum,
            "key": self.worker.input["out_key"],
            "end": self.info["end"],
        }


class Upload(CommandListState):
    extra = "(uploading)"
    nextState = Final

    def __init__(self, prevState: Any, actorNum: int = 0) -> None:
        key = self.worker.input["out_key"]
        self.commandlist = ((None, f"upload:{key}\0##TMPDIR##/index"), "close_connect:", "quit:")
        super().__init__(prevState, actorNum)


class Indexed(Ended):
    nextState = Upload


class Index(CommandListState):
    extra = "(writing its index)"
    nextState = Indexed

    def __init__(self, prevState: Any, actorNum: int = 0) -> None:
        self.info["end"] = json.loads(prevState.output)
        size = self.worker.input["size"]
        run = _run(self.job, f"index ##TMPDIR## {self.job.params.every} {size}")
        self.commandlist = ((None, "seti:send_statefile:0"), run)
        super().__init__(prevState, actorNum)


class Joined(Ended):
    extra = "(waiting for its neighbour)"
    nextState = Index


class Join(CommandListState):
    """Pass on the sums as state number `actor`, having waited for the one before it."""

    nextState = Joined

    def __init__(self, prevState: Any, actorNum: int = 0) -> None:
        me, first = self.actorNum, self.worker.input["first"]
        before = f"##TMPDIR##/{me - 1}.state" if me else ""
        self.commandlist = (
            (None, f"seti:run_iter:{me}"),
            "seti:expect_statefile:1",
            f"seti:send_statefile:{2 if me < self.job.actors - 1 else 0}",
            _run(self.job, f'join ##TMPDIR## {first} "{before}"', wait="##INSTATEWAIT## "),
        )
        super().__init__(prevState, actorNum)


class Counted(Ended):
    nextState = Join


class Count(CommandListState):
    extra = "(reading its part)"
    nextState = Counted

    def __init__(self, prevState: Any, actorNum: int = 0) -> None:
        given = self.worker.input
        self.commandlist = (
            ("OK:HELLO", "seti:nonblock:0"),
            f"set:bucket:{self.job.params.bucket}",
            connect_command(self.job, self.actorNum, self.actorNum + 1),
            f"run:cat >##TMPDIR##/chain.py <<'END OF PROGRAM'\n{PROGRAM}END OF PROGRAM\n",
            (
                "OK:RETVAL(0)",
                f"run:echo {shlex.quote(given['url'])} >##TMPDIR##/url; "
                + _command(self.job, f"count ##TMPDIR## {given['first']} {given['end']}"),
            ),
        )
        super().__init__(prevState, actorNum)


def _command(job: JobFacts, words: str) -> str:
    return f"{job.params.python} ##TMPDIR##/chain.py {words}"


def _run(job: JobFacts, words: str, wait: str = "") -> str:
    return f"run:{wait}{_command(job, words)}"


class Chain(Pipeline):
    name = "chain"
    may_run_twice = False  # two workers of one name would get in each other's way at the relay
    relay_keep = True  # a later attempt gets its neighbour's state again
    description = "Number the lines of one large object, its parts read side by side, and hash it."
    parameters = (
        Parameter("bucket", str, "the S3 bucket of input and output"),
        Parameter("key", str, "the object"),
        Parameter("out_prefix", str, "each part's index is <out_prefix>%08d.txt"),
        Parameter("every", int, "a row for every so many lines", 1000, minimum=1),
        Parameter("python", str, "a Python 3, for the shell", '"${MU_PYTHON:-python3}"'),
        Parameter("expires_s", int, "how long the signed URL can be used", 3600, 60, 604_800),
    )

    def check(self, params: Params) -> None:
        """Raise FieldError for what cannot be meant."""
        for name in ("bucket", "key", "out_prefix", "python"):
            if not params[name]:
                raise FieldError(f"params.{name}", f"params.{name} must not be empty")

    def plan(self, params: Params) -> list[dict[str, Any]]:
        self.check(params)
        size = s3.size(params.bucket, params.key)
        url = s3.readable_url(params.bucket, params.key, params.expires_s)
        actors = max(1, min(params.workers, size))
        places = [size * number // actors for number in range(actors + 1)]
        return [
            {
                "url": url,
                "size": size,
                "first": places[number],
                "end": places[number + 1],
                "out_key": f"{params.out_prefix}{number:08d}.txt",
            }
            for number in range(actors)
        ]

    def begin(self, worker: Context) -> Count:
        return Count(worker, worker.actor)

    def finish(self, job: JobFacts, outcomes: Sequence[Finish]) -> dict[str, Any]:
        """Return what is known at the object's end, if the last actor came so far."""
        done = [outcome.result for outcome in outcomes if not outcome.error]
        ends = [one["end"] for one in done if one["actor"] == job.actors - 1]
        return {"keys": [one["key"] for one in done], "total": ends[0] if ends else None}


chain = Chain()
