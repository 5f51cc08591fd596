"""Certificates: who they name, how long they last, what stays at home."""

import datetime
import ssl
import stat
from contextlib import suppress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL, crypto

from mu.net.certificates import SERVER_NAME, Authority, job_of, server_context


def certificate(identity):
    return x509.load_pem_x509_certificate(identity.certificate.encode())


def test_a_jobs_certificate_names_the_job_and_lasts_as_long_as_asked():
    before = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    minted = certificate(Authority.new().mint_job("abc", 600))
    assert job_of(minted) == "abc"
    assert isinstance(minted.public_key().curve, ec.SECP256R1)
    lasts = minted.not_valid_after_utc - before
    assert datetime.timedelta(seconds=600) <= lasts <= datetime.timedelta(seconds=605)
    old = before - minted.not_valid_before_utc
    assert datetime.timedelta(hours=23, minutes=59) <= old <= datetime.timedelta(days=1)


def test_each_job_has_a_key_of_its_own():
    authority = Authority.new()
    assert authority.mint_job("a", 600).key != authority.mint_job("b", 600).key


def test_the_servers_certificate_carries_its_name_and_hosts():
    minted = certificate(Authority.new().mint_server("10.0.0.1", "mu.example"))
    names = minted.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [SERVER_NAME, "mu.example"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.1"]
    assert job_of(minted) is None


def test_the_ca_is_made_once_and_its_key_is_its_owners_alone(tmp_path):
    first = Authority.at_home(tmp_path)
    assert Authority.at_home(tmp_path).pem == first.pem
    for name in ("ca.key", "ca.pem"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ca.key", "ca.pem"]


def test_a_broken_ca_file_is_an_error_and_is_not_replaced(tmp_path):
    Authority.at_home(tmp_path)
    (tmp_path / "ca.key").write_text("nonsense")
    with pytest.raises(ValueError, match="PEM"):
        Authority.at_home(tmp_path)
    assert (tmp_path / "ca.key").read_text() == "nonsense"


def handshake(version, ciphers=None):
    """Return what a worker with these abilities and our port agree on: version and cipher suite."""
    authority = Authority.new()
    context = server_context(authority.mint_server("127.0.0.1"), authority.pem)
    worker = authority.mint_job("j1", 600)
    abilities = SSL.Context(SSL.TLS_CLIENT_METHOD)
    abilities.set_max_proto_version(version)
    if ciphers:
        abilities.set_cipher_list(ciphers)
    pem = crypto.FILETYPE_PEM
    abilities.use_certificate(crypto.load_certificate(pem, worker.certificate.encode()))
    abilities.use_privatekey(crypto.load_privatekey(pem, worker.key.encode()))
    client = SSL.Connection(abilities, None)
    client.set_connect_state()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(incoming, outgoing, server_side=True)
    for _ in range(4):
        with suppress(SSL.WantReadError):
            client.do_handshake()
        with suppress(SSL.WantReadError):
            incoming.write(client.bio_read(2**16))
        with suppress(ssl.SSLWantReadError):
            server.do_handshake()
        if outgoing.pending:
            client.bio_write(outgoing.read())
    return server.version(), server.cipher()[0]


def test_a_worker_that_can_speak_tls_1_3_does():
    version, cipher = handshake(SSL.TLS1_3_VERSION)
    assert version == "TLSv1.3"
    assert "GCM" in cipher or "POLY1305" in cipher


@pytest.mark.parametrize(
    "suite",
    [
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
    ],
)
def test_with_tls_1_2_authenticated_encryption_is_accepted(suite):
    assert handshake(SSL.TLS1_2_VERSION, suite.encode()) == ("TLSv1.2", suite)


@pytest.mark.parametrize(
    "suite",
    [
        "ECDHE-ECDSA-AES128-SHA",
        "ECDHE-ECDSA-AES256-SHA384",
        "ECDHE-ECDSA-AES128-SHA256",
    ],
)
def test_with_tls_1_2_other_cipher_suites_are_refused(suite):
    with pytest.raises(ssl.SSLError, match="NO_SHARED_CIPHER"):
        handshake(SSL.TLS1_2_VERSION, suite.encode())
