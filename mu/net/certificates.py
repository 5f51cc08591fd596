"""Decides who may connect: mu's own CA, a certificate for each job, the ports' TLS options.

The CA is kept in the home folder. The server's key is generated at each start and never written to
disk: workers check its certificate against the CA and the name SERVER_NAME.
"""

import datetime
import ipaddress
import os
import re
import ssl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mu.home import write_private
from mu.hosts import read_host

SERVER_NAME = "mu-coordinator"
JOB_URI = "urn:mu:job:"
_JOB_NAME = "mu job "

TLS_1_2_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Cipher suites with authenticated encryption and forward secrecy; TLS 1.3 has no others."""

_BACKDATE = datetime.timedelta(days=1)  # clocks differ, and are set
_CA_YEARS = 20
_SERVER_YEARS = 5
_YEAR = datetime.timedelta(days=365)


RSA_BITS = 2048
"""The length of RSA keys for workers of the original mu, and the shortest of a CA."""

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate and its private key, as PEM."""

    certificate: str
    key: str

    @contextmanager
    def files(self) -> Iterator[tuple[str, str]]:
        """Return paths of both, for OpenSSL, which reads files: keys must not be on disk."""
        with _readable(self.certificate) as certificate, _readable(self.key) as key:
            yield certificate, key


