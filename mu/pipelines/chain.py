"""chain: number the lines of one large object, whose parts are read at the same time.

Each actor reads one part of the object and counts its lines. The number of its first line depends
on all parts before it: the actor receives their sums from its left neighbour through the relay,
adds its own, and passes the result on. Only the sums travel along the chain; the slow work is
parallel.

The program (chain_program.py) is sent to the worker, so any function with a python3 will do.
"""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from mu.messages import HELLO, parse_retval
from mu.parameters import Parameter, Params
from mu.pipelines import s3
from mu.pipelines.mending import NOT_THERE, may_mend
from mu.pipelines.texts import (
    check_bucket,
    check_command,
    check_given,
    check_key,
    check_length,
    readable,
)
from mu.plugins import ActorInput, Outcome, Pipeline
from mu.states import (
    CommandListState,
    Context,
    ErrorState,
    JobFacts,
    OnePassState,
    Previous,
    State,
    TerminalState,
    connect_command,
)

# The program is part of a command. Any change to it, even to a comment, ends the attempts that are
# running when mu is upgraded.
PROGRAM = Path(__file__).with_name("chain_program.py").read_text(encoding="utf-8")
TAIL = 500
"""How many characters of the end of a failed program's output are in its error."""


class NeedsOwnWorker(OnePassState):
    """Refuses a worker of the original mu, which would never send the sums: `send_statefile` 2 is new."""

    expect = HELLO

    def post_transition(self) -> State:
        return ErrorState(
            self,
            "chain needs a worker of mu: the worker is one of the original mu, which cannot pass on the"
            " state of chain's program",
        )


class ProgramEnded(OnePassState):
    """Waits for the end of a program. Its errors leave out the command, which may have the URL."""

    expect = "OK:RETVAL("
    output = ""

    def post_transition(self) -> State:
        status, self.output = parse_retval(self.messages[-1])
        if status:
            tail = readable(self.output[-TAIL:]).strip()
            part = "" if status in NOT_THERE else f"part {self.worker.actor}: "
            words = f"{part}exit status {status}: {tail}"
            return ErrorState(self, words, not self.worker.may_mend(self.messages[-1]))
        return self.nextState(self)


class IndexStored(TerminalState):
    extra = "(done)"

    def __init__(self, prevState: Previous, actorNum: int = 0) -> None:
        super().__init__(prevState, actorNum)
        self.result = {
            "actor": self.actorNum,
            "key": self.worker.input["out_key"],
            "end": self.info["end"],
        }


class UploadIndex(CommandListState):
    extra = "(uploading)"
    nextState = IndexStored

    def __init__(self, prevState: Previous, actorNum: int = 0) -> None:
        key = self.worker.input["out_key"]
        self.commandlist = ((None, f"upload:{key}\0##TMPDIR##/index"), "close_connect:", "quit:")
        super().__init__(prevState, actorNum)


class IndexEnded(ProgramEnded):
    nextState = UploadIndex


class Index(CommandListState):
    extra = "(writing its index)"
    nextState = IndexEnded

    def __init__(self, prevState: ProgramEnded, actorNum: int = 0) -> None:
        self.info["end"] = json.loads(prevState.output)
        size = self.worker.input["size"]
        run = _run(self.job, f"index ##TMPDIR## {self.job.params.every} {size}")
        self.commandlist = ((None, "seti:send_statefile:0"), run)
        super().__init__(prevState, actorNum)


class JoinEnded(ProgramEnded):
    extra = "(waiting for its neighbour)"
    nextState = Index


class Join(CommandListState):
    """Wait for the left neighbour's sums, and pass on its own as state number `actorNum`."""

    nextState = JoinEnded

    def __init__(self, prevState: Previous, actorNum: int = 0) -> None:
        me, first = self.actorNum, self.worker.input["first"]
        before = f"##TMPDIR##/{me - 1}.state" if me else ""
        self.commandlist = (
            (None, f"seti:run_iter:{me}"),
            "seti:expect_statefile:1",
            f"seti:send_statefile:{2 if me < self.job.actors - 1 else 0}",
            _run(self.job, f'join ##TMPDIR## {first} "{before}"', wait="##INSTATEWAIT## "),
        )
        super().__init__(prevState, actorNum)


class CountEnded(ProgramEnded):
    nextState = Join


class Count(CommandListState):
    extra = "(reading its part)"
    nextState = CountEnded

    def __init__(self, prevState: Previous, actorNum: int = 0) -> None:
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


def _index_key(params: Params, number: int) -> str:
    return f"{params.out_prefix}{number:08d}.txt"


def _command(job: JobFacts, words: str) -> str:
    return f"{job.params.python} ##TMPDIR##/chain.py {words}"


def _run(job: JobFacts, words: str, wait: str = "") -> str:
    return f"run:{wait}{_command(job, words)}"


class Chain(Pipeline):
    name = "chain"
    may_mend = staticmethod(may_mend)
    may_run_twice = False  # two workers with one name would interfere with each other at the relay
    uses_relay = True
    relay_keep = True  # so that a later attempt gets its neighbour's state again
    description = (
        "Number the lines of one large object, reading its parts in parallel, and hash it."
    )
    parameters = (
        Parameter("bucket", str, "the S3 bucket of input and output"),
        Parameter("key", str, "the key of the object"),
        Parameter("out_prefix", str, "the index of each part is written to <out_prefix>%08d.txt"),
        Parameter("every", int, "how many lines to put in one row of the index", 1000, 1, 10**12),
        Parameter(
            "python",
            str,
            "the Python 3 to use, as a word of a shell command",
            '"${MU_PYTHON:-python3}"',
        ),
        Parameter(
            "expires_s", int, "how long the signed URL is valid, in seconds", 3600, 60, 604_800
        ),
    )

    def check(self, params: Params) -> None:
        check_bucket(params)
        check_given(params, "key", "out_prefix", "python")
        check_length("params.key", params.key)
        check_key("params.out_prefix", _index_key(params, params.workers))
        check_command("params.python", params.python)

    def plan(self, params: Params) -> list[ActorInput]:
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
                "out_key": _index_key(params, number),
            }
            for number in range(actors)
        ]

    def neighbour(self, params: Params, actor: int) -> int | None:
        return actor - 1 if actor else None

    def rerun(self, params: Params, outcomes: Sequence[Outcome]) -> dict[int, ActorInput]:
        if any(outcome.error for outcome in outcomes):
            raise ValueError(
                "each part needs the state of the one before it, so all would run again: order it"
                " again"
            )
        return {}

    def begin(self, worker: Context) -> State:
        return (Count if worker.numbered else NeedsOwnWorker)(worker, worker.actor)

    def finish(self, job: JobFacts, outcomes: Sequence[Outcome]) -> dict[str, object]:
        """Return the keys of the index, and the totals if the last actor is done."""
        done = [outcome.result for outcome in outcomes if not outcome.error]
        ends = [one["end"] for one in done if one["actor"] == job.actors - 1]
        return {"keys": [one["key"] for one in done], "total": ends[0] if ends else None}


chain = Chain()
