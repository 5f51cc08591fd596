"""Which keys of S3 can be files below a folder: on this machine, or on the embedded server's disk."""

import re
from collections.abc import Collection, Iterator

LONGEST_NAME = 255
"""The most bytes of a file's name on Linux."""
LONGEST_KEY = 1024
"""The most bytes of a key."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_RESERVED = (".rclone_temp_", ".rclone_multipart_upload_")
"""How rclone's own files begin, which it does not list."""


def no_files(keys: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield each key that cannot be a file below a folder, and why."""
    known = set(keys)
    for key in keys:
        why = _refusal(key)
        if not why:
            at = key.find("/")
            while at > 0 and key[:at] not in known:
                at = key.find("/", at + 1)
            if at > 0:
                why = f"{key[:at]!r} cannot be a file and a folder"
        if why:
            yield key, why


def _refusal(key: str) -> str:
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        return "it is not UTF-8"
    if size > LONGEST_KEY:
        return f"it has {size} bytes, and a key of S3 at most {LONGEST_KEY}"
    for name in key.split("/"):
        if not name:
            return "it has a folder or file without a name (//)"
        if name in (".", ".."):
            return f"it has a folder or file {name!r}"
        if len(name.encode()) > LONGEST_NAME:
            return f"a name in it has more than {LONGEST_NAME} bytes"
        if name.startswith(_RESERVED):
            return f"the S3 server keeps names that begin with {_RESERVED[0]} to itself"
    if _CONTROL.search(key):
        return "it contains control characters"
    return ""
