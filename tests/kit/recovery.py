"""A job with a journal, and the same job as a new coordinator finds it."""

from kit.journal import HeldJournal
from kit.parts import Port, make_job, make_spec, recorded_job
from kit.states import hello
from mu.jobs.recovery import recover
from mu.journal.records import Planned


def run(first, *said, workers=1, **spec):
    """Return a job whose worker (session aa) said that, and its journal, all on disk."""
    job = make_job(first, workers, **spec)
    job.ledger = journal = HeldJournal()
    port = Port(job, heartbeat_s=1000, silence_s=1000)
    line = port.join(hello=hello())
    journal.sync()
    for payload in said:
        line.say(payload)
        journal.sync()
    return job, journal, port


def again(job, records, first, stopped_at=0.0, **spec):
    """Return the job as a new coordinator finds it, and its port."""
    found = recorded_job(make_spec(first, len(job.actors), **spec), job.id)
    found.clock.advance(1000)  # type: ignore[attr-defined]
    found.ledger = HeldJournal()
    found.apply(Planned([{} for _ in job.actors], list(range(len(job.actors)))))
    recover(found, records, stopped_at)
    found.restart()
    found.begin()
    return found, Port(found, heartbeat_s=1000, silence_s=1000)
