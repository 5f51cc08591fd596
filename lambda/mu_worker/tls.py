"""The worker's side of TLS: a context from the PEM texts in the event."""

import os
import ssl

from mu_worker.event import WorkerEvent


def client_context(event: WorkerEvent, folder: str) -> ssl.SSLContext | None:
    """Return the context for the coordinator and the relay, or None for plain TCP (no cacert).

    OpenSSL reads a key only from a file, so it is in `folder` for that moment, readable only by the
    owner. Raises ValueError, which names the event's key, for an invalid certificate or key.
    """
    if not event.cacert:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = event.server_name is not None
    try:
        context.load_verify_locations(cadata=certificates(event.cacert))
    except (ssl.SSLError, ValueError) as error:
        raise ValueError(f"event key cacert must be a CA certificate: {error}") from None
    if event.srvcrt and event.srvkey:
        path = os.path.join(folder, "identity.pem")
        with open(path, "x", opener=_private) as file:
            file.write(certificates(event.srvcrt) + private_key(event.srvkey))
        try:
            context.load_cert_chain(path, password="")  # "": never prompt for one
        except (ssl.SSLError, ValueError) as error:
            raise ValueError(
                f"event keys srvcrt and srvkey must be a certificate and its key: {error}"
            ) from None
        finally:
            os.unlink(path)
    return context


def certificates(text: str) -> str:
    """Return PEM from PEM, or from the bare base64 bodies of a chain, separated by spaces."""
    if "-----BEGIN" in text:
        return _plain(text)
    return "".join(_pem("CERTIFICATE", body) for body in text.split())


def private_key(text: str) -> str:
    """Return PEM from PEM, or from the bare base64 body of an RSA key."""
    return _plain(text) if "-----BEGIN" in text else _pem("RSA PRIVATE KEY", "".join(text.split()))


def _plain(text: str) -> str:
    """Return PEM as OpenSSL takes it: ASCII only, without a byte order mark."""
    return text.removeprefix("\ufeff").encode("ascii", "replace").decode("ascii")


def _pem(kind: str, body: str) -> str:
    lines = [body[at : at + 64] for at in range(0, len(body), 64)]
    return "\n".join([f"-----BEGIN {kind}-----", *lines, f"-----END {kind}-----", ""])


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
