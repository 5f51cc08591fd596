"""The keys of a home folder: requests to its local engine and its S3 server are signed with them.

They are <home>/local/key and <home>/local/s3-key, readable by their owner only, made by whatever needs
them first: the daemon or the engine.
"""

import base64
import json
import os
import secrets
from pathlib import Path

from mu.engines.signing import Credentials

PREFIX = "MULOCAL"
"""How the access keys of local engines begin, so that they are not taken for AWS's."""


class KeyFileError(ValueError):
    """The key file cannot be used; the message is one sentence that names it."""


S3_KEY = "s3-key"


def key_file(home: Path, name: str = "key") -> Path:
    return home / "local" / name


def read_key(home: Path, name: str = "key") -> Credentials:
    """Return a key of this home. Raises FileNotFoundError if it has none, and KeyFileError."""
    path = key_file(home, name)
    _keep_private(path)
    try:
        fields = json.loads(path.read_text(encoding="ascii"))
        access, secret = fields["access_key"], fields["secret_key"]
        if not (isinstance(access, str) and access and isinstance(secret, str) and secret):
            raise ValueError("access_key and secret_key must be texts")
    except (ValueError, LookupError, TypeError) as error:
        raise KeyFileError(
            f"{path} is not a key ({error!r}): stop the daemon and the local engine, delete the"
            " file, and start the daemon, which makes another"
        ) from None
    return Credentials(access, secret)


def make_key(home: Path, name: str = "key") -> Credentials:
    """Return a key of this home, made if there is none. Raises OSError and KeyFileError."""
    path = key_file(home, name)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        access = PREFIX + base64.b32encode(secrets.token_bytes(10)).decode("ascii")[:13]
        fields = {"access_key": access, "secret_key": secrets.token_urlsafe(30)}
        unfinished = path.with_name(f"{name}.{os.getpid()}.new")
        unfinished.unlink(missing_ok=True)
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(json.dumps(fields) + "\n")
            file.flush()
            os.fsync(descriptor)
        try:
            os.link(unfinished, path)  # unlike a rename, it never replaces another's key
        except FileExistsError:
            pass
        finally:
            unfinished.unlink()
    return read_key(home, name)


def _keep_private(path: Path) -> None:
    """Take away the rights of others on a key file of ours; refuse one that is not ours."""
    found = path.stat()
    if found.st_uid not in (os.geteuid(), 0):
        raise KeyFileError(f"{path} belongs to user {found.st_uid}: it must be yours")
    if found.st_mode & 0o077:
        path.chmod(0o600)
