"""The daemon's home: its secrets, and what notices that it is gone."""

import shutil
import stat
from pathlib import Path

import pytest

from mu.home import Presence, close_to_others, read_token, read_tokens


def test_the_first_start_makes_a_token_that_only_its_owner_can_read(tmp_path):
    path = tmp_path / "token"
    token = read_token(path)
    assert len(token) > 40
    assert read_token(path) == token
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o660, 0o666, 0o601])
def test_a_secret_that_others_could_use_is_closed_and_said(tmp_path, mode):
    path = tmp_path / "ca.key"
    path.write_text("secret")
    path.chmod(mode)
    said = close_to_others(path)
    assert said
    assert f"other users could use {path} (its mode was {mode:o}, and is 600 now)" in said
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_secret_of_its_owner_is_left_alone(tmp_path, mode):
    path = tmp_path / "ca.key"
    path.write_text("secret")
    path.chmod(mode)
    assert close_to_others(path) is None
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_secret_that_cannot_be_closed_is_said(tmp_path, monkeypatch):
    assert close_to_others(tmp_path / "absent") is None

    def refuse(path, mode):
        raise PermissionError(1, "Operation not permitted")

    path = tmp_path / "token"
    path.write_text("secret")
    path.chmod(0o644)
    monkeypatch.setattr(Path, "chmod", refuse)
    assert close_to_others(path) == (
        f"other users may read {path}, and its mode cannot be changed: Operation not permitted"
    )


def test_files_that_stay_are_present(tmp_path):
    (tmp_path / "a").write_text("1")
    present = Presence(tmp_path, tmp_path / "a")
    (tmp_path / "a").write_text("2")
    (tmp_path / "b").write_text("3")
    assert present.gone() is None


@pytest.mark.parametrize("how", ["removed", "moved", "replaced"])
def test_a_folder_that_is_removed_moved_or_replaced_is_noticed(tmp_path, how):
    home = tmp_path / "home"
    home.mkdir()
    present = Presence(home)
    if how == "removed":
        home.rmdir()
    else:
        home.rename(tmp_path / "elsewhere")
    if how == "replaced":
        home.mkdir()
    assert present.gone() == home


def test_a_file_in_a_folder_that_became_a_file_is_noticed(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "lock").touch()
    present = Presence(tmp_path / "home" / "lock")
    shutil.rmtree(tmp_path / "home")
    (tmp_path / "home").touch()
    assert present.gone() == tmp_path / "home" / "lock"


def test_a_read_token_that_is_the_control_token_is_refused(tmp_path):
    tokens = read_tokens(tmp_path)
    assert tokens == read_tokens(tmp_path)
    (tmp_path / "read-token").write_text(tokens.control + "\n")
    with pytest.raises(
        ValueError, match="are identical, so read-only clients would have full access"
    ):
        read_tokens(tmp_path)
