"""mu keys: showing, renewing and exporting the CA; and what a renewal does to running workers."""

import hashlib
import json
import os
import socket
import ssl
import stat
import subprocess
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ClientError
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from kit.cli import inside as mu
from kit.film import order, put_film, wait_until
from stage import Daemon, free_ports_conf

from mu.cli.localkey import write_profile
from mu.engines.local.key import make_key
from mu.net.certificates import Authority, Facts
from mu.wire import Framer, frame


@pytest.fixture
def home(tmp_path):
    (tmp_path / "home").mkdir()
    Authority.at_home(tmp_path / "home")
    return tmp_path / "home"


def test_the_ca_is_shown(home):
    shown = mu("--home", home, "keys").stdout
    facts = Facts.of((home / "ca.pem").read_text())
    assert facts.fingerprint.replace(":", "") in shown.replace(":", "").replace(" ", "").replace(
        "\n", ""
    )
    assert f"valid        {facts.begins:%Y-%m-%d} to {facts.ends:%Y-%m-%d}" in shown
    assert "for mu-coordinator and 127.0.0.1" in shown
    told = json.loads(mu("--home", home, "keys", "--json").stdout)
    assert told["ca"]["sha256"] == facts.fingerprint
    assert told["server_names"] == ["mu-coordinator", "127.0.0.1"]


def test_the_fingerprint_is_openssls(home):
    pem = (home / "ca.pem").read_text()
    der = ssl.PEM_cert_to_DER_cert(pem)
    assert Facts.of(pem) == Facts.of(der)
    digest = hashlib.sha256(der).hexdigest().upper()
    assert Facts.of(pem).fingerprint.replace(":", "") == digest


def test_a_home_without_a_ca_is_reported_and_none_is_created(tmp_path):
    done = mu("--home", tmp_path, "keys")
    assert done.exit_code == 2
    assert "has no CA yet: the daemon creates it when it first starts" in done.stderr
    assert list(tmp_path.iterdir()) == []
    done = mu("--home", tmp_path, "keys", "export", tmp_path / "x")
    assert (done.exit_code, list(tmp_path.iterdir())) == (2, [])


PEM = "-----BEGIN {kind}-----\n{body}\n-----END {kind}-----\n"


def original_worker(event, folder):
    """Play a worker of the original mu: bare base64, an RSA key, no name to check; echo what is said."""
    for name, kind in (
        ("cacert", "CERTIFICATE"),
        ("srvcrt", "CERTIFICATE"),
        ("srvkey", "RSA PRIVATE KEY"),
    ):
        bodies = event[name].split(" ")
        (folder / name).write_text("".join(PEM.format(kind=kind, body=body) for body in bodies))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(folder / "cacert")
    context.load_cert_chain(folder / "srvcrt", folder / "srvkey")
    plain = socket.create_connection((event["addr"], event["port"]), 10)
    with context.wrap_socket(plain) as line:
        framer, heard = Framer(2**20), []
        line.sendall(frame(b"OK:HELLO"))
        while received := line.recv(65536):
            for command in framer.feed(received):
                heard.append(command)
                if command.startswith(b"echo:"):
                    line.sendall(frame(b"OK:ECHO(%s)" % command[5:]))
    return heard


def test_with_an_rsa_ca_of_the_users_an_original_worker_joins_by_the_event(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    Authority.at_home(home)
    own = [str(tmp_path / "own.pem"), str(tmp_path / "own.key")]
    openssl = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3", "-subj"]
    line = [*openssl, "/CN=ours", "-out", own[0], "-keyout", own[1]]
    subprocess.run(line, check=True, capture_output=True)
    done = mu("--home", home, "keys", "renew", "ca", "--yes", "--from", *own)
    assert (done.exit_code, (home / "ca.pem").read_text()) == (0, Path(own[0]).read_text())
    daemon = Daemon(tmp_path, conf=free_ports_conf())
    try:
        words = (
            "--engine",
            "external",
            "--event-format",
            "original",
            "--event-out",
            tmp_path / "e",
        )
        job = mu("launch", "hello", "-n", 1, *words, daemon=daemon).stdout.split()[-1]
        event = json.loads((tmp_path / "e").read_text())
        assert "-----" not in event["cacert"] + event["srvcrt"] + event["srvkey"]
        assert original_worker(event, tmp_path) == [b"echo:hello from actor 0", b"quit:"]
        assert daemon.wait(job)["result"] == {"said_hello": 1}
    finally:
        daemon.stop()


def test_a_certificate_that_is_no_cas_is_refused(home, tmp_path):
    worker = Authority.read(home).mint_job("j", 600)
    (tmp_path / "w.pem").write_text(worker.certificate)
    (tmp_path / "w.key").write_text(worker.key)
    before = (home / "ca.pem").read_text()
    words = ("--yes", "--from", tmp_path / "w.pem", tmp_path / "w.key")
    done = mu("--home", home, "keys", "renew", "ca", *words)
    assert (done.exit_code, (home / "ca.pem").read_text()) == (2, before)
    assert "w.pem is not the certificate of a CA" in done.stderr


def test_a_damaged_ca_is_reported(home):
    (home / "ca.key").write_text("nonsense")
    done = mu("--home", home, "keys")
    assert (done.exit_code, "cannot use the CA in " in done.stderr) == (2, True)


@pytest.mark.parametrize("missing", ["ca.pem", "ca.key"])
def test_half_a_ca_is_never_overwritten_and_can_be_renewed(home, missing):
    (kept,) = {"ca.pem", "ca.key"} - {missing}
    (home / missing).unlink()
    before = (home / kept).read_bytes()
    with pytest.raises(ValueError, match=f"{kept} is there and {missing} is missing") as refused:
        Authority.at_home(home)
    assert "`mu keys renew ca`" in str(refused.value)
    assert (home / kept).read_bytes() == before
    assert not (home / missing).exists()
    done = mu("--home", home, "keys", "renew", "ca", "--yes")
    assert (done.exit_code, "Old: unusable: " in done.stdout) == (0, True)
    assert Authority.at_home(home)
    assert (home / f"{kept}.old").read_bytes() == before


def test_a_ca_key_with_a_password_is_refused_in_one_sentence(home):
    key = serialization.load_pem_private_key((home / "ca.key").read_bytes(), None)
    locked = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"hush"),
    )
    (home / "ca.key").write_bytes(locked)
    with pytest.raises(ValueError, match=r"ca\.key cannot be used: Password was not given"):
        Authority.at_home(home)


