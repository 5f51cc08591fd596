"""What pipelines say when a worker is to pass states to a neighbour."""

from mu.states.context import JobFacts


def connect_command(job: JobFacts, me: int, partner: int) -> str:
    """Return the command that connects a worker to the job's relay.

    Numbers are the pipeline's own: what `me` sends goes to the worker that is `partner` there.
    Raises RuntimeError where the daemon has no relay.
    """
    if not job.relay:
        raise RuntimeError("this pipeline's workers pass states on, and the daemon has no relay")
    return f"connect:{job.relay}:HELLO_STATE:{job.uniq}:{me}:{partner}"
