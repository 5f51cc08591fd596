"""The event that starts a job's workers: where they connect to, and with which certificate."""

from typing import Any

from mu.aws.s3 import FROM_ENVIRONMENT, S3Place
from mu.jobs.coordinator import Coordinator
from mu.jobs.job import Job
from mu.jobs.spec import ORIGINAL, JobSpec
from mu.net.certificates import SERVER_NAME, Identity, bare
from mu.strict_json import JSON

CERTIFICATE_MARGIN_S = 86400.0
"""How long a job's certificate outlives its deadline: clocks differ, and are set."""


def event_for(job: Job, coordinator: Coordinator) -> JSON:
    """Return the event for a job's workers, with a new certificate."""
    config, authority = coordinator.config, coordinator.authority
    lifetime_s = job.spec.deadline_s + CERTIFICATE_MARGIN_S
    original = job.spec.event_format == ORIGINAL
    identity = authority.mint_job(job.id, lifetime_s, original)
    cacert = authority.pem
    if original:
        identity = Identity(bare(identity.certificate), bare(identity.key))
        cacert = bare(cacert)
    return worker_event(
        job,
        identity,
        cacert,
        config.launch.public_host,
        coordinator.worker_port,
        config.worker.reconnect_s,
        coordinator.s3(_bucket_of(job.spec), job.spec.engine),
    )


def worker_event(
    job: Job,
    identity: Identity,
    cacert: str,
    host: str,
    port: int,
    reconnect_s: float,
    s3: S3Place = FROM_ENVIRONMENT,
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
    if bucket := _bucket_of(spec):
        event["bucket"] = bucket
    if s3.region:
        event["region"] = s3.region
    given = dict(spec.event)
    if variables := s3.variables():
        given["env"] = {**variables, **given.get("env", {})}
    return event | given


def _bucket_of(spec: JobSpec) -> Any:
    """Return the bucket that a job names; empty: none."""
    return dict.get(spec.params, "bucket", "")  # a parameter may hide `get`