def test_a_ca_that_an_editor_saved_is_the_same(home):
    for name in ("ca.pem", "ca.key"):
        pem = (home / name).read_bytes().replace(b"\n", b"\r\n")
        (home / name).write_bytes(b"\xef\xbb\xbf" + pem + b"\r\n  \r\n")
    assert Authority.at_home(home).mint_job("j", 60)


def test_renewing_explains_what_happens_and_needs_confirmation(home):
    before = (home / "ca.pem").read_text()
    done = mu("--home", home, "keys", "renew", "ca")
    assert done.exit_code == 2
    assert "workers of running jobs cannot reconnect" in done.stdout
    assert "The daemon is not running." in done.stdout
    assert "add --yes, as there is no terminal to confirm on" in done.stderr
    assert (home / "ca.pem").read_text() == before
    done = mu("--home", home, "keys", "renew", "ca", "--yes")
    assert done.exit_code == 0
    after = (home / "ca.pem").read_text()
    assert (
        f"Old: {Facts.of(before).fingerprint}\nNew: {Facts.of(after).fingerprint}\n" in done.stdout
    )
    assert (home / "ca.pem.old").read_text() == before
    assert Authority.at_home(home).pem == after
    for name in ("ca.key", "ca.key.old"):
        assert stat.S_IMODE((home / name).stat().st_mode) == 0o600


def test_the_servers_key_is_renewed_by_a_restart(home):
    done = mu("--home", home, "keys", "renew", "server")
    assert (done.exit_code, "generated at each start" in done.stdout) == (0, True)
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_the_daemon_uses_a_renewed_ca_from_its_next_start(own_daemon):
    """Until then jobs run with the old one."""
    said = mu("--home", own_daemon.home, "keys", "renew", "ca", "--yes").stdout
    assert "Running jobs: none." in said
    words = ["--home", own_daemon.home, "launch", "hello", "--function", "png2y4m", "--watch"]
    assert mu(*words).exit_code == 0
    doctor = json.loads(mu("--home", own_daemon.home, "doctor", "--json").stdout)
    (port,) = [one for one in doctor if one["check"] == "worker port"]
    assert port["level"] == "fail"
    assert "restart the daemon" in port["remedy"]


def test_running_actors_get_new_workers_after_a_renewal_and_a_restart(tmp_path, s3, joiner):
    conf = free_ports_conf(worker="hold_s = 0.5", jobs="retry_pause_s = 0.1")
    daemon = Daemon(tmp_path, s3.env, conf)
    try:
        daemon.create_function("png2y4m", joiner)
        put_film(s3, "renewed", ["nap\n", "b\n"])
        job = daemon.ask("/jobs", order("renewed", workers=1) | {"retries": 2})["id"]
        wait_until(lambda: "joining" in daemon.ask(f"/jobs/{job}/log"))
        said = mu("--home", daemon.home, "keys", "renew", "ca", "--yes").stdout
        assert "Running jobs: 1." in said
        daemon.stop()
        daemon = Daemon(tmp_path, s3.env, conf)
        ended = daemon.wait(job)
        assert (ended["state"], ended["error"]) == ("done", None)
        (actor,) = daemon.ask(f"/jobs/{job}/workers")
        assert actor["attempt"] == 2
    finally:
        daemon.stop()


