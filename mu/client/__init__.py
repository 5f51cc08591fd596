"""The client of a daemon: orders and jobs, and functions of Python that run on its workers.

from mu.client import Client

job = Client().launch("hello", workers=5)
job.wait()
"""

from mu.client.api import AsyncClient, Client
from mu.client.errors import (
    ClientError,
    DaemonUnreachable,
    ItemError,
    JobError,
    NoAddress,
    NotRunning,
    RequestRefused,
)
from mu.client.jobs import AsyncJob, Job
from mu.client.mapping import MapResults

__all__ = [
    "AsyncClient",
    "AsyncJob",
    "Client",
    "ClientError",
    "DaemonUnreachable",
    "ItemError",
    "Job",
    "JobError",
    "MapResults",
    "NoAddress",
    "NotRunning",
    "RequestRefused",
]
