"""AWS's management calls, answered by moto in this process."""

import os
from contextlib import contextmanager

import boto3


@contextmanager
def in_process_aws(monkeypatch):
    """Answer calls to AWS in this process, with test credentials and no other AWS_* variables.

    moto makes the routes of a service at the first call, by werkzeug with Python's `ast`. In
    CPython 3.11 that module counts its recursion in one place for all threads: if the garbage
    collector lets another thread run in between, it raises SystemError ("AST constructor recursion
    depth mismatch", gh-106905). `mu deploy` uses threads, so the routes are made here before them.
    """
    from moto import mock_aws

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws(config={"lambda": {"use_docker": False}, "core": {"mock_credentials": False}}):
        boto3.client("lambda", "us-east-1").list_functions()
        boto3.client("s3", "us-east-1").list_buckets()
        yield
