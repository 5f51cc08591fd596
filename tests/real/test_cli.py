"""The command line against a real daemon."""

import contextlib
import fcntl
import json
import os
import pty
import re
import shutil
import signal
import stat
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from kit.cli import ENV, home_with, inside, refusal, run
from kit.film import put_film, wait_until
from kit.local import sleepers
from stage import Daemon

import mu
from mu.pipelines import hello
from mu.states import CommandListState

ROOT = Path(__file__).parents[2]
HELLO = ["launch", "hello", "--function", "png2y4m"]  # any bundle has the worker
SLOW = ["launch", "png2y4m", "-p", "bucket=films", "-p", "frames=2"]


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
    """A job that never gets a worker."""
    job = json.loads(
        inside("launch", "hello", "--engine", "external", "--json", daemon=daemon).stdout
    )
    yield job
    daemon.ask(f"/jobs/{job['id']}", method="DELETE")


# ---------------------------------------------------------------- ordering


def test_launch_prints_the_jobs_id_on_stdout_and_a_sentence_on_stderr(daemon):
    ordered = run(*HELLO, "-n", 2, daemon=daemon)
    assert ordered.returncode == 0
    job = ordered.stdout.strip()
    assert daemon.wait(job)["result"] == {"said_hello": 2}
    assert ordered.stderr == (
        f"Job {job}: hello with 2 workers on engine local.\nTo follow it: mu watch {job}\n"
    )


def test_launch_with_watch_ends_with_the_job(daemon):
    ended = run(*HELLO, "-n", 3, "-p", "text=hi", "-p", "rounds=2", "--watch", daemon=daemon)
    assert (ended.returncode, ended.stderr) == (0, "")
    first, *_, result, last = ended.stdout.splitlines()
    assert re.fullmatch(r"Job \w+: hello with 3 workers on engine local", first)
    assert re.fullmatch(r"Job \w+ finished after [\d.]+ s: 3 workers, \$0\.0\d+\.", last)
    assert result == "  said_hello: 3"


def test_every_option_of_launch_reaches_the_daemon(daemon):
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


def test_an_event_is_printed_or_written_to_a_private_file(daemon, tmp_path):
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


