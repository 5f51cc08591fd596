"""The command line: against a real daemon as a program, and its pure parts as functions."""

import contextlib
import fcntl
import json
import os
import pty
import re
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from kit.film import processes, put_film, wait_until
from stage import Daemon

import mu
from mu.cli.address import Address, NotRunning, find_address
from mu.cli.arguments import BadArgument, read_event, read_params
from mu.cli.client import Client, DaemonUnreachable, RequestRefused
from mu.cli.commands import cli
from mu.cli.display import failures, progress, tables, text
from mu.pipelines import hello
from mu.states import CommandListState

ROOT = Path(__file__).parents[2]
ENV = {name: value for name, value in os.environ.items() if not name.startswith("MU_")}
HELLO = ["launch", "hello", "--function", "png2y4m"]  # any bundle has the worker
SLOW = ["launch", "png2y4m", "-p", "bucket=films", "-p", "frames=2"]


def run(*args, daemon=None, **options):
    """Run `mu` as a program."""
    env = ENV | ({"MU_HOME": str(daemon.home)} if daemon else {})
    return subprocess.run(
        [sys.executable, "-m", "mu.cli", *map(str, args)],
        capture_output=True,
        text=True,
        timeout=30,
        **{"env": env, **options},
    )


def inside(*args, daemon=None, **env):
    """Run it here, without a program's start."""
    where = ["--home", str(daemon.home)] if daemon else []
    unset = {"MU_HOME": None, "MU_TOKEN": None}
    return CliRunner().invoke(cli, [*where, *map(str, args)], env=unset | env)


def refusal(*args, status=2, **more):
    """Return the sentence with which a command ends."""
    ended = inside(*args, **more)
    assert (ended.exit_code, ended.stdout) == (status, ""), ended.output
    assert "Traceback" not in ended.stderr
    return ended.stderr


@pytest.fixture(scope="module")
def done(daemon):
    """A job of three workers that is done."""
    return json.loads(
        inside(*HELLO, "-n", 3, "-w", "--json", daemon=daemon).stdout.splitlines()[-1]
    )


@pytest.fixture(scope="module")
def failed(daemon, s3):
    """A job of three workers of which actor 1 failed."""
    put_film(s3, "cli-spoilt", ["a\n", "b\n", "c\n", "bad\n", "d\n", "e\n"])
    words = [*SLOW, "-p", "video=cli-spoilt", "-n", 3, "-w", "--json"]
    return json.loads(inside(*words, daemon=daemon).stdout.splitlines()[-1])


@pytest.fixture
def idle(daemon):
    """A job for which no worker will come."""
    job = json.loads(
        inside("launch", "hello", "--engine", "external", "--json", daemon=daemon).stdout
    )
    yield job
    daemon.ask(f"/jobs/{job['id']}", method="DELETE")


# ---------------------------------------------------------------- ordering


def test_an_order_prints_the_jobs_id_and_tells_people_on_stderr(daemon):
    ordered = run(*HELLO, "-n", 2, daemon=daemon)
    assert ordered.returncode == 0
    job = ordered.stdout.strip()
    assert daemon.wait(job)["result"] == {"said_hello": 2}
    assert ordered.stderr == (
        f"Job {job}: hello with 2 workers on engine local.\nTo follow it: mu watch {job}\n"
    )


def test_a_watched_order_ends_with_the_job(daemon):
    ended = run(*HELLO, "-n", 3, "-p", "text=hi", "-p", "rounds=2", "--watch", daemon=daemon)
    assert (ended.returncode, ended.stderr) == (0, "")
    first, *_, last, result = ended.stdout.splitlines()
    assert re.fullmatch(r"Job \w+: hello with 3 workers on engine local", first)
    assert re.fullmatch(r"Job \w+ finished after [\d.]+ s: 3 workers, \$0\.0\d+\.", last)
    assert result == 'Result: {"said_hello": 3}'


def test_all_that_can_be_ordered_arrives(daemon):
    words = ["--engine", "external", "--function", "f", "--regions", "us-east-1,us-west-2"]
    words += ["--deadline", 60, "--worker-timeout", 30, "--event", '{"env": {"A": "b"}}', "-n", 4]
    words += ["--spares", 2, "--retries", 5, "--tolerate", 1, "--on-failure", "stop"]
    words += ["--stragglers", 2.5, "--copies", 2]
    job = json.loads(inside("launch", "hello", *words, "--json", daemon=daemon).stdout)
    assert (job["function"], job["workers"], job["engine"]) == ("f", 4, "external")
    assert (job["spares"], job["retries"]) == (2, 5)
    assert job["event"]["env"] == {"A": "b"}
    assert inside("cancel", job["id"], daemon=daemon).exit_code == 0


def test_a_repeated_order_with_a_key_is_the_same_job(daemon):
    words = ["launch", "hello", "--engine", "external", "--idempotency-key", "cli", "--json"]
    pairs = [["-p", "text=a"], ["-p", "rounds=2"]]
    first, second = (
        json.loads(inside(*words, *one, *other, daemon=daemon).stdout)
        for one, other in (pairs, reversed(pairs))
    )
    assert first["id"] == second["id"]
    says = refusal(*words, "-p", "text=other", daemon=daemon)
    assert "another order" in says
    inside("cancel", first["id"], daemon=daemon)


