"""Mode 3, for `mu doctor`: what this function has, and which ports it reaches. It runs no command."""

import platform
import ssl
from shutil import which

from mu_worker.connection import DialError, dial
from mu_worker.event import WorkerEvent
from mu_worker.tls import client_context

DIAL_S = 5.0
"""For each address of a host."""
PROGRAMS = (
    *("awk", "curl", "grep", "sed", "sh", "sort", "xargs"),
    *("bzip2", "cpio", "diff", "file", "find", "git", "gzip", "jq", "less", "openssl", "perl"),
    *("ps", "tar", "time", "unzip", "wget", "which", "xz", "zip"),
)
"""Programs that scripts often use, and that a small image may lack."""


def probe(event: WorkerEvent, folder: str) -> dict[str, object]:
    """Return the versions, the programs that are missing, and for each port why it failed, or ""."""
    context = client_context(event, folder)
    return {
        "status": "done",
        "python": platform.python_version(),
        "boto3": _boto3(),
        "lacks": [program for program in PROGRAMS if which(program) is None],
        "ports": {
            name: _failure(host, port, context, event.server_name)
            for name, host, port in event.probe
        },
    }


def _failure(host: str, port: int, context: ssl.SSLContext | None, name: str | None) -> str:
    try:
        dial(host, port, context, name, DIAL_S).close()
    except DialError as error:
        return str(error)
    return ""


def _boto3() -> str:
    """Return the version of boto3; empty: there is none."""
    try:
        import boto3
    except ImportError:
        return ""
    return str(boto3.__version__)
