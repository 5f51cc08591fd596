"""What a client on the daemon's machine knows of the local engine: its keys, and how to call it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mu.client.address import Home, find_port
from mu.client.errors import NoAddress

if TYPE_CHECKING:
    from mu.engines.signing import Credentials
    from mu.functions.aws import LocalClients


def local_clients(home: Home) -> LocalClients:
    """Return clients of the running daemon's local engine. Raises NoAddress and NotRunning."""
    from mu.functions.aws import LocalClients

    port, key = find_port(home, "local"), local_key(home)
    return LocalClients(port, key.access_key, key.secret_key)


def local_key(home: Home, name: str = "key") -> Credentials:
    """Return a key of the home: its local engine's, or its S3 server's. Raises NoAddress."""
    from mu.engines.local.key import KeyFileError, key_file, read_key

    try:
        return read_key(home.path, name)
    except FileNotFoundError:
        raise NoAddress(
            f"{key_file(home.path, name)} is missing: the daemon makes it when it starts, with {home.start}"
        ) from None
    except OSError as error:
        raise NoAddress(f"cannot read {key_file(home.path, name)}: {error.strerror}") from None
    except KeyFileError as error:
        raise NoAddress(str(error)) from None
