"""`mu invoke`: launches any function many times, without a job."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import IO, TYPE_CHECKING, cast

import click

from mu.cli.completion import complete_function
from mu.cli.options import (
    DONE,
    FAILED,
    CliError,
    chooses_engine,
    chosen_engine,
    finds_daemon,
    local_engine_off,
    local_key,
    print_json,
    shows_json,
    split_regions,
    the_home,
)

if TYPE_CHECKING:
    from twisted.python.failure import Failure

    from mu.cli.address import Home
    from mu.engines.builtin import EngineReactor
    from mu.engines.lambda_api import LambdaEngine
    from mu.invocations import Answer, Invocation


@click.command()
@click.argument("function", metavar="FUNCTION", shell_complete=complete_function)
@click.option(
    "-n",
    "--number",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="N",
    help="How many times, in all regions together.",
)
@click.option(
    "--payload",
    type=click.File(encoding="utf-8"),
    metavar="FILE",
    help="The event, as JSON; - reads it from standard input.  [default: {}]",
)
@chooses_engine
@shows_json
@finds_daemon()
@click.pass_context
def invoke(
    ctx: click.Context,
    function: str,
    number: int,
    payload: IO[str] | None,
    engine: str | None,
    regions: tuple[str, ...],
    as_json: bool,
) -> None:
    """Launch any function many times at once, without a job.

    Makes asynchronous invocations, regions in turn, as fast as the engine accepts them; those
    that it throttles are repeated. ##ID## anywhere in the payload is replaced by the number of
    the launch, from 0. A refused launch ends the command, since all others would be refused, too.

    For functions that are not mu's, and for load tests. Nobody waits for what they do or return.
    Engine local is that of the running daemon; engine lambda needs none.

    \b
    Examples:
      mu invoke warm-up -n 500
      mu invoke resize -n 1000 --payload event.json --regions us-east-1,us-west-2
      echo '{"part": "##ID##"}' | mu invoke count -n 20 --payload - --engine local
    """
    home = the_home()
    most = home.config.jobs.max_workers
    if number > most:
        raise CliError(f"-n must be at most {most}, as [jobs] max_workers allows, got {number}")
    text = "{}" if payload is None else _read(payload)
    regions_used = split_regions(regions, home)
    launched = _Launched(number)
    chosen = chosen_engine(engine, home)
    launched.run(home, chosen, list(_invocations(function, regions_used, number, text)))
    if as_json:
        print_json(launched.as_json())
    else:
        launched.show(function)
    ctx.exit(DONE if launched.complete else FAILED)


def _read(file: IO[str]) -> str:
    try:
        text = file.read()
        json.loads(text)
    except ValueError as error:  # UnicodeDecodeError, too
        raise CliError(f"--payload must be JSON in UTF-8: {file.name}: {error}") from None
    return text


def _invocations(
    function: str, regions: Sequence[str], number: int, text: str
) -> Iterator[Invocation]:
    from mu.invocations import Invocation, region_of

    for launch in range(number):
        payload = text.replace("##ID##", str(launch)).encode("utf-8")
        yield Invocation(str(launch), function, region_of(launch, regions), payload)


class _Launched:
    """What became of the launches: how many were answered how, and what the engine said."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.answers: Counter[str] = Counter()
        """Final answers by kind, and how often a launch was throttled."""
        self.errors: dict[str, int] = {}
        """What the engine said of launches that it refused or did not answer; the first launch."""
        self.seconds = 0.0
        self._in_flight = 0
        self._refused = False
        self._fault: Failure | None = None

    @property
    def complete(self) -> bool:
        return self.answers["accepted"] == self.number

    def run(self, home: Home, engine: str, invocations: Sequence[Invocation]) -> None:
        """Make the invocations; return when each is answered, or one is refused."""
        from twisted.internet import reactor

        from mu.invocations import Accepted, Refused, Unknown
        from mu.launch import Launcher

        lambda_engine = _engine(home, engine, cast("EngineReactor", reactor))

        def started(invocation: Invocation) -> None:
            self._in_flight += 1

        def tell(invocation: Invocation, answer: Answer) -> None:
            self._in_flight -= 1
            self.answers[answer.kind] += 1
            if isinstance(answer, Refused | Unknown):
                self.errors.setdefault(answer.reason, int(invocation.launch))
            if isinstance(answer, Refused):
                self._refused = True
                launcher.stop()
            finals = sum(self.answers[kind.kind] for kind in (Accepted, Refused, Unknown))
            if finals == self.number or (self._refused and not self._in_flight):
                finish()

        def broken(failure: Failure) -> None:
            self._fault = failure
            launcher.stop()
            finish()

        def finish() -> None:
            self.seconds = time.monotonic() - begun
            lambda_engine.stop().addBoth(lambda _: reactor.stop())

        launch = home.config.launch
        launcher = Launcher(
            lambda_engine,
            launch.in_flight,
            reactor,
            tell,
            broken,
            started,
            outage_s=launch.outage_s,
        )
        begun = time.monotonic()
        reactor.callWhenRunning(launcher.add, invocations)
        reactor.run()
        if self._fault is not None:
            self._fault.raiseException()

    def show(self, function: str) -> None:
        """Print one line, and before it a sentence for each error."""
        for reason, launch in self.errors.items():
            click.echo(f"launch {launch}: {reason}", err=True)
        parts = [f"Launched {self.answers['accepted']} of {self.number} {function}"]
        parts += [f"{self.answers['unknown']} unknown"] if self.answers["unknown"] else []
        again = self.answers["throttled"] + self.answers["unreached"]
        parts += [f"{again} repeated"] if again else []
        click.echo(f"{', '.join(parts)}, in {self.seconds:.2f} s.")

    def as_json(self) -> dict[str, object]:
        return {
            "launches": self.number,
            "answers": dict(self.answers),
            "errors": [{"launch": at, "error": said} for said, at in self.errors.items()],
            "seconds": round(self.seconds, 3),
        }


def _engine(home: Home, name: str, reactor: EngineReactor) -> LambdaEngine:
    from mu.engines.builtin import engine_alone

    local = None
    if name == "local":
        from mu.cli.address import find_port

        off = local_engine_off(home)
        if off is not None:
            raise CliError(off)
        local = find_port(home, "local"), local_key(home)
    return engine_alone(home.config, reactor, local)
