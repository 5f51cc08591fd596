"""The event that starts a job's workers: where they connect to, and with which certificate."""

from mu.jobs.coordinator import Coordinator
from mu.jobs.job import Job
from mu.jobs.summary import JSON
from mu.net.certificates import SERVER_NAME, Identity

CERTIFICATE_MARGIN_S = 86400.0
"""How long a job's certificate outlives its deadline: clocks differ, and are set."""


def event_for(job: Job, coordinator: Coordinator) -> JSON:
    """Return the event for a job's workers, with a new certificate."""
    config = coordinator.config
    return worker_event(
        job,
        coordinator.authority.mint_job(job.id, job.spec.deadline_s + CERTIFICATE_MARGIN_S),
        coordinator.authority.pem,
        config.launch.public_host,
        coordinator.worker_port,
        config.worker.reconnect_s,
    )


def worker_event(
    job: Job, identity: Identity, cacert: str, host: str, port: int, reconnect_s: float
) -> JSON:
    """Return the event for a job's workers, without the launch id."""
    spec = job.spec
    event: JSON = {
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
        "usage_ext": 1,
    }
    if "bucket" in spec.params:
        event["bucket"] = spec.params["bucket"]
    return event | dict(spec.event)
