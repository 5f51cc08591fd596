"""etc/mu.conf: its defaults, and the errors for a wrong one."""

import configparser
import itertools
from dataclasses import fields, replace
from pathlib import Path
from typing import ClassVar

import pytest

from mu.config import (
    Config,
    ConfigError,
    read_config,
    read_engine_options,
    reloaded,
    sections,
)
from mu.parameters import Parameter
from mu.plugins import Engine

SHIPPED = Path(__file__).parents[2] / "etc" / "mu.conf"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mu.conf"
    path.write_text(text)
    return path


def test_the_shipped_file_names_every_option_at_its_default():
    assert read_config(SHIPPED) == read_config(None)
    parser = configparser.ConfigParser()
    parser.read(SHIPPED)
    default = Config()
    assert {section: set(parser[section]) for section in parser.sections()} == {
        section.name: {option.name for option in fields(getattr(default, section.name))}
        for section in sections(default)
    }


def test_every_option_of_the_shipped_file_has_a_sentence_above_it():
    lines = SHIPPED.read_text().splitlines()
    bare = [
        line
        for above, line in itertools.pairwise(lines)
        if " = " in line and not line.startswith("#") and not above.startswith("#")
    ]
    assert bare == []


def test_options_are_read(tmp_path):
    config = read_config(written(tmp_path, "[mu]\nhome = here\n[worker]\nport = 0\n"))
    assert config.home == tmp_path / "here"
    assert config.worker.port == 0
    assert config.control.port == 13580