def test_an_event_is_printed_or_kept_in_a_private_file(daemon, tmp_path):
    printed = inside("launch", "hello", "--engine", "external", daemon=daemon)
    event = json.loads(printed.stdout)
    assert "BEGIN PRIVATE KEY" in printed.stdout
    inside("cancel", event["job"], daemon=daemon)

    path = tmp_path / "event.json"
    path.write_text("an old one")
    path.chmod(0o644)
    words = ["launch", "hello", "--engine", "external", "--event-out", path]
    kept = inside(*words, daemon=daemon)
    assert json.loads(path.read_text())["job"] == kept.stdout.strip()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "PRIVATE" not in kept.output
    inside("cancel", kept.stdout.strip(), daemon=daemon)
    assert os.listdir(tmp_path) == ["event.json"]


def test_an_event_that_cannot_be_kept_orders_nothing(daemon, tmp_path):
    before = len(daemon.ask("/jobs"))
    external = ["launch", "hello", "--engine", "external"]
    says = refusal(*external, "--event-out", tmp_path / "no" / "x", daemon=daemon)
    assert "cannot write --event-out " in says
    says = refusal(*HELLO, "--engine", "local", "--event-out", tmp_path / "x", daemon=daemon)
    assert "--event-out is for engine external" in says
    refusal(*external, "-n", 0, "--event-out", tmp_path / "x", daemon=daemon)
    assert len(daemon.ask("/jobs")) == before
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["png2y4m", "-p", "framse=6"],
            "unknown parameter 'framse' of png2y4m; did you mean 'frames'?",
        ),
        (
            ["png2y4m", "-p", "xyz=6"],
            "; the parameters are video, bucket, in_format, frames, offset",
        ),
        (
            ["png2y4m", "-p", "frames=six"],
            "-p frames must be an integer between 1 and 10000, got 'six'",
        ),
        (["png2y4m", "-p", "frames=0"], "between 1 and 10000, got '0'"),
        (["png2y4m", "-p", "frames"], "-p must be NAME=VALUE, got 'frames'"),
        (["png2y4m", "-p", "frames=1", "-p", "frames=2"], "-p frames is given twice"),
        (["pgn2y4m"], "unknown pipeline 'pgn2y4m'; did you mean 'png2y4m'? The pipelines are "),
        (["hello", "-n", 0], "the order was refused: workers must be between 1"),
        (["hello", "--engine", "ferry"], "'ferry'"),
        (["hello", "--deadline", "nan"], "the order was refused: deadline_s must be a number"),
        (["hello", "--actors", "0,x"], "--actors must be numbers such as 0,7,12-15, got '0,x'"),
        (["hello", "--actors", "-3"], "--actors must be numbers"),
        (
            ["hello", "--actors", "0-99999999999"],
            "--actors may name 1000000 actors, got 0-99999999999",
        ),
        (["hello", "--actors", "1,1"], "the order was refused: actors must "),
        (["hello", "--event", "{"], "--event must be a JSON object, or @FILE with one"),
        (["hello", "--event", "[1]"], "--event must be a JSON object, got '[1]'"),
        (["hello", "--event", "@/no"], "cannot read --event @/no: "),
        (["hello", "--retries", -1], "the order was refused: retries must be between 0"),
        (["hello", "--on-failure", "panic"], "'panic' is not one of 'finish', 'stop'"),
        (
            ["hello", "--idempotency-key", "a\nb"],
            "--idempotency-key must be printable text on one line",
        ),
        (["hello", "-n", "many"], "'many' is not a valid integer"),
        ([], "Missing argument 'PIPELINE'"),
        (["hello", "--wacth"], "No such option"),
    ],
)
def test_an_order_that_cannot_be_is_refused_in_a_sentence(daemon, words, says):
    assert says in refusal("launch", *words, daemon=daemon)


def test_a_command_that_is_not_there_suggests_the_nearest():
    assert "Did you mean 'launch'?" in refusal("lanch")


KINDS = {
    "name": "p",
    "parameters": [
        {"name": name, "type": name, "help": "h", "required": name == "int"}
        for name in ("bool", "int", "float", "str", "list", "dict", "date")
    ],
}


def test_words_become_the_values_that_the_pipeline_wants():
    words = ["bool=Yes", "int=-3", "float=2", "str=a=b", "list=[1]", 'dict={"a": 1}', "date=x"]
    assert read_params(KINDS, words) == {
        "bool": True,
        "int": -3,
        "float": 2.0,
        "str": "a=b",
        "list": [1],
        "dict": {"a": 1},
        "date": "x",
    }


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("bool=maybe", "-p bool must be true or false, got 'maybe'"),
        ("int=1.5", "-p int must be an integer, got '1.5'"),
        ("float=inf", "-p float must be a number, got 'inf'"),
        ("list=a,b", "-p list must be a JSON list such as '[\"a\", \"b\"]', got 'a,b'"),
        ("list={}", "-p list must be a JSON list"),
        ("dict=1", "-p dict must be a JSON object"),
        ("str=x", "p requires -p int=...: h (an integer)"),
    ],
)
def test_a_word_of_another_kind_is_refused(word, says):
    with pytest.raises(BadArgument) as refused:
        read_params(KINDS, [word])
    assert says in str(refused.value)


def test_an_event_is_given_as_it_is_or_in_a_file(tmp_path):
    (tmp_path / "event").write_text('{"a": 1}')
    assert read_event('{"a": 1}') == read_event(f"@{tmp_path}/event") == {"a": 1}


