"""Certificates: who they name, how long they last, what stays at home."""

import datetime
import stat

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from mu.net.certificates import SERVER_NAME, Authority, job_of


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
    assert datetime.timedelta(minutes=9, seconds=55) <= old <= datetime.timedelta(minutes=10)


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
