"""etc/mu.conf: its defaults, and the errors for a wrong one."""

import configparser
import itertools
from dataclasses import fields
from pathlib import Path

import pytest

from mu.config import Config, ConfigError, read_config

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
        for section in fields(default)
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