def test_no_job_starts_if_its_event_cannot_be_written(daemon, tmp_path):
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
            "-p frames must be a whole number between 1 and 10000, got 'six'",
        ),
        (["png2y4m", "-p", "frames=0"], "between 1 and 10000, got '0'"),
        (["png2y4m", "-p", "frames"], "-p must be NAME=VALUE, got 'frames'"),
        (["png2y4m", "-p", "frames=1", "-p", "frames=2"], "-p frames is given twice"),
        (["pgn2y4m"], "unknown pipeline 'pgn2y4m'; did you mean 'png2y4m'? The pipelines are "),
        (["hello", "-n", 0], "the order was refused: workers must be between 1"),
        (["hello", "--engine", "ferry"], "'ferry'"),
        (
            ["hello", "--deadline", "nan"],
            "the order was refused: deadline_s must be a finite number",
        ),
        (["hello", "--actors", "0,x"], "--actors must be numbers such as 0,7,12-15, got '0,x'"),
        (["hello", "--actors", "-3"], "--actors must be numbers"),
        (
            ["hello", "--actors", "0-99999999999"],
            "--actors may name 1000000 actors, got '0-99999999999'",
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
def test_an_invalid_order_is_refused_with_a_sentence(daemon, words, says):
    assert says in refusal("launch", *words, daemon=daemon)


def test_single_actors_are_run_and_followed_by_their_numbers(daemon):
    words = ["--actors", "2, 5-6", "-n", 9, "--watch", "--json"]
    told = inside(*HELLO, *words, daemon=daemon).stdout.splitlines()[-1]
    job = json.loads(told)
    assert (job["state"], job["workers"]) == ("done", 3)
    actors = json.loads(inside("workers", job["id"], "--json", daemon=daemon).stdout)
    assert [actor["actor"] for actor in actors] == [2, 5, 6]
    assert inside("log", job["id"], "-a", 5, "-f", daemon=daemon).exit_code == 0
    says = refusal("log", job["id"], "-f", daemon=daemon)
    assert f"choose one, for example mu log {job['id']} -a 2 -f" in says
    job = json.loads(
        inside(*HELLO, "--actors", 4, "-w", "--json", daemon=daemon).stdout.splitlines()[-1]
    )
    assert inside("log", job["id"], "-f", daemon=daemon).exit_code == 0


# ---------------------------------------------------------------- which job


@pytest.mark.parametrize("command", ["watch", "workers", "log", "cancel"])
@pytest.mark.parametrize("name", ["nothing", "../pipelines", "?x", "é"])
def test_an_unknown_job_is_refused(daemon, done, command, name):
    assert f"there is no job {name!r}" in refusal(command, name, daemon=daemon)


# ---------------------------------------------------------------- showing


def test_watching_a_job_that_is_done_ends_with_0(daemon, done):
    assert run("watch", done["id"][:6], daemon=daemon).returncode == 0


def test_watching_a_failed_job_ends_with_1_and_shows_each_failure(daemon, failed):
    ended = run("watch", failed["id"], daemon=daemon)
    assert (ended.returncode, ended.stderr) == (1, "")
    _, actor, error, hint, *result, last = ended.stdout.splitlines()
    assert actor == "Actor 1 failed:"
    assert error.startswith("  Convert (converting and uploading): expected 'OK:RETVAL(0)'")
    assert "cannot join" in error
    assert hint == f"Output of actor 1: mu log {failed['id']} -a 1"
    assert result[:2] == ["Result:", "  keys:"], "it is kept, and written out"
    assert result[-1] == f"To run what failed again: mu rerun {failed['id']}"
    assert last.endswith(" s: 1 of 3 actors failed.")


def test_rerun_starts_a_job_with_what_failed_and_the_changes(daemon, failed):
    ended = run("rerun", failed["id"], "--retries", 0, "-p", "offset=0", "-w", daemon=daemon)
    assert ended.returncode == 1
    first, *_, last = ended.stdout.splitlines()
    assert first.endswith(f"with 1 worker on engine local, a rerun of job {failed['id']}")
    assert last.endswith(" s: 1 of 3 actors failed."), "it has the others' outcomes"
    refused = run("rerun", failed["id"], "-p", "frame=1", daemon=daemon)
    assert "did you mean 'frames'?" in refused.stderr


def test_watching_a_cancelled_job_ends_with_3(daemon, idle):
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
    told, _ = watching.communicate(timeout=120)
    assert watching.returncode == 3
    hint, last = told.splitlines()[-2:]
    assert hint == f"To run what was not done: mu rerun {idle['id']}"
    assert "was cancelled after " in last
    again = inside("cancel", "last", daemon=daemon)
    assert again.stdout == f"Job {idle['id']} had already ended: cancelled.\n"


def test_jobs_are_listed_with_their_failures_above(daemon, done, failed):
    listed = inside("jobs", daemon=daemon).stdout
    assert listed.index(f"Job {failed['id']} failed: 1 of 3 actors failed") < listed.index("job  ")
    (row,) = [line for line in listed.splitlines() if line.startswith(f"{failed['id']} ")]
    assert re.search(r"png2y4m +failed +6/6, 2 failed +\d+ s +[\d.]+ s", row)
    (job,) = json.loads(inside("jobs", "--limit", 1, "--json", daemon=daemon).stdout)
    assert job == daemon.ask("/jobs")[-1]


def test_workers_are_listed_with_failures_first(daemon, failed):
    listed = inside("workers", failed["id"], daemon=daemon).stdout
    assert listed.startswith("Actor 1 failed:\n")
    table, _, used = listed.partition("\nactor ")[2].partition("\n\n")
    rows = [line.split()[:2] for line in table.splitlines()[1:]]
    assert rows == [["1", "failed"], ["0", "done"], ["2", "done"]]
    assert used.startswith("Used: CPU ")
    some = inside("workers", failed["id"], "--state", "done", daemon=daemon).stdout
    assert "failed" not in some
    none = inside("workers", failed["id"], "--state", "waiting", daemon=daemon).stdout
    assert none == f"No actor of job {failed['id']} is waiting.\n"


def test_json_is_that_of_the_control_port(daemon, done, failed):
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
    assert re.search(r"frames +6 +a whole number between 1 and 10000 +\w+", page)
    assert "Example: mu launch png2y4m -n 5 --watch" in page
    assert "did you mean 'hello'?" in refusal("pipelines", "helo", daemon=daemon)


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


def test_with_an_actor_replay_shows_each_event_with_its_effects(daemon, done):
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


def test_replaying_with_a_changed_pipeline_diverges_and_ends_with_1(daemon, done, monkeypatch):
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


def test_a_replay_needs_the_journal_but_no_daemon(daemon, done, tmp_path):
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
    assert "choose one, for example mu log" in refusal("log", failed["id"], "-f", daemon=daemon)
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
    assert following.communicate(timeout=120) == ("", None)
    assert following.returncode == 0
    wait_until(lambda: not sleepers(daemon.home))


def test_a_closed_pipe_is_not_an_error(daemon, done):
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
        until = time.monotonic() + 60
        while word not in self.plain():
            assert time.monotonic() < until, self.plain()
            self.seen += os.read(self._end, 4096).decode()

    def end(self):
        """Return the exit status."""
        with contextlib.suppress(OSError):  # at the end
            while part := os.read(self._end, 4096):
                self.seen += part.decode()
        os.close(self._end)
        return self.program.wait(60)

    def plain(self):
        """Return it without colours; text that was overwritten is on lines of its own."""
        moved = re.sub(r"\x1b\[\d*[AK]", "\n", self.seen.replace("\r", ""))
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", moved)


def test_what_workers_print_does_not_reach_a_terminal_as_commands(daemon):
    printed = r"printf 'a\033[2J\033]0;t\007b\000c\342\200\256d\377 10%%\r20%%\n'"
    words = ["launch", "linpack", "--function", "png2y4m", "-p", "copies=1", "-p"]
    job = inside(*words, f"command={printed}", "-w", "--json", daemon=daemon).stdout.splitlines()[
        -1
    ]
    told = json.loads(job)
    assert told["result"]["runs"][0]["output"].endswith("d\ufffd 10%\r20%\n")
    raw = run("log", told["id"], "-a", 0, daemon=daemon, text=False).stdout
    assert raw == b"a\x1b[2J\x1b]0;t\x07b\0c\xe2\x80\xaed\xff 10%\r20%\n"
    for words in (["log", told["id"]], ["log", told["id"], "-a", 0, "-f"]):
        screen = Terminal(*words, daemon=daemon)
        assert screen.end() == 0
        assert "ab\ufffdc\ufffdd\ufffd 10%\r\n20%\r\n" in screen.seen
        assert "\x1b" not in screen.seen


def test_on_a_terminal_a_job_is_watched_live(daemon, s3):
    put_film(s3, "cli-live", ["a\n", "b\n", "slow\n", "slow\n"])
    screen = Terminal(*SLOW, "-p", "video=cli-live", "-n", 2, "--watch", daemon=daemon)
    screen.read_until("3/4")
    screen.read_until("1 Convert (converting and uploading): waiting for a program to end, ")
    assert "━━━━" in screen.seen
    assert "1 running, 1 done" in screen.plain()
    assert inside("cancel", "last", daemon=daemon).exit_code == 0
    assert screen.end() == 3
    assert " was cancelled after " in screen.plain().splitlines()[-1]
    assert max(map(len, screen.plain().splitlines())) <= 80
    assert "\x1b[?25h" in screen.seen  # the cursor is back
    wait_until(lambda: not sleepers(daemon.home))


def test_ctrl_c_stops_watching_and_not_the_job(daemon, idle):
    screen = Terminal("watch", "last", daemon=daemon)
    screen.read_until("1 waiting")
    screen.program.send_signal(signal.SIGINT)
    assert screen.end() == 130
    assert f"Stopped watching; job {idle['id']} continues." in screen.plain()
    assert "Traceback" not in screen.plain()
    assert daemon.ask(f"/jobs/{idle['id']}")["state"] == "running"


@pytest.mark.parametrize("command", ["jobs", "workers", "replay"])
def test_tables_fit_into_80_columns(daemon, failed, command):
    words = [] if command == "jobs" else [failed["id"]]
    screen = Terminal(command, *words, daemon=daemon)
    assert screen.end() == 0
    lines = screen.plain().splitlines()
    assert max(map(len, lines)) <= 80
    names = {
        "jobs": "job pipeline state progress age duration",
        "workers": "actor state attempt inputs at heard",
        "replay": "actor attempt began duration events ended replay",
    }
    (header,) = [line for line in lines if line.startswith(("job ", "actor "))]
    assert header.split()[: len(names[command].split())] == names[command].split()
    row = [line for line in lines if line.startswith((f"{failed['id']} ", "1 "))][-1]
    assert [word for word in ("failed", "ago", "just now", "replays", " s") if word in row] != [
        "failed"
    ]


# ---------------------------------------------------------------- finding the daemon


def test_options_may_come_before_or_after_the_command(daemon, done):
    for words in (["--home", daemon.home, "jobs"], ["jobs", "--home", daemon.home]):
        assert done["id"] in inside(*words).stdout
    assert done["id"] in inside("jobs", "--config", daemon.conf).stdout
    by_url = inside("jobs", "--url", daemon.url, MU_TOKEN=daemon.token)
    assert done["id"] in by_url.stdout
    says = refusal("--home", "x", "jobs", "--url", "http://x")
    assert "--home and --url cannot be combined" in says


def test_a_wrong_token_is_reported(daemon, tmp_path):
    home = home_with(tmp_path, json.dumps(daemon.ports), "wrong")
    says = refusal("--home", home, "jobs")
    assert f"rejected the token in {tmp_path}/token" in says
    says = refusal("--url", daemon.url, "jobs", MU_TOKEN="wrong")
    assert f"{daemon.url} rejected the token in MU_TOKEN" in says


# ---------------------------------------------------------------- a daemon that goes away


def test_watching_goes_on_after_a_restart_and_ends_with_4_if_there_is_none(own_daemon, tmp_path):
    words = ["launch", "hello", "--engine", "external", "--json"]
    job = json.loads(inside(*words, daemon=own_daemon).stdout)["id"]
    patient = Terminal("watch", job, daemon=own_daemon)
    patient.read_until("1 waiting")
    screen = Terminal("watch", job, "--patience", "1", daemon=own_daemon)
    screen.read_until("1 waiting")
    own_daemon.process.kill()
    assert screen.end() == 4
    assert f"mu: no daemon is running for home {own_daemon.home}, although" in " ".join(
        screen.plain().split()
    )
    assert "Traceback" not in screen.plain()
    assert f"Job {job} resumes once the daemon is back" in screen.plain()
    patient.read_until("Waiting for the daemon: ")
    again = Daemon(tmp_path, conf=own_daemon.conf.read_text())  # it goes on with the job
    patient.read_until("1 waiting")
    assert inside("cancel", job, daemon=again).exit_code == 0
    assert patient.end() == 3
    assert max(map(len, patient.plain().splitlines())) <= 80
    again.stop()
    assert f"no daemon is running for home {again.home}:" in refusal("jobs", daemon=again, status=4)


def test_the_version_is_printed():
    assert run("--version").stdout == f"mu {mu.__version__}\n"


# ---------------------------------------------------------------- completion

COMPLETE = """
eval "$(_MU_COMPLETE=bash_source mu)"
compopt() { echo compopt "$@"; }
complete_words() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _mu_completion mu; echo "${COMPREPLY[@]}"; }
complete_words mu launch png2y4m -p vid
complete_words mu watch "$1"
"""


def test_bash_completes_the_names_of_a_running_daemon(daemon, done, tmp_path):
    program = tmp_path / "mu"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m mu.cli "$@"\n')
    program.chmod(0o755)
    env = ENV | {"MU_HOME": str(daemon.home), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    ran = subprocess.run(
        ["bash", "-c", COMPLETE, "bash", done["id"][:6]], env=env, capture_output=True, text=True
    )
    assert ran.stdout.split() == ["compopt", "-o", "nospace", "video=", done["id"]]
    assert ran.stderr == ""
