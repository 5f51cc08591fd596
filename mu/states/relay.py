"""The relay command for pipelines whose workers pass states to their neighbours."""

from mu.states.context import JobFacts


def connect_command(job: JobFacts, me: int, partner: int) -> str:
    """Return the command that connects a worker to the job's relay.

    The pipeline chooses the numbers: frames from `me` go to the worker connected as `partner`.
    Raises RuntimeError if the daemon has no relay.
    """
    if not job.relay:
        raise RuntimeError(
            "the workers of this pipeline exchange states, but the daemon has no relay"
        )
    return f"connect:{job.relay}:HELLO_STATE:{job.uniq}:{me}:{partner}"
