"""What all jobs of a daemon share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from twisted.internet.interfaces import IReactorTime

from mu.aws.s3 import FROM_ENVIRONMENT, S3Place
from mu.config import Config
from mu.engines.cost import Prices
from mu.in_thread import InThread
from mu.jobs.reached import Reached
from mu.jobs.spec import Limits
from mu.journal.ledger import Ledger, Notification
from mu.net.certificates import Authority
from mu.output.pieces import NoOutput, OutputSink
from mu.places import Places
from mu.plugins import Engine
from mu.totals import Totals


@dataclass(slots=True)
class Coordinator:
    """What all jobs of a daemon share."""

    config: Config
    ledger: Ledger
    authority: Authority
    engines: Mapping[str, Engine]
    clock: IReactorTime
    in_thread: InThread
    """Runs a call that may block in a thread; the Deferred fires with its result."""
    limits: Limits
    prices: Prices
    stopping: bool = False
    """Whether the daemon is shutting down: nothing new begins."""
    worker_port: int = 0
    """The port that workers connect to; 0: it does not listen yet."""
    relay: str = ""
    """HOST:PORT of the relay; empty: there is none."""
    s3: Callable[[str, str], S3Place] = lambda bucket, engine: FROM_ENVIRONMENT
    """Returns where a bucket is for the workers of an engine."""
    places: Places = field(default_factory=Places)
    """How many workers each engine runs at once, for all jobs."""
    output: OutputSink = field(default_factory=NoOutput)
    """Keeps what the commands of jobs print."""
    reached: Reached = field(default_factory=Reached)
    """Which functions' workers have connected before."""
    totals: Totals = field(default_factory=Totals)
    notify: Callable[[Notification], None] = lambda notification: None
    """Tells somebody that a job has ended; that is on disk."""