def test_only_the_cas_certificate_is_exported(home, tmp_path):
    done = mu("--home", home, "keys", "export", tmp_path / "out")
    assert done.exit_code == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["ca.pem"]
    assert (tmp_path / "out" / "ca.pem").read_text() == (home / "ca.pem").read_text()


def test_a_relays_key_is_exported_for_its_hosts_but_never_the_cas(home, tmp_path):
    out = tmp_path / "a" / "b"
    words = ["--relay", "relay.example", "--relay", "203.0.113.7"]
    done = mu("--home", home, "keys", "export", out, *words)
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in out.iterdir()) == ["ca.pem", "relay.key", "relay.pem"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in out.iterdir()} == {0o600}
    assert stat.S_IMODE(out.stat().st_mode) == 0o700
    assert "for mu-coordinator, relay.example, 203.0.113.7, until 20" in done.stdout
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(out / "relay.pem", out / "relay.key")  # they fit one another
    relay = x509.load_pem_x509_certificate((out / "relay.pem").read_bytes())
    relay.verify_directly_issued_by(x509.load_pem_x509_certificate((out / "ca.pem").read_bytes()))
    for path in out.iterdir():
        assert (home / "ca.key").read_text() not in path.read_text()


def test_a_host_that_cannot_be_in_a_certificate_is_reported(home, tmp_path):
    done = mu("--home", home, "keys", "export", tmp_path / "x", "--relay", "https://x")
    assert (done.exit_code, "cannot be put into a certificate" in done.stderr) == (2, True)


def test_a_folder_without_write_permission_is_reported(home, tmp_path):
    (tmp_path / "file").touch()
    done = mu("--home", home, "keys", "export", tmp_path / "file" / "x")
    assert (done.exit_code, "cannot write " in done.stderr) == (2, True)


def exports(home):
    """Return what a shell has after eval "$(mu keys local)"."""
    said = mu("--home", home, "keys", "local")
    assert said.exit_code == 0, said.stderr
    words = [line.removeprefix("export ") for line in said.stdout.splitlines()]
    return dict(word.split("=", 1) for word in words if "=" in word)


def test_the_key_of_the_local_engine_works_for_aws_clients_and_others_do_not(daemon, tmp_path):
    found = exports(daemon.home)
    assert found["AWS_ENDPOINT_URL_LAMBDA"] == f"http://127.0.0.1:{daemon.ports['local']}"

    def functions(**variables):
        with pytest.MonkeyPatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("AWS_")]:
                patch.delenv(name)
            for name, value in variables.items():
                patch.setenv(name, value)
            return boto3.Session().client("lambda").list_functions()["Functions"]

    assert functions(**found) == daemon.lambda_client().list_functions()["Functions"]
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        with pytest.raises(ClientError) as refused:
            functions(**{**found, name: "another"})
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    file = tmp_path / "new" / "credentials"
    said = mu("--home", daemon.home, "keys", "local", "--profile", "mu", "--file", file)
    assert f"{file}: profile mu, for the local engine" in said.stdout
    assert found["AWS_SECRET_ACCESS_KEY"] not in said.stdout
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    profile = {"AWS_SHARED_CREDENTIALS_FILE": str(file), "AWS_PROFILE": "mu"}
    assert functions(**profile) == functions(**found)


def test_writing_a_profile_keeps_all_others_and_replaces_its_own_only(tmp_path):
    file = tmp_path / "credentials"
    others = "# mine\n[default]\naws_access_key_id = AKIAEXAMPLE\n\n[ä]\nregion = x"
    file.write_text(others)
    write_profile(file, "mu", ["aws_access_key_id = MULOCAL1"])
    assert file.read_text() == f"{others}\n\n[mu]\naws_access_key_id = MULOCAL1\n"
    file.write_text(file.read_text() + "\n[last]\nregion = y\n")
    write_profile(file, "mu", ["aws_access_key_id = MULOCAL2"])
    expected = f"{others}\n\n[mu]\naws_access_key_id = MULOCAL2\n\n[last]\nregion = y\n"
    assert file.read_text() == expected
    with pytest.raises(ValueError, match="choose another name"):
        write_profile(file, "default", ["aws_access_key_id = MULOCAL3"])
    assert file.read_text() == expected


def test_the_key_of_a_home_without_one_and_of_a_daemon_that_is_not_running(tmp_path):
    done = mu("--home", tmp_path, "keys", "local")
    assert (done.exit_code, list(tmp_path.iterdir())) == (2, [])
    assert "local/key is missing: the daemon makes it when it starts" in done.stderr
    make_key(tmp_path)
    assert mu("--home", tmp_path, "keys", "local").exit_code == 4
    done = mu("--home", tmp_path, "keys", "local", "--file", "x")
    assert (done.exit_code, "--file needs --profile NAME" in done.stderr) == (2, True)
