"""Functions on the local engine have the keys that the daemon has, also those of a profile."""

import json

import pytest
from kit.film import order, put_film
from stage import Daemon, free_ports_conf

from mu.engines.local.role import PROBLEM, Finder


@pytest.fixture
def start(tmp_path, s3, joiner, monkeypatch):
    """Start a daemon without keys in its environment, but with files in ~/.aws."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    started = []

    def start(credentials, **env):
        home = tmp_path / "user"
        (home / ".aws").mkdir(parents=True)
        (home / ".aws" / "credentials").write_text(credentials)
        elsewhere = {name: s3.env[name] for name in ("AWS_ENDPOINT_URL_S3", "AWS_DEFAULT_REGION")}
        own = {"HOME": str(home), "AWS_EC2_METADATA_DISABLED": "true", **env}
        started.append(Daemon(tmp_path / "daemon", elsewhere | own, free_ports_conf()))
        started[0].create_function("png2y4m", joiner)
        return started[0]

    yield start
    started[0].stop()


def section(name, s3):
    keys = ("aws_access_key_id", "aws_secret_access_key")
    return f"[{name}]\n" + "".join(f"{key} = {s3.env[key.upper()]}\n" for key in keys)


def log(daemon):
    return (daemon.home / "local" / "engine.log").read_text()


@pytest.mark.parametrize("profile", ["default", "films"])
def test_functions_get_the_keys_of_the_daemons_profile(start, s3, profile):
    put_film(s3, f"role-{profile}", ["a\n", "b\n"])
    env = {} if profile == "default" else {"AWS_PROFILE": profile}
    daemon = start(section(profile, s3), **env)
    job = daemon.wait(daemon.ask("/jobs", order(f"role-{profile}", 1))["id"])
    assert (job["state"], job["error"]) == ("done", None)
    said = f"functions get the AWS keys of profile {profile} (shared-credentials-file)"
    assert said in log(daemon)
    assert s3.env["AWS_SECRET_ACCESS_KEY"] not in log(daemon)


def test_where_there_are_none_the_actor_says_why(start, s3):
    put_film(s3, "role-none", ["a\n", "b\n"])
    daemon = start(section("default", s3), AWS_PROFILE="absent")
    job = daemon.wait(daemon.ask("/jobs", order("role-none", 1))["id"])
    assert job["state"] == "failed"
    why = "the profile's keys cannot be had: The config profile (absent) could not be found"
    assert f"(the local engine has none for functions: {why})" in job["error"]
    assert why in log(daemon)


# ---------------------------------------------------------------- what is found


@pytest.fixture
def aws(tmp_path, monkeypatch):
    """Set the files and variables that botocore reads; return the variables."""

    def aws(config="", **env):
        path = tmp_path / "config"
        path.write_text(config)
        env |= {"AWS_CONFIG_FILE": str(path), "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "no")}
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
            monkeypatch.delenv(name, raising=False)
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        return env

    return aws


def test_keys_in_the_environment_are_the_functions_already(aws):
    finder = Finder(aws("[default]\naws_access_key_id = a\n", AWS_ACCESS_KEY_ID="x"))
    assert not finder.has_profile()
    assert not Finder(
        {"AWS_CONFIG_FILE": "/none", "AWS_SHARED_CREDENTIALS_FILE": "/none"}
    ).has_profile()


def test_a_program_that_makes_keys_is_asked_and_its_keys_have_a_token(aws, tmp_path):
    keys = {"Version": 1, "AccessKeyId": "a", "SecretAccessKey": "s", "SessionToken": "t"}
    (tmp_path / "keys").write_text(json.dumps(keys))
    config = f"[profile made]\ncredential_process = cat {tmp_path}/keys\n"
    finder = Finder(aws(config, AWS_PROFILE="made"))
    assert finder.has_profile()
    variables, said = finder.find()
    assert variables == {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "s",
        "AWS_SESSION_TOKEN": "t",
    }
    assert said == "functions get the AWS keys of profile made (custom-process)"


def test_keys_that_change_are_found_again(aws, tmp_path):
    def config(key):
        return f"[default]\naws_access_key_id = {key}\naws_secret_access_key = s\n"

    finder = Finder(aws(config("first")))
    assert finder.find()[0]["AWS_ACCESS_KEY_ID"] == "first"
    (tmp_path / "config").write_text(config("second"))
    assert finder.find()[0]["AWS_ACCESS_KEY_ID"] == "second"
    (tmp_path / "config").write_text("[default]\nregion = us-east-1\n")
    assert finder.find()[0] == {PROBLEM: "there are none in profile default"}