def test_a_relative_home_starts_at_the_files_folder(tmp_path):
    assert read_config(None).home == Path.home() / ".mu"
    assert read_config(written(tmp_path, "[mu]\nhome = /a/b\n")).home == Path("/a/b")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[wroker]\nport = 1\n", "unknown section [wroker]; the sections are mu, worker"),
        ("[worker]\nprot = 1\n", "unknown option 'prot' in [worker]; the options are host, port"),
        ("[worker]\nport = http\n", "[worker] port must be a whole number, got http"),
        ("[worker]\nport = 65536\n", "[worker] port must be between 0 and 65535, got 65536"),
        ("[worker]\nhold_s = -1\n", "[worker] hold_s must be at least 0, got -1"),
        ("[worker]\nhello_s = nan\n", "[worker] hello_s must be at least 0.1, got nan"),
        ("[worker]\nport = 1\n  2\n", "[worker] port must be a whole number, got 1 2"),
        ("[worker]\nport =\n", "[worker] port must not be empty"),
        ("[local]\nenabled = maybe\n", "[local] enabled must be yes or no, got maybe"),
        ("[control]\nhost =\n", "[control] host must not be empty"),
        ("[mu]\non_stop = stop\n", "[mu] on_stop must be keep or cancel, got stop"),
        ("[local]\nfaults = trottle=1\n", "[local] faults = trottle=1: unknown fault 'trottle'"),
        ("[worker]\nhello_s = inf\n", "[worker] hello_s must be between 0.1 and 31622400, got inf"),
        (
            "[worker]\nhello_s = 1e999\n",
            "[worker] hello_s must be between 0.1 and 31622400, got 1e9",
        ),
        ("[jobs]\ndeadline_s = 1e12\n", "[jobs] deadline_s must be between 1 and 31622400"),
        (
            "[jobs]\nstragglers = 0.5\n",
            "[jobs] stragglers must be 0 (never) or at least 1, got 0.5",
        ),
        ("[jobs]\nstragglers = inf\n", "[jobs] stragglers must be between 0 and 9007199254740992"),
        ("[jobs]\nretries = 1001\n", "[jobs] retries must be between 0 and 1000, got 1001"),
        ("[jobs]\nmax_workers = 5\nspares = 6\n", "[jobs] spares must be at most max_workers, 5"),
        (
            f"[journal]\nmax_bytes = {10**30}\n",
            "[journal] max_bytes must be between 1048576 and 90",
        ),
        (f"[journal]\nmax_bytes = {'9' * 5000}\n", "[journal] max_bytes must be a whole number"),
        ("[journal]\nkeep_days = nan\n", "[journal] keep_days must be at least 0, got nan"),
        ("[worker]\nport = 13579 # ours\n", "[worker] port: a comment must have a line of its own"),
        ("[mu]\nhome = /x ; mine\n", "[mu] home: a comment must have a line of its own"),
        ('[mu]\nhome = "/x"\n', '[mu] home must not be in quotes, got "/x"'),
        ("[mu]\nhome = /x\n  /y\n", "[mu] home must be one line of printable text, got '/x /y'"),
        ("[mu]\nhome = a\0b\n", "[mu] home must be one line of printable text"),
        ("[mu]\nhome = ~nobody-here/x\n", "[mu] home = ~nobody-here/x: "),
        ("[launch]\nregion = US East\n", "[launch] region must be a region such as us-east-1"),
        ("[launch]\npublic_host = http://x\n", "[launch] public_host must be a host name or an IP"),
        ("[launch]\npublic_host = x:13579\n", "without a port, got x:13579"),
        ("[launch]\npublic_host = 0.0.0.0\n", "[launch] public_host must be an address at which"),
        (
            "[launch]\ncanary = 1 0\n",
            "[launch] canary must be numbers from 1 to 10000, such as 1 8",
        ),
        ("[launch]\ncanary = one\n", "or none, got one"),
        ("[notify]\nsecret = c2hvcnQ=\n", "[notify] secret must be none, or at least 24 random"),
        ("[notify]\nsecret = a b\n", "[notify] secret must be none, or at least 24 random bytes"),
        (
            "[relay]\naddress = relay\n",
            "[relay] address must be HOST:PORT, with an IPv6 address as",
        ),
        ("[relay]\naddress = ::1:13337\n", "[relay] address must be HOST:PORT"),
        ("[worker]\nhost = a b\n", "[worker] host must not contain spaces, got a b"),
        ("[mu]\nhome = a\n[worker]\nport = 1\n[mu]\non_stop = keep\n", "'mu' already exists"),
        ("[]\n", "no section headers"),
        ("[worker]\nport\n", "parsing errors"),
        ("port = 1\n", "no section headers"),
        ("[worker]\nport = 1\nport = 2\n", "already exists"),
    ],
)
def test_an_error_is_one_line_that_names_the_option(tmp_path, text, says):
    with pytest.raises(ConfigError) as refused:
        read_config(written(tmp_path, text))
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigError, match="absent.conf: cannot be read"):
        read_config(tmp_path / "absent.conf")
    (tmp_path / "latin").write_bytes(b"[mu]\nhome = \xff\n")
    with pytest.raises(ConfigError, match="latin: cannot be read"):
        read_config(tmp_path / "latin")


@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_file_of_another_editor_is_the_same(tmp_path, start, end):
    text = "[launch]\npublic_host =  [2001:DB8::1] \n\n; so\n[RELAY]\n".replace("RELAY", "relay")
    text += "Address: [::1]:13337\n[worker]\nhost = münchen.example\nport=0\n"
    path = tmp_path / "mu.conf"
    path.write_bytes((start + text.replace("\n", end)).encode())
    config = read_config(path)
    assert config.launch.public_host == "2001:db8::1"
    assert config.relay.address == "[::1]:13337"
    assert (config.worker.host, config.worker.port) == ("xn--mnchen-3ya.example", 0)


def test_a_deprecated_option_has_no_effect_and_a_warning(tmp_path):
    said = []
    path = written(tmp_path, "[worker]\nlog_bytes = 7\nport = 0\n[jobs]\noutput_bytes = x\n")
    config = read_config(path, said.append)
    assert (config.worker.port, config.jobs) == (0, Config().jobs)
    assert said == [
        f"{path}: [worker] log_bytes no longer has an effect: [logs] actor_bytes limits the log of an"
        " actor, which is on disk",
        f"{path}: [jobs] output_bytes no longer has an effect: [logs] total_bytes limits the logs of all"
        " jobs, which are on disk",
    ]