def bare(pem: str) -> str:
    """Return PEM as workers of the original mu read it: base64 bodies, separated by spaces."""
    blocks = re.findall(r"-----BEGIN [A-Z ]+-----(.*?)-----END", pem, re.DOTALL)
    return " ".join("".join(block.split()) for block in blocks)


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts about a certificate that users are shown."""

    subject: str
    names: tuple[str, ...]
    fingerprint: str
    """Its SHA-256 as openssl prints it: pairs of hexadecimal digits, separated by colons."""
    begins: datetime.datetime
    ends: datetime.datetime

    @classmethod
    def of(cls, certificate: str | bytes) -> "Facts":
        """Read a certificate: PEM as str, or DER as bytes. Raises ValueError if it is neither."""
        if isinstance(certificate, str):
            read = x509.load_pem_x509_certificate(certificate.encode("ascii"))
        else:
            read = x509.load_der_x509_certificate(certificate)
        try:
            names = read.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            names = x509.SubjectAlternativeName([])
        common = read.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return cls(
            str(common[0].value) if common else "",
            tuple(str(name.value) for name in names),
            read.fingerprint(hashes.SHA256()).hex(":").upper(),
            read.not_valid_before_utc,
            read.not_valid_after_utc,
        )


class Authority:
    """The coordinator's own CA."""

    def __init__(self, certificate: x509.Certificate, key: PrivateKey) -> None:
        self._certificate = certificate
        self._key = key
        self.pem = certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")

    @classmethod
    def at_home(cls, home: Path) -> "Authority":
        """Return the CA in this home folder (ca.pem, ca.key); create it if there is none.

        Raises OSError, and ValueError if a file is not PEM, one of the two is missing, or they do not
        belong together.
        """
        there = [name for name in ("ca.pem", "ca.key") if (home / name).exists()]
        if len(there) == 1:
            missing = "ca.key" if there == ["ca.pem"] else "ca.pem"
            raise ValueError(
                f"{home / there[0]} is there and {missing} is missing: restore {missing}, or make a new"
                " CA with `mu keys renew ca`, which workers that run now and relays on other machines"
                " do not trust"
            )
        if not there:
            cls.new()._write(home)
        return cls.read(home)

    @classmethod
    def read(cls, home: Path) -> "Authority":
        """Return the CA in this home folder. Raises as `at_home` does, and if there is none."""
        return cls.load(home / "ca.pem", home / "ca.key")

    @classmethod
    def load(cls, cert_file: Path, key_file: Path) -> "Authority":
        """Return the CA in these files; its key is EC, or RSA as the original's was.

        Raises OSError, and ValueError if they are not PEM, or not a CA and its key.
        """
        try:
            key = serialization.load_pem_private_key(key_file.read_bytes(), None)
        except (TypeError, UnsupportedAlgorithm) as error:  # TypeError: it has a password
            raise ValueError(f"{key_file} cannot be used: {error}") from None
        if not isinstance(key, PrivateKey):
            raise ValueError(f"{key_file} must contain an EC or RSA key")
        if isinstance(key, rsa.RSAPrivateKey) and key.key_size < RSA_BITS:
            raise ValueError(f"{key_file} must have at least {RSA_BITS} bits, got {key.key_size}")
        certificate = x509.load_pem_x509_certificate(cert_file.read_bytes())
        if certificate.public_key() != key.public_key():
            raise ValueError(f"{key_file} is not the key of {cert_file}; restore the original file")
        if not _is_ca(certificate):
            raise ValueError(f"{cert_file} is not the certificate of a CA")
        return cls(certificate, key)

    @classmethod
    def renew(cls, home: Path, given: "Authority | None" = None) -> "Authority":
        """Put a new CA into this home folder; the old one is kept as ca.pem.old and ca.key.old.

        It is the given one, or else it is created.

        A running daemon uses the old one until it is restarted. Raises OSError.
        """
        for name in ("ca.pem", "ca.key"):
            if (home / name).exists():
                (home / name).replace(home / f"{name}.old")
        authority = given or cls.new()
        authority._write(home)
        return authority

    def export(self, folder: Path) -> None:
        """Write ca.pem, which verifies workers, to a folder; create the folder. Raises OSError."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(folder / "ca.pem", self.pem)

    def export_relay(self, folder: Path, *hosts: str) -> None:
        """Write the files for a relay on another machine, ca.pem, relay.pem and relay.key.

        Raises OSError.

        The relay's certificate has the coordinator's name, so its key can impersonate both.
        """
        self.export(folder)
        identity = self.mint_server(*hosts)
        write_private(folder / "relay.key", identity.key)
        write_private(folder / "relay.pem", identity.certificate)

    def _write(self, home: Path) -> None:
        write_private(home / "ca.key", _pem(self._key))
        write_private(home / "ca.pem", self.pem)

    @classmethod
    def new(cls) -> "Authority":
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(f"mu CA {x509.random_serial_number():x}"[:40])
        builder = _builder(name, name, key.public_key(), _CA_YEARS * _YEAR)
        builder = builder.add_extension(x509.BasicConstraints(True, 0), critical=True)
        builder = builder.add_extension(_usage(signs=True), critical=True)
        return cls(builder.sign(key, hashes.SHA256()), key)

    def mint_job(self, job_id: str, seconds: float, original: bool = False) -> Identity:
        """Return a worker's identity: it names the job and is valid for `seconds` from now.

        Its key is EC, or RSA in PKCS #1 for workers of the original mu.
        """
        return self._mint(
            _JOB_NAME + job_id,
            [x509.UniformResourceIdentifier(JOB_URI + job_id)],
            ExtendedKeyUsageOID.CLIENT_AUTH,
            datetime.timedelta(seconds=seconds),
            original,
        )

    def mint_server(self, *hosts: str) -> Identity:
        """Return a server's identity, for SERVER_NAME and these hosts (names or addresses)."""
        return self._mint(
            SERVER_NAME,
            _server_names(hosts),
            ExtendedKeyUsageOID.SERVER_AUTH,
            _SERVER_YEARS * _YEAR,
        )

    def keep_server(self, path: Path, *hosts: str) -> bool:
        """Have a server's identity in a file; return whether it is a new one. Raises OSError.

        The one there is kept if it is of this CA, for these hosts, and valid for another year.
        """
        names = tuple(str(name.value) for name in _server_names(hosts))
        try:
            there = x509.load_pem_x509_certificate(path.read_bytes())
            there.verify_directly_issued_by(self._certificate)
            facts = Facts.of(there.public_bytes(serialization.Encoding.DER))
        except (FileNotFoundError, ValueError, TypeError, InvalidSignature):
            facts = None
        late = datetime.datetime.now(datetime.UTC) + _YEAR
        if facts is not None and facts.names == names and facts.ends > late:
            return False
        identity = self.mint_server(*hosts)
        write_private(path, identity.certificate + identity.key)
        return True

    def _mint(
        self,
        common_name: str,
        names: list[x509.GeneralName],
        usage: x509.ObjectIdentifier,
        life: datetime.timedelta,
        original: bool = False,
    ) -> Identity:
        key: PrivateKey = (
            rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)
            if original
            else ec.generate_private_key(ec.SECP256R1())
        )
        builder = _builder(_name(common_name), self._certificate.subject, key.public_key(), life)
        builder = (
            builder.add_extension(x509.BasicConstraints(False, None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(_issued_by(self._certificate), critical=False)
        )
        certificate = builder.sign(self._key, hashes.SHA256())
        pem = certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")
        return Identity(pem, _pem(key, original))

    def server_context(self, identity: Identity) -> ssl.SSLContext:
        """Return the TLS options of the worker port and the relay."""
        return server_context(identity, self.pem)


def server_context(identity: Identity, ca_pem: str) -> ssl.SSLContext:
    """Return a port's TLS options: client certificates, TLS 1.3 or 1.2 with AEAD, no resumption.

    Raises ssl.SSLError, an OSError.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(TLS_1_2_CIPHERS)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=ca_pem)
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 0
    with identity.files() as files:
        context.load_cert_chain(*files)
    return context


@contextmanager
def _readable(text: str) -> Iterator[str]:
    """Return the path of a pipe with this text."""
    end, start = os.pipe()
    try:
        with open(start, "w", encoding="ascii") as pipe:
            pipe.write(text)
        yield f"/dev/fd/{end}"
    finally:
        os.close(end)


@lru_cache(maxsize=256)  # the workers of a job have the same one
def job_named(certificate: bytes | None) -> str | None:
    """Return the id of the job that a worker's certificate (DER) names, or None."""
    return None if certificate is None else job_of(x509.load_der_x509_certificate(certificate))


def job_of(certificate: x509.Certificate) -> str | None:
    """Return the id of the job that a worker's certificate names, or None."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return None
    for uri in names.value.get_values_for_type(x509.UniformResourceIdentifier):
        if uri.startswith(JOB_URI):
            return uri.removeprefix(JOB_URI)
    return None


def job_called(common_name: str | None) -> str | None:
    """Return the id of the job that the common name of a worker's certificate names, or None."""
    if common_name is None or not common_name.startswith(_JOB_NAME):
        return None
    return common_name.removeprefix(_JOB_NAME)


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        found = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except x509.ExtensionNotFound:
        return False
    return found.value.ca


def _issued_by(certificate: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """Return how certificates name this CA: by its own id of its key, if it has one."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound:
        key = certificate.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey)
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(key)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(found.value)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
    life: datetime.timedelta,
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])


def _server_names(hosts: Iterable[str]) -> list[x509.GeneralName]:
    return [x509.DNSName(SERVER_NAME), *map(_host_name, dict.fromkeys(map(read_host, hosts)))]


def _host_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(key: PrivateKey, original: bool = False) -> str:
    form = serialization.PrivateFormat
    return key.private_bytes(
        serialization.Encoding.PEM,
        form.TraditionalOpenSSL if original else form.PKCS8,
        serialization.NoEncryption(),
    ).decode("ascii")
