"""A job's run."""

from typing import Any

from mu.jobs.job import Job
from mu.net.certificates import SERVER_NAME, Identity


def worker_event(
    job: Job, identity: Identity, cacert: str, host: str, port: int, reconnect_s: float
) -> dict[str, Any]:
    """Return the event of a job's workers, but for the launch id."""
    spec = job.spec
    event: dict[str, Any] = {
        "mode": 1,
        "addr": host,
        "port": port,
        "server_name": SERVER_NAME,
        "cacert": cacert,
        "srvcrt": identity.certificate,
        "srvkey": identity.key,
        "region": spec.regions[0],
        "job": job.id,
        "reconnect_s": reconnect_s,
        "relay_ext": 1,
    }
    if "bucket" in spec.params:
        event["bucket"] = spec.params.bucket
    return event | dict(spec.event)