def test_only_options_that_need_no_restart_are_reloaded():
    now, new = Config(), read_config(None)
    assert reloaded(now, now) == (now, [], [])
    jobs = replace(now.jobs, retries=7, keep=5)
    launch = replace(now.launch, public_host="::1", region="eu-west-1")
    new = replace(now, jobs=jobs, launch=launch)
    config, taken, left = reloaded(now, new)
    assert (config.jobs.retries, config.jobs.keep) == (7, now.jobs.keep)
    assert (config.launch.region, config.launch.public_host) == ("eu-west-1", "127.0.0.1")
    assert taken == ["[launch] region", "[jobs] retries"]
    assert left == ["[launch] public_host", "[jobs] keep"]


def test_the_canary_is_a_list_of_numbers_or_none(tmp_path):
    assert read_config(None).launch.canary == (1, 8)
    assert read_config(written(tmp_path, "[launch]\ncanary = 2 20 200\n")).launch.canary == (
        2,
        20,
        200,
    )
    for nothing in ("none", ""):
        text = f"[launch]\ncanary = {nothing}\n"
        assert read_config(written(tmp_path, text)).launch.canary == ()


@pytest.mark.parametrize("secret", ["hush-hush", '"hush-hush"', "hush-hush # mine", "hush-hush\a"])
def test_no_error_shows_the_secret(tmp_path, secret):
    with pytest.raises(ConfigError) as refused:
        read_config(written(tmp_path, f"[notify]\nsecret = {secret}\n"))
    assert "hush" not in str(refused.value)


def test_a_configuration_does_not_print_its_secret(tmp_path):
    secret = "whsec_" + "abcd" * 8
    config = read_config(written(tmp_path, f"[notify]\nsecret = {secret}\n"))
    assert config.notify.secret == secret
    assert secret not in repr(config)


class Cluster(Engine):
    name = "cluster"
    options = (
        Parameter("folder", str, "where", ""),
        Parameter("poll_s", float, "how often", 10.0, 1),
        Parameter("shared", bool, "whether", False),
    )

    def launch(self, invocation):
        raise NotImplementedError


def configured(tmp_path, monkeypatch, text):
    monkeypatch.setattr("mu.config.entry_points", lambda group: Installed())
    return read_engine_options(Cluster(), read_config(written(tmp_path, text)))


class Installed:
    """What importlib.metadata.entry_points returns where the plugin is installed."""

    names: ClassVar[set[str]] = {"cluster"}


def test_an_engine_of_a_plugin_has_a_section(tmp_path, monkeypatch):
    text = "[cluster]\npoll_s = 2\nshared = yes\n"
    assert configured(tmp_path, monkeypatch, text) == {"folder": "", "poll_s": 2.0, "shared": True}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("poll_s = often", "[cluster] poll_s must be a number, got 'often'"),
        ("poll_s = 0", "[cluster] poll_s must be at least 1, got 0"),
        ("shared = perhaps", "[cluster] shared must be yes or no, got 'perhaps'"),
        ("x = 1", "unknown option 'x' in [cluster]; the options are folder, poll_s, shared"),
    ],
)
def test_a_wrong_option_of_a_plugin_is_named(tmp_path, monkeypatch, line, says):
    with pytest.raises(ConfigError) as refused:
        configured(tmp_path, monkeypatch, f"[cluster]\n{line}\n")
    assert says in str(refused.value)


def test_a_change_in_a_plugins_section_needs_a_restart(tmp_path):
    new = replace(Config(), plugins={"cluster": {"poll_s": "3"}})
    assert reloaded(Config(), new) == (Config(), [], ["[cluster]"])