def test_some_actors_are_ordered_and_followed_by_their_numbers(daemon):
    words = ["--actors", "2, 5-6", "-n", 9, "--watch", "--json"]
    told = inside(*HELLO, *words, daemon=daemon).stdout.splitlines()[-1]
    job = json.loads(told)
    assert (job["state"], job["workers"]) == ("done", 3)
    actors = json.loads(inside("workers", job["id"], "--json", daemon=daemon).stdout)
    assert [actor["actor"] for actor in actors] == [2, 5, 6]
    assert inside("log", job["id"], "-a", 5, "-f", daemon=daemon).exit_code == 0
    says = refusal("log", job["id"], "-f", daemon=daemon)
    assert f"name one, as in mu log {job['id']} -a 2 -f" in says
    job = json.loads(
        inside(*HELLO, "--actors", 4, "-w", "--json", daemon=daemon).stdout.splitlines()[-1]
    )
    assert inside("log", job["id"], "-f", daemon=daemon).exit_code == 0


# ---------------------------------------------------------------- which job


class Known(Client):
    """A client of a daemon with these jobs."""

    def __init__(self, *ids):
        self._ids = ids

    def jobs(self):
        return [{"id": name} for name in self._ids]

    def job(self, job_id):
        if job_id not in self._ids:
            raise RequestRefused("there is no job", 404)
        return {"id": job_id}


def test_a_job_is_named_by_its_id_a_prefix_or_last():
    client = Known("ab12", "ab34", "ab3", "cd56")
    found = [client.find_job(name)["id"] for name in ("ab12", "ab1", "ab3", "c", "last")]
    assert found == ["ab12", "ab12", "ab3", "cd56", "cd56"]


@pytest.mark.parametrize(
    ("ids", "name", "says"),
    [
        (["ab12", "ab34", "cd"], "ab", "'ab' matches 2 jobs, ab12, ab34"),
        (["ab12"], "x", "there is no job 'x'; `mu jobs` lists all jobs"),
        (["ab12"], "", "there is no job ''"),
        ([], "last", "there is no last job: no job has been started yet"),
    ],
)
def test_a_name_that_is_no_jobs_or_severals_is_refused(ids, name, says):
    with pytest.raises(RequestRefused, match=re.escape(says)):
        Known(*ids).find_job(name)


@pytest.mark.parametrize("command", ["watch", "workers", "log", "cancel"])
@pytest.mark.parametrize("name", ["nothing", "../pipelines", "?x", "é"])
def test_a_job_that_is_not_there_is_refused(daemon, done, command, name):
    assert f"there is no job {name!r}" in refusal(command, name, daemon=daemon)


# ---------------------------------------------------------------- showing


def test_a_job_that_is_done_ends_its_watching_with_0(daemon, done):
    assert run("watch", done["id"][:6], daemon=daemon).returncode == 0


def test_a_job_that_failed_ends_its_watching_with_1_and_each_failure(daemon, failed):
    ended = run("watch", failed["id"], daemon=daemon)
    assert (ended.returncode, ended.stderr) == (1, "")
    _, actor, error, hint, last = ended.stdout.splitlines()
    assert actor == "Actor 1 failed:"
    assert error.startswith("  Convert (converting and uploading): expected 'OK:RETVAL(0)'")
    assert "cannot join" in error
    assert hint == f"Output of actor 1: mu log {failed['id']} -a 1"
    assert last.endswith(" s: 1 of 3 actors failed.")


