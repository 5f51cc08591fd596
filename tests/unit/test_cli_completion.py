"""Shell completion: what is offered for a word, and that nothing is without a daemon."""

import json
from urllib.parse import urlsplit

import pytest
from click.shell_completion import ShellComplete
from kit.cli import answering, home_with, http

from mu.cli import completion
from mu.cli.commands import cli

JOBS = [
    {"id": "aa11", "pipeline": "hello", "state": "done", "function": "words"},
    {"id": "ab22", "pipeline": "map", "state": "running", "function": "thumbs"},
]
PIPELINES = [
    {"name": "map", "description": "", "parameters": [{"name": "bucket", "help": "the bucket"}]},
    {
        "name": "png2y4m",
        "description": "Join frames.",
        "parameters": [
            {"name": "video", "help": "the film"},
            {"name": "frames", "help": "frames per chunk"},
        ],
    },
    {"name": "pebble", "owner": "somebody", "error": "it lacks begin"},
]


def offered(*words, home="/nowhere"):
    """Return what is offered for the last word of a command line."""
    *given, incomplete = words
    shell = ShellComplete(cli, {}, "mu", "_MU_COMPLETE")
    items = shell.get_completions(["--home", str(home), *given], incomplete)
    return [item.value for item in items]


def offered_by(folder, answer, *words):
    """Return the same with a daemon that gives this answer to the one request that it gets."""
    with answering(http("200 OK", json.dumps(answer))) as client:
        ports = json.dumps({"control": urlsplit(client.url).port})
        return offered(*words, home=home_with(folder, ports))


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["launch", ""], ["map", "png2y4m"]),
        (["launch", "p"], ["png2y4m"]),
        (["pipelines", "m"], ["map"]),
        (["doctor", "--pipeline", "p"], ["png2y4m"]),
        (["launch", "png2y4m", "-p", ""], ["video=", "frames="]),
        (["launch", "png2y4m", "-p", "video=x", "-p", ""], ["frames="]),
        (["launch", "-p", "video=x", "-n", "3", "png2y4m", "-p", ""], ["frames="]),
        (["launch", "png2y4m", "-p", "video=x"], []),
        (["launch", "-p", ""], []),
    ],
)
def test_pipelines_and_their_parameters_are_offered(tmp_path, words, found):
    assert offered_by(tmp_path, PIPELINES, *words) == found


@pytest.mark.parametrize("command", ["watch", "workers", "log", "cancel", "replay", "rerun"])
def test_jobs_are_offered_the_latest_first(tmp_path, command):
    assert offered_by(tmp_path, JOBS, command, "") == ["last", "ab22", "aa11"]


def test_the_functions_of_jobs_and_of_the_local_engine_are_offered(tmp_path):
    folder = tmp_path / "local" / "functions" / "sort"
    folder.mkdir(parents=True)
    (folder / "config.json").touch()
    assert offered_by(tmp_path, JOBS, "launch", "hello", "--function", "") == [
        "sort",
        "thumbs",
        "words",
    ]
    assert offered("rerun", "last", "--function", "", home=tmp_path) == ["sort"]
    assert offered("doctor", "--function", "", home=tmp_path) == ["sort"]


def test_engines_are_offered_without_a_daemon():
    assert offered("launch", "hello", "--engine", "l") == ["lambda", "local"]


@pytest.mark.parametrize(
    "words",
    [["launch", ""], ["launch", "hello", "-p", ""], ["watch", ""], ["lanch", "x"], ["watch", "a"]],
)
def test_without_a_daemon_nothing_is_offered_and_nothing_printed(capsys, words):
    assert offered(*words) == []
    assert offered("--url", "http://127.0.0.1:1", *words) == []
    assert capsys.readouterr() == ("", "")


def test_a_daemon_that_does_not_answer_is_not_waited_for(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(completion, "ANSWER_S", 0.1)
    with answering(None) as client:
        ports = json.dumps({"control": urlsplit(client.url).port})
        assert offered("watch", "", home=home_with(tmp_path, ports)) == []
    assert capsys.readouterr() == ("", "")
