"""Checks S3 names and shell commands in parameters when a job is ordered.

mu.parameters has already checked that every parameter is valid Unicode without NUL.
"""

import re

from mu.parameters import FieldError, Params

LONGEST_KEY = 1024
"""The most bytes of an S3 key."""
LONGEST_COMMAND = 131_071
"""The most bytes of a shell command: Linux's MAX_ARG_STRLEN, without the NUL at its end."""
FOLDER_BYTES = 32
"""How long a worker's ##TMPDIR## may be, in bytes."""
LAST_NUMBER = 99_999_999
"""The last number that fits into the eight digits of chunks and frames in keys."""

_BUCKET = re.compile(r"[A-Za-z0-9._-]{1,255}|arn:[A-Za-z0-9._:/-]{1,2000}")  # as boto3 has it
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_TMPDIR = "##TMPDIR##"


def check_bucket(params: Params) -> None:
    """Raise FieldError if `bucket` cannot be a bucket's name."""
    if not params["bucket"]:
        raise FieldError("params.bucket", "params.bucket must not be empty")
    if not _BUCKET.fullmatch(params["bucket"]):
        raise FieldError(
            "params.bucket",
            "params.bucket must be letters, digits, '.', '-' and '_', or an ARN, got"
            f" {params['bucket']!r:.200}",
        )


def check_key(field: str, key: str) -> None:
    """Raise FieldError if an object must not be written to this key, which `field` determines."""
    what = f"{field}: the key {key!r:.200}"
    if key.startswith("/"):
        raise FieldError(field, f"{what} must not begin with a slash")
    if {".", ".."} & set(key.split("/")):
        raise FieldError(field, f"{what} must not contain '.' or '..' as a folder")
    if _CONTROL.search(key):
        raise FieldError(field, f"{what} must not contain control characters")
    check_length(field, key)


def check_length(field: str, key: str) -> None:
    """Raise FieldError if a key is too long for S3."""
    if (size := len(key.encode())) > LONGEST_KEY:
        raise FieldError(
            field,
            f"{field}: the key {key!r:.200} must have at most {LONGEST_KEY} bytes, got {size}",
        )


def check_given(params: Params, *names: str) -> None:
    """Raise FieldError if one of the named texts is empty."""
    for name in names:
        if not params[name]:
            raise FieldError(f"params.{name}", f"params.{name} must not be empty")


def check_command(field: str, command: str) -> None:
    """Raise FieldError for a command that does nothing, or is too long for a worker's shell."""
    if not command.strip():
        raise FieldError(field, f"{field} must not be empty, got {command!r:.200}")
    size = command_bytes(command)
    if size > LONGEST_COMMAND:
        raise FieldError(
            field,
            f"{field} must have at most {LONGEST_COMMAND} bytes, since Linux allows no longer"
            f" argument to a shell, got {size}: put the script into the function's bundle",
        )


def command_bytes(command: str) -> int:
    """Return the most bytes that a command can have once a worker has filled in ##TMPDIR##."""
    return len(command.encode()) + FOLDER_BYTES * command.count(_TMPDIR)


def check_last(field: str, last: int) -> None:
    """Raise FieldError if a number has more digits than keys have, since keys would not sort."""
    if last > LAST_NUMBER:
        raise FieldError(
            field,
            f"{field} is too large: the last number would be {last}, but at most {LAST_NUMBER} is allowed",
        )


def readable(output: str) -> str:
    """Return a program's output as text that can be encoded in UTF-8: other bytes become U+FFFD."""
    return output.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
