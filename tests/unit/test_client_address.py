"""How the command line finds the daemon, and what it says where there is none."""

import socket
from pathlib import Path

import pytest
from kit.cli import home_with, refusal

from mu.client.address import find_address
from mu.client.errors import NoAddress
from mu.home import read_token


def test_a_home_is_given_or_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setattr(
        "mu.client.address.CONFIGS", (Path("etc/mu.conf"), tmp_path / "system" / "mu.conf")
    )

    def found(given=(), environ=()):
        return find_address(dict(given), dict(environ)).url.rpartition(":")[2]

    home_with(tmp_path / "user" / ".mu", '{"control": 1}')
    assert found() == "1"
    for number, folder in ((2, "system"), (3, "etc")):
        home_with(tmp_path / folder / "home", f'{{"control": {number}}}')
        (tmp_path / folder / "mu.conf").write_text("[mu]\nhome = home\n")
        assert found() == str(number)
    environ = {"MU_HOME": str(home_with(tmp_path / "environ", '{"control": 4}'))}
    assert found(environ=environ) == "4"
    assert found({"config": "etc/mu.conf"}, environ) == "3"
    assert found({"home": "~/.mu"}, environ) == "1"


def test_a_control_port_listens_where_the_configuration_says(tmp_path):
    home_with(tmp_path / "home")
    for host, at in (("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("10.0.0.9", "10.0.0.9")):
        config = tmp_path / "mu.conf"
        config.write_text(f"[mu]\nhome = home\n[control]\nhost = {host}\n")
        assert find_address({"config": str(config)}, {}).url == f"http://{at}:1"


@pytest.mark.parametrize(
    ("url", "token", "says"),
    [
        ("http://127.0.0.1:1", "", "--url requires the daemon's token in MU_TOKEN"),
        ("http://127.0.0.1:1", "a b", "MU_TOKEN does not contain a token"),
        ("127.0.0.1:1", "t", "--url must look like http://HOST:13580, got '127.0.0.1:1'"),
        ("http://", "t", "--url must look like"),
        ("http://x:http", "t", "--url must look like"),
        ("http://user@x", "t", "--url must look like"),
    ],
)
def test_an_invalid_url_is_refused(url, token, says):
    assert says in refusal("--url", url, "jobs", MU_TOKEN=token)


def test_a_home_without_a_daemon_says_how_to_start_one(tmp_path):
    config = tmp_path / "my mu.conf"
    config.write_text("[mu]\nhome = home\n")
    assert refusal("--config", config, "jobs", status=4) == (
        f"mu: no daemon is running for home {tmp_path}/home:"
        f" start it with twistd -n mu --config '{config}'\n"
    )
    says = refusal("jobs", "--home", tmp_path / "other", status=4)
    assert f'FILE contains "[mu]" and "home = {tmp_path}/other"' in says


def test_an_invalid_configuration_is_refused(tmp_path):
    assert "/no.conf" in refusal("--config", tmp_path / "no.conf", "jobs")
    (tmp_path / "mu.conf").write_text("[mu]\nhoem = x\n")
    assert "unknown option 'hoem' in [mu]" in refusal("--config", tmp_path / "mu.conf", "jobs")


def test_a_stale_ports_file_is_recognized(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    home = home_with(tmp_path, f'{{"control": {port}}}')
    says = refusal("--home", home, "jobs", status=4)
    assert f"although ports.json names port {port}: the daemon was killed" in says
    assert "Its running jobs resume when it is started again, with twistd -n mu" in says


@pytest.mark.parametrize("ports", ["", "{", "[]", "{}", '{"control": "1"}', '{"control": 70000}'])
def test_an_invalid_ports_file_says_what_to_do(tmp_path, ports):
    says = refusal("--home", home_with(tmp_path, ports), "jobs", status=4)
    assert f"{tmp_path}/ports.json does not contain the control port" in says


def test_a_missing_or_invalid_token_is_reported(tmp_path):
    home = home_with(tmp_path, token="two words")
    assert f"{home}/token does not contain a token" in refusal("--home", home, "jobs")
    (home / "token").unlink()
    assert f"{home}/token is missing, although ports.json exists" in refusal("--home", home, "jobs")


@pytest.mark.parametrize("token", ["t0ken", "t0ken\n", "\ufefft0ken\r\n", " t0ken\n\n"])
def test_a_token_is_read_as_the_daemon_reads_it(tmp_path, token):
    home = home_with(tmp_path, token=token)
    assert find_address({"home": str(home)}, {}).token == "t0ken" == read_token(home / "token")
    remote = find_address({"url": "http://127.0.0.1:1"}, {"MU_TOKEN": token})
    assert remote.token == "t0ken"


@pytest.mark.parametrize("token", ["", "\n", "two words", "a\nb", "é", "a\0b", "\ufeff"])
def test_what_is_no_token_is_refused_by_both(tmp_path, token):
    home = home_with(tmp_path, token=token)
    with pytest.raises(NoAddress, match="does not contain a token"):
        find_address({"home": str(home)}, {})
    with pytest.raises(ValueError, match="delete the file; mu then creates a new one"):
        read_token(home / "token")
    assert (home / "token").read_text() == token


def test_a_home_of_an_unknown_user_is_reported(tmp_path):
    assert "there is no home ~nobody-here" in refusal("--home", "~nobody-here/x", "jobs")


@pytest.mark.parametrize("name", ["ports.json", "token"])
def test_a_home_of_another_user_is_reported(tmp_path, monkeypatch, name):
    home = home_with(tmp_path)
    read = Path.read_text

    def guarded(path, *args, **kwargs):
        if path.name == name:
            raise PermissionError(13, "Permission denied")
        return read(path, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", guarded)
    says = refusal("--home", home, "jobs")
    assert f"no permission to read {home}/{name}: the daemon's home belongs to user " in says
    assert "use --url with the daemon's token in MU_TOKEN" in says
