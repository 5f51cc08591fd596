"""How AWS is reached: its endpoints, proxies, certificates and credentials, as botocore has them.

botocore is imported by the first call.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from twisted.internet import ssl
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator

from mu.aws.proxies import proxy_for
from mu.aws.trouble import AwsTrouble
from mu.engines.signing import Credentials
from mu.net.proxy import BadProxy, HttpProxy

_END = b"-----END CERTIFICATE-----"


@dataclass(frozen=True, slots=True)
class Route:
    """Where a region's API is, for which region its requests are signed, and how to connect."""

    url: str
    region: str
    proxy: HttpProxy | None = None
    tls: Callable[[], IOpenSSLClientConnectionCreator] | None = field(default=None, compare=False)
    """Makes a connection's TLS options; None means plain TCP."""

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        parts = urlsplit(self.url)
        return parts.port or (443 if parts.scheme == "https" else 80)

    def __str__(self) -> str:
        return f"{self.url} through the proxy {self.proxy}" if self.proxy else self.url


def aws_route(region: str) -> Route:
    """Return the route to AWS Lambda in a region. Blocks. Raises AwsTrouble."""
    from mu.aws import sessions

    session = sessions.new_session(may_prompt=False)
    endpoint = sessions.lambda_endpoint(session, region)
    try:
        host = urlsplit(endpoint.url).hostname
        if not host:
            raise ValueError("it has no host")
        found = proxy_for(endpoint.url)
    except ValueError as error:
        raise AwsTrouble(
            f"the endpoint {endpoint.url!r} is not a URL: {error}", "correct AWS_ENDPOINT_URL"
        ) from None
    try:
        proxy = HttpProxy.parse(found) if found else None
    except BadProxy as error:
        raise AwsTrouble(str(error), "correct HTTPS_PROXY, or list the host in NO_PROXY") from None
    tls = _client_tls(session, host) if endpoint.url.startswith("https:") else None
    return Route(endpoint.url, endpoint.region, proxy, tls)


def _client_tls(session: object, host: str) -> Callable[[], IOpenSSLClientConnectionCreator]:
    """Trust what boto3 trusts: AWS_CA_BUNDLE, or the roots that come with botocore."""
    from mu.aws import sessions

    path, text = sessions.roots_of(session)
    try:
        roots = [ssl.Certificate.loadPEM(one + _END + b"\n") for one in text.split(_END)[:-1]]
    except Exception as error:  # OpenSSL has errors of its own
        said = f"{path}, the file of AWS_CA_BUNDLE or ca_bundle, has a broken certificate: {error}"
        raise AwsTrouble(said, "name a file with certificates in PEM") from None
    if not roots:
        said = f"{path}, the file of AWS_CA_BUNDLE or ca_bundle, has no certificate"
        raise AwsTrouble(said, "name a file with certificates in PEM")
    options = ssl.optionsForClientTLS(host, trustRoot=ssl.trustRootFromCertificates(roots))
    return lambda: options


def aws_credentials() -> Callable[[Credentials | None], Credentials | None]:
    """Return a lookup through botocore's usual chain, which refreshes credentials in time.

    It raises AwsTrouble, also for credentials that AWS rejected as `expired` and that stay the same.
    """
    session = None

    def find(expired: Credentials | None) -> Credentials | None:
        from mu.aws import sessions

        nonlocal session
        session = session or sessions.new_session(may_prompt=False)
        found = _frozen(session)
        if found is not None and found == expired:  # they expired earlier than announced
            session = sessions.new_session(may_prompt=False)
            found = _frozen(session)
            if found == expired:
                name = sessions.profile_of(session)
                raise AwsTrouble(
                    f"AWS no longer accepts the credentials of profile {name!r}",
                    "get new ones, or correct this machine's clock",
                )
        return found

    return find


def _frozen(session: object) -> Credentials | None:
    from mu.aws import sessions

    keys = sessions.find_keys(session)
    return None if keys is None else Credentials(keys.access_key, keys.secret_key, keys.token)
