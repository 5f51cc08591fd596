"""`mu open` on a desktop: a browser gets a private file, and nothing is left behind."""

import json

import click
import pytest
from kit.cli import answering, http, inside


@pytest.fixture
def opened(monkeypatch, tmp_path):
    """The files that a browser was started with."""
    found = []
    monkeypatch.setattr(click, "launch", found.append)
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return found


def test_the_browser_gets_the_link_in_a_private_file_which_is_used_again(opened, tmp_path):
    codes = [http("201 Created", json.dumps({"code": f"c{n}", "valid_s": 60})) for n in range(2)]
    with answering(*codes) as client:
        links = [inside("--url", client.url, "open", MU_TOKEN="t").stdout for _ in codes]
    path = tmp_path / "cache" / "mu" / "open.html"
    assert opened == [str(path)] * 2
    assert links[1].strip() in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_cannot_be_written_is_named(opened, tmp_path):
    (tmp_path / "cache").write_text("")
    with answering(http("201 Created", json.dumps({"code": "c", "valid_s": 60}))) as client:
        told = inside("--url", client.url, "open", MU_TOKEN="t")
    assert told.exit_code == 2
    assert f"cannot write to {tmp_path}/cache/mu: " in told.stderr
    assert opened == []
