"""`mu invoke`: launches any function many times in parallel, without a job."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable
from statistics import median
from typing import IO, TYPE_CHECKING, cast

import click

from mu.cli.completion import complete_function
from mu.cli.options import (
    DONE,
    FAILED,
    INTERRUPTED,
    CliError,
    chooses_engine,
    chosen_engine,
    finds_daemon,
    local_engine_off,
    print_json,
    shows_json,
    split_regions,
    the_home,
)
from mu.client.address import find_port
from mu.client.local import local_key

if TYPE_CHECKING:
    from mu.client.address import Home
    from mu.engines.lambda_api import LambdaEngine
    from mu.engines.reactors import IClientReactor
    from mu.invocations import Answer, Invocation


@click.command()
@click.argument("function", metavar="FUNCTION", shell_complete=complete_function)
@click.option(
    "-n",
    "number",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="N",
    help="How many times, in all regions together.",
)
@click.option(
    "--payload",
    type=click.File("rb"),
    metavar="FILE",
    help="The event, as JSON; - reads it from standard input. ##ID## anywhere in it is replaced by"
    " the number of the launch, from 0.  [default: {}]",
)
@chooses_engine
@shows_json
@finds_daemon()
@click.pass_context
def invoke(
    ctx: click.Context,
    function: str,
    number: int,
    payload: IO[bytes] | None,
    regions: tuple[str, ...],
    engine: str | None,
    as_json: bool,
) -> None:
    """Launch a function many times in parallel.

    Works with any function, not only with workers: there is no job, and nothing waits for what the
    function does. Throttled launches are retried. Says how many were accepted and how long
    that took; the exit status is 1 unless all were.

    \b
    Examples:
      mu invoke hello -n 1000 --payload event.json
      echo '{"mode": 0, "args": "##ID##"}' | mu invoke count -n 50 --payload -
      mu invoke hello --engine lambda --region us-east-1,us-west-2 -n 2000
    """
    from mu.invocations import Invocation

    text = _checked(payload.read() if payload else b"{}")
    home = the_home()
    most = home.config.jobs.max_workers
    if number > most:
        raise CliError(f"-n must be at most {most}, as [jobs] max_workers allows, got {number}")
    chosen = split_regions(regions, home)
    wanted = [
        Invocation(
            str(one), function, chosen[one % len(chosen)], text.replace("##ID##", str(one)).encode()
        )
        for one in range(number)
    ]
    made = FunctionLaunches(_engine(chosen_engine(engine, home), home), home)
    made.run(wanted)
    if as_json:
        print_json(made.report(number))
    else:
        click.echo(made.sentence(function, number))
    if made.answers["accepted"] < number:
        ctx.exit(FAILED if made.ended else INTERRUPTED)
    ctx.exit(DONE)


def _checked(payload: bytes) -> str:
    try:
        text = payload.decode()
        json.loads(text)
    except ValueError as error:
        raise CliError(f"--payload must be JSON: {error}") from None
    return text


def _engine(name: str, home: Home) -> LambdaEngine:
    from twisted.internet import reactor as installed

    from mu.engines.builtin import engine_alone

    local = None
    if name == "local":
        if off := local_engine_off(home):
            raise CliError(off)
        local = find_port(home, "local"), local_key(home)
    return engine_alone(home.config, cast("IClientReactor", installed), local)


class FunctionLaunches:
    """Makes launches in a reactor of its own, and counts the engine's answers."""

    def __init__(self, engine: LambdaEngine, home: Home) -> None:
        self._engine = engine
        self._launch = home.config.launch
        self.answers: Counter[str] = Counter()
        """How many launches got each kind of answer; one that was repeated, several."""
        self.ended = False
        self.reasons: Counter[str] = Counter()
        self.seconds = 0.0
        self._began: dict[str, float] = {}
        self._took: list[float] = []

    def run(self, wanted: list[Invocation]) -> None:
        """Return when each launch is answered, or one is refused, or after Ctrl-C."""
        from twisted.internet import reactor
        from twisted.internet.interfaces import IReactorCore
        from twisted.python.failure import Failure

        from mu.launch import Launcher

        core = IReactorCore(reactor)
        waiting, in_flight = len(wanted), 0

        def end() -> None:
            self.ended = True
            launcher.stop()
            self._engine.stop().addBoth(lambda _: core.stop())

        def tell(invocation: Invocation, answer: Answer) -> None:
            nonlocal waiting, in_flight
            in_flight -= 1
            self.answers[answer.kind] += 1
            if answer.kind == "accepted":
                self._took.append(time.monotonic() - self._began[invocation.launch])
            else:
                self.reasons[getattr(answer, "reason", answer.kind)] += 1
            waiting -= answer.kind in ("accepted", "unknown")
            if answer.kind == "refused":
                launcher.stop()
            if not waiting or (self.answers["refused"] and not in_flight):
                end()

        def broken(failure: Failure) -> None:
            self.reasons[failure.getErrorMessage()] += 1
            end()

        def started(invocation: Invocation) -> None:
            nonlocal in_flight
            in_flight += 1
            self._began.setdefault(invocation.launch, time.monotonic())

        launcher = Launcher(
            self._engine,
            self._launch.in_flight,
            reactor,
            tell,
            broken,
            started,
            outage_s=self._launch.outage_s,
        )
        begun = time.monotonic()
        core.callWhenRunning(launcher.add, wanted)
        core.run()
        self.seconds = time.monotonic() - begun

    def report(self, number: int) -> dict[str, object]:
        return {
            "launches": number,
            "answers": dict(self.answers),
            "reasons": dict(self.reasons.most_common(5)),
            "seconds": round(self.seconds, 3),
            "median_s": round(median(self._took), 3) if self._took else None,
            "slowest_s": round(max(self._took), 3) if self._took else None,
        }

    def sentence(self, function: str, number: int) -> str:
        accepted = self.answers["accepted"]
        rate = accepted / self.seconds if self.seconds else 0
        told = f"{accepted} of {number} launches of {function} accepted in {self.seconds:.2f} s"
        told += f" ({rate:.0f} per second)"
        if self._took:
            told += f"; one took {median(self._took):.3f} s (median), the slowest"
            told += f" {max(self._took):.3f} s"
        return "\n".join([told, *_lines(self.reasons)])


def _lines(reasons: Counter[str]) -> Iterable[str]:
    return (f"{count} times: {reason}" for reason, count in reasons.most_common(5))
