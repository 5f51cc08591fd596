"""`python -m mu_worker --event FILE`: run one worker on any machine. See docs/engines.md."""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence

from mu_worker import runner

ABOUT = """Run one worker of mu on this machine, in a folder of its own, with a /tmp of its own where the
system allows it. What it returned is printed as JSON."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit status: 0, or see those of mu_worker.runner."""
    given = _parser().parse_args(arguments)
    try:
        if (given.launches is None) != (given.index is None):
            raise runner.RunnerError("--launches and --index go together")
        event = runner.read_event(given.event, given.remove)
        if given.launches is not None:
            event |= runner.read_own_keys(given.launches, given.index)
        return runner.run(
            runner.WorkerRun(event, given.bundle, given.work, given.timeout, given.memory)
        )
    except runner.RunnerError as error:
        print(f"mu worker: {error}", file=sys.stderr)
        return runner.UNUSABLE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m mu_worker", description=ABOUT)
    add = parser.add_argument
    add("--event", required=True, metavar="FILE", help="the event: JSON, mode 0600; -: stdin")
    add("--remove", action="store_true", help="remove FILE once it has been read")
    add(
        "--launches",
        metavar="FILE",
        help="more keys of events, such as launch: an object in each line",
    )
    add("--index", type=int, metavar="N", help="which line is this worker's; the first is 0")
    add("--bundle", default=_own_bundle(), metavar="PATH", help="a zip or folder (default: ours)")
    add("--work", default=tempfile.gettempdir(), metavar="FOLDER", help="where to make its folder")
    add("--timeout", type=_positive, metavar="SECONDS", help="end the worker after this time")
    add("--memory", type=int, metavar="MB", help="end the worker if it needs more than this")
    return parser


def _own_bundle() -> str:
    """Return the zip or folder from which this program comes."""
    return os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def _positive(text: str) -> float:
    seconds = float(text)
    if seconds <= 0:
        raise argparse.ArgumentTypeError(f"must be more than 0, got {text}")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