def test_a_job_that_is_cancelled_ends_its_watching_with_3(daemon, idle):
    watching = subprocess.Popen(
        [sys.executable, "-m", "mu.cli", "watch", "last"],
        env=ENV | {"MU_HOME": str(daemon.home)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert (
        watching.stdout.readline() == f"Job {idle['id']}: hello with 1 worker on engine external\n"
    )
    cancelled = run("cancel", "last", daemon=daemon)
    assert cancelled.stdout == f"Job {idle['id']} is cancelled.\n"
    told, _ = watching.communicate(timeout=10)
    assert watching.returncode == 3
    assert "was cancelled after " in told
    again = inside("cancel", "last", daemon=daemon)
    assert again.stdout == f"Job {idle['id']} had already ended: cancelled.\n"


def test_jobs_are_listed_with_their_failures_above(daemon, done, failed):
    listed = inside("jobs", daemon=daemon).stdout
    assert listed.index(f"Job {failed['id']} failed: 1 of 3 actors failed") < listed.index("job  ")
    (row,) = [line for line in listed.splitlines() if line.startswith(f"{failed['id']} ")]
    assert re.search(r"png2y4m +failed +1 failed, 2 done +(just now|\d+ s ago) +[\d.]+ s", row)
    (job,) = json.loads(inside("jobs", "--limit", 1, "--json", daemon=daemon).stdout)
    assert job == daemon.ask("/jobs")[-1]


def test_workers_are_listed_with_failures_first(daemon, failed):
    listed = inside("workers", failed["id"], daemon=daemon).stdout
    assert listed.startswith("Actor 1 failed:\n")
    rows = [line.split()[:2] for line in listed.partition("\nactor ")[2].splitlines()[1:]]
    assert rows == [["1", "failed"], ["0", "done"], ["2", "done"]]
    some = inside("workers", failed["id"], "--state", "done", daemon=daemon).stdout
    assert "failed" not in some
    none = inside("workers", failed["id"], "--state", "waiting", daemon=daemon).stdout
    assert none == f"No actor of job {failed['id']} is waiting.\n"


def test_json_is_the_control_ports(daemon, done, failed):
    def told(*words):
        return json.loads(inside(*words, "--json", daemon=daemon).stdout)

    assert told("jobs", "--limit", 10_000) == daemon.ask("/jobs")
    assert told("workers", done["id"]) == daemon.ask(f"/jobs/{done['id']}/workers")
    assert told("pipelines") == daemon.ask("/pipelines")
    assert told("pipelines", "hello") in daemon.ask("/pipelines")
    assert told("watch", done["id"]) == daemon.ask(f"/jobs/{done['id']}")
    assert told("cancel", done["id"]) == daemon.ask(f"/jobs/{done['id']}")
    (actor,) = told("workers", failed["id"], "--state", "failed")
    assert actor["actor"] == 1


def test_pipelines_are_shown_with_their_parameters(daemon):
    listed = inside("pipelines", daemon=daemon).stdout
    assert re.search(r"png2y4m +Convert PNG frames", listed)
    page = inside("pipelines", "png2y4m", daemon=daemon).stdout
    assert re.search(r"frames +6 +an integer between 1 and 10000 +\w+", page)
    assert "Example: mu launch png2y4m -n 5 --watch" in page
    assert "did you mean 'hello'?" in refusal("pipelines", "helo", daemon=daemon)


def test_a_broken_plugin_is_told_with_its_reason():
    good = {"name": "p", "description": "Does it.", "parameters": []}
    broken = {"name": "q", "owner": "q:it of some-package", "error": "ImportError: no q"}
    told = http("200 OK", json.dumps([good, broken]))
    with answering(told, told, told) as client:
        url = ["--url", client.url]
        listed = inside(*url, "pipelines", MU_TOKEN="t").stdout
        says = [
            refusal(*url, *words, MU_TOKEN="t") for words in (["pipelines", "q"], ["launch", "q"])
        ]
    assert listed.startswith("Plugin q (q:it of some-package) cannot be used: ImportError: no q\n")
    assert "p         Does it." in listed
    assert (
        says == ["mu: pipeline q of q:it of some-package cannot be used: ImportError: no q\n"] * 2
    )


def test_a_recorded_job_replays(daemon, done, failed):
    told = inside("replay", done["id"][:6], daemon=daemon)
    assert told.exit_code == 0, told.output
    head, _, names, *rows = told.stdout.splitlines()
    assert head.startswith(f"Job {done['id']}: hello, created ")
    assert head.endswith("; 3 attempts at 3 actors.")
    assert names.split() == ["actor", "attempt", "began", "duration", "events", "ended", "replay"]
    assert [row.split()[:2] for row in rows] == [["0", "1"], ["1", "1"], ["2", "1"]]
    assert {tuple(row.split()[-2:]) for row in rows} == {("done", "replays")}
    told = json.loads(inside("replay", failed["id"], "--json", daemon=daemon).stdout)
    assert [one["attempt"] for one in told["attempts"]] == [1, 1, 2, 3, 1]
    assert {one["diverged"] for one in told["attempts"]} == {None}
    assert {one["error"] is None for one in told["attempts"] if one["actor"] == 1} == {False}


def test_of_one_actor_each_event_is_shown_with_what_it_caused(daemon, done):
    told = inside("replay", done["id"], "-a", 1, daemon=daemon)
    assert told.exit_code == 0, told.output
    first, *lines = told.stdout.splitlines()
    assert re.fullmatch(
        r"Actor 1, attempt 1, session \w{8}, began [\d.]+ s after the job was created\.", first
    )
    assert re.fullmatch(r" +0 +\d\.\d{3}  \(begins\)", lines[0])
    assert re.fullmatch(r" +1 +\d\.\d{3}  OK:HELLO", lines[1])
    assert re.fullmatch(r" +> echo:.*from actor 1", lines[2])
    assert lines[-4:] == [" " * 18 + "> quit:", lines[-3], "It replays.", ""]
    assert lines[-3].startswith(" " * 18 + "> (done")
    says = refusal("replay", done["id"], "-a", 3, daemon=daemon)
    assert f"job {done['id']} has no actor 3; it has 3" in says


def test_a_pipeline_that_changed_meanwhile_diverges_with_1(daemon, done, monkeypatch):
    def begin(pipeline, worker):
        return Changed(worker)

    class Changed(CommandListState):
        commandlist = ("echo:another",)

    monkeypatch.setattr(hello.HelloPipeline, "begin", begin)
    told = inside("replay", done["id"], daemon=daemon)
    assert told.exit_code == 1, told.output
    assert told.stdout.startswith("Actor 0, attempt 1 diverges: event 1, ")
    assert "now has effects other than those recorded" in told.stdout
    assert "diverges at event 1" in told.stdout.splitlines()[-1]
    told = inside("replay", done["id"], "-a", 0, daemon=daemon)
    assert told.exit_code == 1
    assert " " * 18 + "! it diverges here" in told.stdout.splitlines()


def test_a_replay_needs_no_daemon_but_its_journal(daemon, done, tmp_path):
    shutil.copy(daemon.home / "journal.db", tmp_path)
    shutil.copy(daemon.home / "journal.db-wal", tmp_path)
    assert inside("--home", tmp_path, "replay", done["id"]).exit_code == 0
    assert "there is no job 'x' in" in refusal("--home", tmp_path, "replay", "x")
    says = refusal("--home", tmp_path / "other", "replay", "last")
    assert f"there is no journal at {tmp_path}/other/journal.db" in says
    says = refusal("--url", daemon.url, "replay", "last", MU_TOKEN=daemon.token)
    assert (
        "this command reads the journal in the daemon's home, so run it on the daemon's machine"
        in says
    )


def test_a_log_is_of_all_actors_or_of_one(daemon, failed):
    told = inside("log", failed["id"], daemon=daemon).stdout
    assert told == daemon.ask(f"/jobs/{failed['id']}/log")
    one = inside("log", failed["id"], "-a", 1, daemon=daemon).stdout
    assert one.startswith("joining ")
    assert "cannot join" in one
    says = refusal("log", failed["id"], "-a", 9, daemon=daemon)
    assert says.startswith(f"mu: job {failed['id']} has ")
    assert "name one, as in mu log" in refusal("log", failed["id"], "-f", daemon=daemon)
    assert inside("log", failed["id"], "-a", 1, "-f", daemon=daemon).stdout == one


def test_a_log_is_followed_until_the_actor_ends(daemon, s3):
    put_film(s3, "cli-log", ["slow\n"] * 2)
    job = inside(*SLOW, "-p", "video=cli-log", daemon=daemon).stdout.strip()
    command = [sys.executable, "-m", "mu.cli", "log", job, "-f"]
    env = ENV | {"MU_HOME": str(daemon.home)}
    following = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
    assert following.stdout.readline().startswith("joining ")
    assert following.poll() is None
    inside("cancel", job, daemon=daemon)
    assert following.communicate(timeout=10) == ("", None)
    assert following.returncode == 0
    wait_until(lambda: not processes("sleep\x00987"))


def test_what_is_not_kept_of_a_log_is_told():
    job = {"id": "x", "workers": 1, "finished": 1.0}
    with answering(
        http("200 OK", json.dumps(job)), http("200 OK", "tail", ["Mu-Log-End: 104"])
    ) as client:
        ended = inside("--url", client.url, "log", "x", "-a", 0, MU_TOKEN="t")
    assert (ended.stdout, ended.exit_code) == ("tail", 0)
    assert ended.stderr == "mu: 100 earlier bytes were dropped (see log_bytes in mu.conf)\n"


def test_a_reader_that_goes_away_is_no_error(daemon, done):
    command = f"{sys.executable} -m mu.cli log {done['id']} | true; echo ${{PIPESTATUS[0]}}"
    env = ENV | {"MU_HOME": str(daemon.home)}
    piped = subprocess.run(["bash", "-c", command], env=env, capture_output=True, text=True)
    assert piped.stderr == ""
    assert piped.stdout in ("141\n", "0\n")


# ---------------------------------------------------------------- on a terminal


class Terminal:
    """A program on a terminal of 80 columns; `seen` is all it wrote."""

    def __init__(self, *args, daemon):
        self._end, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
        env = ENV | {"MU_HOME": str(daemon.home), "TERM": "xterm-256color"}
        command = [sys.executable, "-m", "mu.cli", *map(str, args)]
        self.program = subprocess.Popen(
            command,
            stdin=inner,
            stdout=inner,
            stderr=inner,
            env=env,
            # as a shell's own children; those of one in the background ignore Ctrl-C
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        os.close(inner)
        self.seen = ""

    def read_until(self, word):
        until = time.monotonic() + 15
        while word not in self.plain():
            assert time.monotonic() < until, self.plain()
            self.seen += os.read(self._end, 4096).decode()

    def end(self):
        """Return the exit status."""
        with contextlib.suppress(OSError):  # at the end
            while part := os.read(self._end, 4096):
                self.seen += part.decode()
        os.close(self._end)
        return self.program.wait(10)

    def plain(self):
        """Return it without colours; what was written over stands on lines of its own."""
        moved = re.sub(r"\x1b\[\d*[AK]", "\n", self.seen.replace("\r", ""))
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", moved)


def test_on_a_terminal_a_job_is_watched_live(daemon, s3):
    put_film(s3, "cli-live", ["a\n", "b\n", "slow\n", "slow\n"])
    screen = Terminal(*SLOW, "-p", "video=cli-live", "-n", 2, "--watch", daemon=daemon)
    screen.read_until("1/2")
    screen.read_until("1 Convert (converting and uploading): waiting for OK:RETVAL(0), ")
    assert "━━━━" in screen.seen
    assert "1 running, 1 done" in screen.plain()
    assert inside("cancel", "last", daemon=daemon).exit_code == 0
    assert screen.end() == 3
    assert " was cancelled after " in screen.plain().splitlines()[-1]
    assert max(map(len, screen.plain().splitlines())) <= 80
    assert "\x1b[?25h" in screen.seen  # the cursor is back
    wait_until(lambda: not processes("sleep\x00987"))


def test_ctrl_c_stops_watching_and_not_the_job(daemon, idle):
    screen = Terminal("watch", "last", daemon=daemon)
    screen.read_until("1 waiting")
    screen.program.send_signal(signal.SIGINT)
    assert screen.end() == 130
    assert f"Stopped watching; job {idle['id']} continues." in screen.plain()
    assert "Traceback" not in screen.plain()
    assert daemon.ask(f"/jobs/{idle['id']}")["state"] == "running"


@pytest.mark.parametrize("command", ["jobs", "workers", "replay"])
def test_tables_keep_within_80_columns(daemon, failed, command):
    words = [] if command == "jobs" else [failed["id"]]
    screen = Terminal(command, *words, daemon=daemon)
    assert screen.end() == 0
    lines = screen.plain().splitlines()
    assert max(map(len, lines)) <= 80
    names = {
        "jobs": "job pipeline state workers created duration",
        "workers": "actor state attempt at last event last",
        "replay": "actor attempt began duration events ended replay",
    }
    (header,) = [line for line in lines if line.startswith(("job ", "actor "))]
    assert header.split()[: len(names[command].split())] == names[command].split()
    row = [line for line in lines if line.startswith((f"{failed['id']} ", "1 "))][-1]
    assert [word for word in ("failed", "ago", "just now", "replays") if word in row] != ["failed"]


def test_a_terminal_obeys_no_worker():
    assert (
        text.clean("a\x1b]0;title\x07b\tc\nd\u202e\udcff")
        == "a\ufffd]0;title\ufffdb c\nd\ufffd\ufffd"
    )


def test_times_are_as_people_say_them():
    seconds = [0.051, 0.999, 5.94, 12.3, 59.4, 60, 185, 3600, 7800, 90000]
    assert [text.span(s) for s in seconds] == [
        *("0.05 s", "1.0 s", "5.9 s", "12 s", "59 s", "1 min", "3 min 5 s"),
        *("1 h", "2 h 10 min", "1 d 1 h"),
    ]
    assert [text.ago(s) for s in (-5, 0.2, 12.9, 60, 7300, 200000)] == [
        *("just now", "just now", "12 s ago", "1 min ago", "2 h ago", "2 d ago"),
    ]


def actor(number, state="running", **more):
    told = {"actor": number, "state": state, "label": "Convert", "attempt": 1, "since": 100.0}
    told |= {"waits_for": None, "last_reply": "", "error": None, "result": None, "failures": []}
    return told | more


def failure(attempt, error):
    return {"attempt": attempt, "at": 1.0, "label": "", "last_reply": "", "error": error}


ENDED = {"id": "x", "state": "failed", "error": "1 of 3 actors failed: actor 3: why"}


def shown(parts):
    return [str(getattr(part, "renderable", part)) for part in parts]


def test_the_same_failure_of_many_is_told_once():
    gone = "Convert: its worker at 127.0.0.1:{} is gone: it closed the connection"
    lost = [actor(n, "failed", error=gone.format(5000 + n)) for n in (0, 1, 2, 5)]
    other = [actor(n + 10, "failed", error=f"e{n}") for n in range(9)]
    told = shown(failures.failures(other + lost, ENDED))
    assert told[0] == "4 actors (0-2, 5) failed:"
    assert told[1] == "Convert: its worker is gone: it closed the connection"
    assert told[2:4] == ["Actor 10 failed:", "e0"]
    assert told[-2] == "5 more actors failed: mu workers x --state failed"


def test_a_failure_comes_with_the_last_reply_and_the_failures_before_it():
    late = "Convert: its worker took longer than 4 s"
    before = [failure(0, "no worker came"), failure(1, late.replace("4", "5")), failure(2, late)]
    one = actor(3, "failed", error=f"{late} (after 3 attempts)", failures=before)
    told = shown(failures.failures([one | {"last_reply": "OK:SET(a)"}], ENDED))
    assert told[:2] == ["Actor 3 failed:", f"{late} (after 3 attempts)"]
    assert told[2:-1] == [
        "Last reply: 'OK:SET(a)'",
        "Before the first attempt: no worker came",  # attempt 1 is the same but for a number
    ]
    said = one | {"error": "expected 'x', but the worker answered 'OK:SET(a)'", "failures": []}
    assert len(failures.failures([said | {"last_reply": "OK:SET(a)"}], ENDED)) == 3


def test_those_that_were_stopped_with_the_job_come_last():
    stopped = [actor(n, "failed", error=f"Convert: {ENDED['error']}") for n in range(2)]
    told = shown(failures.failures([*stopped, actor(3, "failed", error="Convert: why")], ENDED))
    assert told == [
        *("Actor 3 failed:", "Convert: why"),
        *("2 actors (0-1) failed:", "Convert: stopped when the job ended"),
        "Output of actor 3: mu log x -a 3",
    ]
    told = text.ended(ENDED | {"created": 1.0, "finished": 2.0, "workers": 3})
    assert told == "Job x failed after 1.0 s: 1 of 3 actors failed."


def test_who_was_tried_again_is_told_with_the_reason():
    again = [actor(n, failures=[failure(1, "gone")], attempt=2) for n in (1, 2)]
    assert shown(failures.retried([actor(0), *again])) == [
        "2 actors (1-2) were retried:",
        "gone",
    ]


def test_what_is_waited_for_and_how_long_is_told():
    actors = [actor(n, waits_for="OK:RETVAL(0)", since=100.0 - n) for n in range(3)]
    actors += [actor(3, "waiting", label="", waits_for="a worker"), actor(4, "done", label="Final")]
    assert progress.waits(actors, 105.0) == [
        (3, "Convert: waiting for OK:RETVAL(0), up to 7.0 s"),
        (1, "waiting for a worker, 5.0 s"),
    ]


def test_a_failed_actor_is_shown_at_the_state_before():
    table = tables.workers_table(
        [
            actor(0, "failed", label="ErrorState why: so", error="Convert (a): why: so"),
            actor(1, "failed", label="Fetch", error="a fault"),
        ],
        100.0,
    )
    assert [str(cell) for cell in table.columns[2].cells] == ["Convert (a)", "Fetch"]
    assert [column.header for column in table.columns] == [
        *("actor", "state", "at", "last event", "last reply")
    ]


# ---------------------------------------------------------------- finding the daemon


def home_with(folder, ports='{"control": 1}', token="t0ken"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ports.json").write_text(ports)
    (folder / "token").write_text(token)
    return folder


def test_a_home_is_told_or_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setattr(
        "mu.cli.address.CONFIGS", (Path("etc/mu.conf"), tmp_path / "system" / "mu.conf")
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


def test_options_may_stand_before_or_behind_the_command(daemon, done):
    for words in (["--home", daemon.home, "jobs"], ["jobs", "--home", daemon.home]):
        assert done["id"] in inside(*words).stdout
    assert done["id"] in inside("jobs", "--config", daemon.conf).stdout
    by_url = inside("jobs", "--url", daemon.url, MU_TOKEN=daemon.token)
    assert done["id"] in by_url.stdout
    says = refusal("--home", "x", "jobs", "--url", "http://x")
    assert "--home and --url cannot be combined" in says


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
def test_a_url_that_cannot_be_used_is_refused(url, token, says):
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


def test_a_configuration_that_is_wrong_is_refused(tmp_path):
    assert "/no.conf" in refusal("--config", tmp_path / "no.conf", "jobs")
    (tmp_path / "mu.conf").write_text("[mu]\nhoem = x\n")
    assert "unknown option 'hoem' in [mu]" in refusal("--config", tmp_path / "mu.conf", "jobs")


def test_a_stale_ports_file_is_told_from_a_running_daemon(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    home = home_with(tmp_path, f'{{"control": {port}}}')
    says = refusal("--home", home, "jobs", status=4)
    assert f"although ports.json names port {port}: the daemon was killed" in says
    assert "Its running jobs resume when it is started again, with twistd -n mu" in says


@pytest.mark.parametrize("ports", ["", "{", "[]", "{}", '{"control": "1"}', '{"control": 70000}'])
def test_a_ports_file_that_is_none_says_what_to_do(tmp_path, ports):
    says = refusal("--home", home_with(tmp_path, ports), "jobs", status=4)
    assert f"{tmp_path}/ports.json does not contain the control port" in says


def test_a_wrong_token_is_told(daemon, tmp_path):
    home = home_with(tmp_path, json.dumps(daemon.ports), "wrong")
    says = refusal("--home", home, "jobs")
    assert f"rejected the token in {tmp_path}/token" in says
    says = refusal("--url", daemon.url, "jobs", MU_TOKEN="wrong")
    assert f"{daemon.url} rejected the token in MU_TOKEN" in says


def test_a_missing_or_broken_token_is_told(tmp_path):
    home = home_with(tmp_path, token="two words")
    assert f"{home}/token does not contain a token" in refusal("--home", home, "jobs")
    (home / "token").unlink()
    assert f"{home}/token is missing, although ports.json exists" in refusal("--home", home, "jobs")


@pytest.mark.parametrize("name", ["ports.json", "token"])
def test_another_users_home_is_told(tmp_path, monkeypatch, name):
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


# ---------------------------------------------------------------- a daemon that goes away


def http(status, body, headers=()):
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", body]
    return "\r\n".join(lines).encode()


@contextlib.contextmanager
def answering(*answers, timeout_s=10.0):
    """A client of what gives these answers, one to each connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"

        def serve():
            for answer in answers:
                line, _ = server.accept()
                with line:
                    line.recv(65536)
                    if answer is None:
                        asked.wait(10)
                    else:
                        line.sendall(answer)

        asked = threading.Event()
        thread = threading.Thread(target=serve)
        thread.start()
        client = Client(Address(url, "t", "not there", "not yours"), timeout_s)
        client.url = url
        try:
            yield client
        finally:
            asked.set()
            thread.join()


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"", "was lost before its answer was complete"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[",
            "was lost before its answer was complete",
        ),
        (b"SSH-2.0-server\r\n", "was lost before its answer was complete"),
        (http("200 OK", "<html>"), "is not a mu daemon: its answer is not JSON"),
        (http("200 OK", "{}"), "is not a mu daemon: its answer is not a JSON list"),
        (http("404 Not Found", "<html>"), "is not a mu daemon: it answered with HTTP status 404"),
        (http("301 Moved", "", ["Location: http://x/"]), "it answered with HTTP status 301"),
        (
            http("500 Oh", '{"error": {"message": "a fault in mu; its log says more"}}'),
            "failed: a fault in mu; its log says more",
        ),
    ],
)
def test_what_is_no_answer_is_told(answer, says):
    with answering(answer) as client, pytest.raises(DaemonUnreachable) as lost:
        client.jobs()
    assert says in str(lost.value)


def test_a_daemon_that_does_not_answer_is_given_up():
    with answering(None, timeout_s=0.2) as client, pytest.raises(DaemonUnreachable) as lost:
        client.jobs()
    assert "did not answer within 0.2 s" in str(lost.value)


def test_nothing_that_listens_is_no_daemon():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    with pytest.raises(NotRunning, match="not there"):
        Client(Address(url, "t", "not there", "")).jobs()
    assert f"nothing listens at {url}" in refusal("--url", url, "jobs", status=4, MU_TOKEN="t")


def test_an_order_whose_answer_is_lost_may_have_been_taken():
    pipelines = http("200 OK", json.dumps([{"name": "hello", "parameters": []}]))
    words = ["launch", "hello", "--idempotency-key", "k"]
    with answering(pipelines, b"") as client:
        says = refusal("--url", client.url, *words, status=4, MU_TOKEN="t")
    assert "The job may have been started all the same: check with `mu jobs`, or repeat" in says


def test_a_daemon_that_dies_ends_its_watching_with_4(own_daemon, tmp_path):
    words = ["launch", "hello", "--engine", "external", "--json"]
    job = json.loads(inside(*words, daemon=own_daemon).stdout)["id"]
    screen = Terminal("watch", job, daemon=own_daemon)
    screen.read_until("1 waiting")
    own_daemon.process.kill()
    assert screen.end() == 4
    assert f"mu: no daemon is running for home {own_daemon.home}, although" in " ".join(
        screen.plain().split()
    )
    assert "Traceback" not in screen.plain()
    assert f"Job {job} resumes once the daemon is back" in screen.plain()
    again = Daemon(tmp_path, conf=own_daemon.conf.read_text())  # it goes on with the job
    screen = Terminal("watch", job, daemon=again)
    screen.read_until("1 waiting")
    again.stop()
    assert screen.end() in (3, 4)
    assert f"no daemon is running for home {again.home}:" in refusal("jobs", daemon=again, status=4)


def test_a_job_that_was_forgotten_ends_its_watching():
    job = {"id": "x", "pipeline": "p", "workers": 1, "engine": "e", "state": "running"}
    job |= {"counts": {"running": 0, "failed": 0}, "created": 0.0, "finished": None}
    gone = http("404 Not Found", '{"error": {"message": "there is no job", "field": null}}')
    with answering(http("200 OK", json.dumps(job)), gone) as client:
        ended = inside("--url", client.url, "watch", "x", MU_TOKEN="t")
    assert ended.exit_code == 4
    assert "job x is no longer known: the daemon dropped it" in ended.stderr
    assert "resumes" not in ended.stderr


def test_a_job_that_could_not_be_resumed_is_shown_though_it_lacks_fields():
    """As older daemons describe one whose pipeline was not installed at their restart."""
    job = {"id": "ab12", "pipeline": "gone", "workers": 2, "state": "failed", "params": {}}
    job |= {"counts": dict.fromkeys(("waiting", "running", "done", "failed"), 0)}
    job |= {"created": 10.0, "finished": 12.0, "cost_usd": None, "result": None}
    job |= {"error": "pipeline 'gone' is not installed"}
    told, listed = http("200 OK", json.dumps(job)), http("200 OK", json.dumps([job]))
    with answering(told, listed, told, http("200 OK", "[]")) as client:
        watched, jobs, workers = (
            inside("--url", client.url, *words, MU_TOKEN="t")
            for words in (["watch", "ab12"], ["jobs"], ["workers", "ab12"])
        )
    assert watched.exit_code == 1, watched.output
    assert watched.stdout == (
        "Job ab12: gone with 2 workers\n"
        "Job ab12 failed after 2.0 s: pipeline 'gone' is not installed\n"
    )
    assert jobs.stdout.startswith("Job ab12 failed: pipeline 'gone' is not installed\n")
    assert workers.stdout == "Job ab12 has no actors.\n"


# ---------------------------------------------------------------- init, help, start


def test_init_writes_the_shipped_configuration_and_a_unit(tmp_path):
    folder = tmp_path / "a b" / "100%"
    made = inside("init", folder)
    assert made.exit_code == 0, made.output
    assert (folder / "mu.conf").read_bytes() == (ROOT / "etc" / "mu.conf").read_bytes()
    unit = (folder / "mu.service").read_text()
    (start,) = [line for line in unit.splitlines() if line.startswith("ExecStart=")]
    escaped = str(folder / "mu.conf").replace("%", "%%")
    assert start.endswith(f'/twistd -n --pidfile= mu --config "{escaped}"')
    assert f"/twistd -n --pidfile= mu --config '{folder}/mu.conf'" in made.stdout


def test_init_overwrites_nothing_unless_forced(tmp_path):
    (tmp_path / "mu.service").write_text("mine")
    says = refusal("init", tmp_path)
    assert f"already there: {tmp_path}/mu.service. Use --force to overwrite" in says
    assert os.listdir(tmp_path) == ["mu.service"]
    assert inside("init", tmp_path, "--force").exit_code == 0
    assert (tmp_path / "mu.service").read_text() != "mine"
    (tmp_path / "file").touch()
    assert "cannot write " in refusal("init", tmp_path / "file" / "x")


@pytest.mark.parametrize("command", sorted(cli.commands))
def test_every_commands_help_has_examples(command):
    told = inside(command, "--help").stdout
    assert "Examples:\n    mu " in told
    assert max(map(len, told.splitlines())) <= 80


def test_the_exit_statuses_are_in_the_help_and_the_docs():
    told = inside("--help").stdout
    for status in ("0  success", "1  the job failed", "2  ", "3  the job was cancelled", "4  "):
        assert f"    {status}" in told
    docs = (ROOT / "docs" / "cli.md").read_text()
    assert [row for row in "01234" if f"| {row} |" not in docs] == []


def test_the_version_is_told():
    assert run("--version").stdout == f"mu {mu.__version__}\n"


def test_it_starts_without_what_only_the_daemon_needs():
    heavy = {"twisted", "boto3", "botocore", "klein", "cryptography", "OpenSSL", "rich"}
    asked = "import sys, mu.cli.commands; print(*{name.partition('.')[0] for name in sys.modules})"
    ended = subprocess.run(
        [sys.executable, "-c", asked], capture_output=True, text=True, check=True
    )
    assert not heavy & set(ended.stdout.split())
    asked = (
        "import mu.cli.client, mu.cli.watch, mu.cli.display.tables, mu.cli.display.attempts, "
        + asked.removeprefix("import ")
    )
    ended = subprocess.run(
        [sys.executable, "-c", asked], capture_output=True, text=True, check=True
    )
    assert heavy & set(ended.stdout.split()) == {"rich"}
