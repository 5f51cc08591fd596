"""Files in, files out: a folder of this machine is a job's input, and another one gets its output.

The daemon `mine` has a machine with nothing but mu; `other` has another S3 server, which mu.conf names.
"""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import textwrap
from pathlib import Path

import pytest
from kit.film import wait_until
from kit.machine import BIN, Machine
from stage import free_ports_conf

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "data.md").read_text()


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    made = Machine(tmp_path_factory.mktemp("mine"))
    yield made
    made.daemon.stop()


def commands(heading):
    """Return the indented blocks under a heading of docs/data.md, as a shell script."""
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    blocks = re.findall(r"(?:^    .*\n)+", section, re.MULTILINE)
    return "set -e\n" + "".join(map(textwrap.dedent, blocks))


UPPER = "command=tr a-z A-Z < {in} > {out}"


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_commands_of_the_page_work_on_a_machine_with_nothing_but_mu(mine):
    done = mine.run(commands("From a folder to a folder"))
    assert done.returncode == 0, done.stderr
    assert "Uploaded 2 files (21 bytes) to s3://mu_files/lists-" in done.stderr
    assert done.stdout.count(" finished after ") == 2
    user = mine.folder / "user"
    assert contents(user / "sorted") == {
        "my fruit.txt": "apple\npear\n",
        "trees.txt": "birch\noak\n",
    }
    assert contents(user / "sizes") == {"my fruit.txt": "11\n", "trees.txt": "10\n"}


def test_only_what_has_changed_is_copied_and_what_is_gone_is_no_input(mine):
    user = mine.folder / "user"
    folder = mine.files("photos", {f"day {n}/{n}.txt": f"photo {n}\n" for n in range(4)})
    launch = ("launch", "map", "--in", "photos", "--out", "thumbs", "-n", "2", "-p", UPPER)
    status, _, told = mine.mu(*launch)
    assert (status, told.count("Uploaded 4 files (32 bytes)")) == (0, 1), told
    assert "Downloaded 4 files (32 bytes) to thumbs." in told

    (folder / "day 0" / "0.txt").unlink()
    (folder / "day 1" / "1.txt").write_text("PHOTO 1\n")  # of the same size
    older = folder / "day 2" / "new"
    older.write_text("photo 9\n")
    os.utime(older, (1, 1))
    older.rename(folder / "day 2" / "2.txt")
    status, _, told = mine.mu(*launch)
    assert status == 0
    assert re.search(r"Uploaded 2 files .*; 1 up to date; 1 deleted there\.", told), told
    assert "Downloaded 3 files" in told
    assert contents(user / "thumbs") == {
        "day 0/0.txt": "PHOTO 0\n",  # what the job did not make stays
        "day 1/1.txt": "PHOTO 1\n",
        "day 2/2.txt": "PHOTO 9\n",
        "day 3/3.txt": "PHOTO 3\n",
    }
    (user / "thumbs" / "day 1" / "1.txt").write_text("garbage\n")
    status, _, told = mine.mu("fetch", "last", "--to", "thumbs")
    assert (status, "Downloaded 1 file (8 bytes) to thumbs; 2 up to date." in told) == (0, True)
    assert (user / "thumbs" / "day 1" / "1.txt").read_text() == "PHOTO 1\n"

    first, second = (job["id"] for job in mine.daemon.ask("/jobs")[-2:])
    status, _, told = mine.mu("fetch", first)
    assert (status, f"a later job, {second}, has written to the same place" in told) == (2, True)


def test_a_file_as_out_is_for_pipelines_with_one_result(mine):
    mine.files("few", {"a": "pear\n", "b": "apple\n"})
    launch = ("launch", "map", "--in", "few", "--out", "few/a", "-p", UPPER)
    status, _, told = mine.mu(*launch)
    assert (status, "is a file: map may make several, so name a folder" in told) == (2, True)
    merged = ("-p", UPPER, "-p", "reduce=cat {in} > {out}")
    status, _, told = mine.mu("launch", "mapreduce", "--in", "few", "--out", "one.txt", *merged)
    assert (status, "Downloaded 1 file (11 bytes) to one.txt." in told) == (0, True), told
    assert (mine.folder / "user" / "one.txt").read_text() == "PEAR\nAPPLE\n"


def test_a_job_that_fails_still_brings_what_it_made_and_its_status(mine):
    mine.files("some", {"good": "good\n", "bad": "bad\n"})
    command = "command=grep good {in} > {out} || exit 7"
    order = ("launch", "map", "--in", "some", "--out", "found", "--retries", "0", "-p", command)
    mine.mu(*order, "-p", "on_error=keep")
    assert contents(mine.folder / "user" / "found") == {"good": "good\n"}
    status, _, told = mine.mu(*order, "-p", "on_error=fail")
    assert status == 1, told


def test_a_file_that_becomes_a_folder_and_a_folder_that_becomes_a_file_are_uploaded(mine):
    folder = mine.files("swap", {"x": "a file\n", "y/z": "in a folder\n"})
    launch = ("launch", "map", "--in", "swap", "--out", "swapped", "-p", UPPER)
    assert mine.mu(*launch)[0] == 0
    (folder / "x").unlink()
    shutil.rmtree(folder / "y")
    mine.files("swap", {"x/a": "in a folder\n", "y": "a file\n"})
    status, out, told = mine.mu(*launch)
    assert status == 1  # what the last job made is in the way, and is not deleted
    assert "Uploaded 2 files (19 bytes)" in told
    assert "/x' cannot be a file and a folder" in out
    shutil.rmtree(mine.folder / "user" / "swapped")
    assert mine.mu(*launch, "-p", "out_prefix=elsewhere/")[0] == 0
    assert contents(mine.folder / "user" / "swapped") == {"x/a": "IN A FOLDER\n", "y": "A FILE\n"}


def test_what_is_left_out_and_what_cannot_be_held_is_named_before_anything_is_uploaded(mine):
    folder = mine.files("odd", {"plain": "1", "a/b": "2"})
    (folder / "a" / "empty").mkdir()
    (folder / "link").symlink_to("plain")
    (folder / "linked").symlink_to("a")
    os.mkfifo(folder / "pipe")
    before = sorted((mine.daemon.home / "files" / "mu_files").iterdir())
    (folder / "line\nbreak").write_text("3")
    (folder / os.fsdecode(b"latin-\xe9")).write_text("4")
    status, _, told = mine.mu("launch", "map", "--in", "odd", "-p", UPPER)
    assert status == 2
    assert told.splitlines() == [
        "Left out: 4 entries:",
        "  linked (a link)",
        "  link (a link)",
        "  pipe (not a regular file)",
        "  a/empty/ (an empty folder)",
        "mu: S3 cannot hold 2 names; nothing was copied:",
        "  'latin-\\xe9': it is not UTF-8",
        "  'line\\nbreak': it contains control characters",
    ]
    for prefix, why in (("x//", "(//)"), ("/x/", "(//)"), ("../", "file '..'")):
        status, _, told = mine.mu(
            "launch", "map", "--in", "odd", "-p", UPPER, "-p", f"prefix={prefix}"
        )
        assert (status, why in told) == (2, True), told
    assert sorted((mine.daemon.home / "files" / "mu_files").iterdir()) == before


def test_a_file_beside_a_folder_of_its_name_is_named_before_anything_is_uploaded(mine):
    mine.files("one", {"x": "a file\n"})
    mine.files("two", {"x/y": "below a folder\n", "z": "z\n"})
    given = ("-p", UPPER, "-p", "prefix=shared/", "--watch")
    assert mine.mu("launch", "map", "--in", "one", *given)[0] == 0
    status, _, told = mine.mu("launch", "map", "--in", "two", *given)
    assert status == 2
    assert "'shared/x' cannot be a file and a folder" in told
    assert contents(mine.daemon.home / "files" / "mu_files" / "shared") == {"x": "a file\n"}


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (
            ["launch", "hello", "--in", "plain"],
            "--in is for pipelines with the parameters bucket and",
        ),
        (["launch", "map", "--in", "plain", "--out", "plain/made"], "must not be in --in plain"),
        (["launch", "map", "--in", "plain", "--out", "."], "--in plain must not be in --out"),
        (["launch", "map", "--in", "plain", "-p", 'keys=["a"]'], "cannot be combined"),
        (["launch", "map", "--in", "plain", "--engine", "lambda"], "cannot reach the embedded S3"),
        (["launch", "map", "--in", "none"], "does not exist"),
        (["launch", "map", "--in", "hollow"], "there are no files in --in hollow"),
    ],
)
def test_what_cannot_work_is_refused_with_a_sentence(mine, words, why):
    mine.files("plain", {"a": "1"})
    (mine.folder / "user" / "hollow").mkdir(exist_ok=True)
    status, out, told = mine.mu(*words, *([] if "hello" in words else ["-p", UPPER]))
    assert (status, out) == (2, "")
    assert why in " ".join(told.split()), told


def test_the_embedded_server_is_refused_for_functions_on_aws_also_without_the_command_line(mine):
    order = {"pipeline": "map", "engine": "lambda"}
    order["params"] = {"bucket": "mu_files", "prefix": "x/", "out_prefix": "y/", "command": "true"}
    with pytest.raises(Exception, match="workers of engine lambda cannot reach the embedded S3"):
        mine.daemon.ask("/jobs", order)


def test_a_remote_daemon_has_no_embedded_server_for_this_machine(mine):
    mine.files("plain", {"a": "1"})
    remote = {"MU_TOKEN": mine.daemon.token}
    words = ("--url", mine.daemon.url, "launch", "map", "--in", "plain", "-p", UPPER)
    status, _, told = mine.mu(*words, **remote)
    assert status == 2
    assert "the embedded S3 server is on the daemon's machine" in told
    assert "-p bucket=NAME" in told


def test_the_embedded_servers_key_is_in_no_command_line_and_no_journal(mine):
    assert mine.mu("launch", "map", "--in", str(ROOT / "LICENSE"), "--watch", "-p", UPPER)[0] == 0
    pid, _ = mine.s3_server()
    path = mine.daemon.home / "local" / "s3-key"
    assert path.stat().st_mode & 0o777 == 0o600
    secret = json.loads(path.read_text())["secret_key"].encode()
    assert secret not in Path(f"/proc/{pid}/cmdline").read_bytes()
    assert secret in Path(f"/proc/{pid}/environ").read_bytes()
    journal = b"".join(path.read_bytes() for path in mine.daemon.home.glob("journal.db*"))
    assert b"LICENSE" in journal
    assert secret not in journal


# ---------------------------------------------------------------- how the server lives


def test_the_embedded_server_is_restarted_if_it_dies_and_survives_a_killed_daemon(tmp_path):
    machine = Machine(tmp_path)
    machine.files("in", {"a": "a\n"})
    launch = ("launch", "map", "--in", "in", "--out", "out", "-p", UPPER)
    status, _, told = machine.mu(*launch)
    assert status == 0
    assert "Created function map on the local engine, with the worker alone.\n" in told
    pid, port = machine.s3_server()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: machine.s3_pids() not in ([], [pid]))
    again, same_port = machine.s3_server()
    assert same_port == port

    machine.daemon.process.kill()
    machine.daemon = machine.start()
    assert machine.s3_server() == (again, port)
    shutil.rmtree(tmp_path / "user" / "out")
    assert machine.mu("fetch", "last", "--to", "out")[0] == 0
    assert contents(tmp_path / "user" / "out") == {"a": "A\n"}

    engine = json.loads((machine.daemon.home / "local" / "engine.json").read_text())["pid"]
    os.kill(engine, signal.SIGKILL)  # the server ends with it, and comes back with the next one
    wait_until(lambda: machine.s3_pids() not in ([], [again]))
    wait_until(lambda: machine.mu(*launch)[0] == 0)
    assert machine.s3_server()[1] == port

    machine.daemon.stop()
    assert machine.s3_pids() == []
    assert not (machine.daemon.home / "local" / "s3.json").exists()


# ---------------------------------------------------------------- another S3 server


@pytest.fixture(scope="module")
def other(s3, tmp_path_factory):
    """A daemon whose mu.conf names another S3 server; the keys are in ~/.aws of its user."""
    folder = tmp_path_factory.mktemp("other")
    keys = folder / "credentials"
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    lines = [f"{name.lower()} = {s3.env[name]}" for name in names]
    keys.write_text("\n".join(["[minio]", *lines, ""]))
    conf = f"[s3]\nendpoint = {s3.url}\nregion = eu-central-1\naddressing = path\nprofile = minio\n"
    found = {"AWS_SHARED_CREDENTIALS_FILE": str(keys)}
    made = Machine(folder, found, found, f"{free_ports_conf()}{conf}bucket = films\n")
    yield made
    made.daemon.stop()


def test_the_configured_server_serves_daemon_workers_and_command_line_alike(other, s3):
    other.files("in", {"a": "a\n", "b": "b\n"})
    status, out, told = other.mu(
        "launch", "map", "--in", "in", "--out", "out", "-n", "2", "-p", UPPER
    )
    assert status == 0, out + told
    assert "to s3://films/in-" in told
    assert contents(other.folder / "user" / "out") == {"a": "A\n", "b": "B\n"}
    assert not (other.daemon.home / "files").exists()


def test_a_remote_daemon_whose_server_is_on_its_loopback_address_is_refused(other, s3):
    other.files("in", {"a": "a\n"})
    words = ("--url", other.daemon.url, "launch", "map", "--in", "in", "-p", UPPER)
    status, _, told = other.mu(*words, MU_TOKEN=other.daemon.token)
    assert (status, f"the S3 server at {s3.url} is on the daemon's machine" in told) == (2, True)


def test_a_remote_daemon_and_this_machine_use_a_bucket_that_both_reach(s3, tmp_path):
    machine = Machine(tmp_path, s3.env)
    try:
        machine.daemon.create_function("map", bare_zip(tmp_path))
        machine.files("far", {"a": "a\n"})
        words = ["--url", machine.daemon.url, "launch", "map", "--in", "far", "--out", "out"]
        remote = {**s3.env, "MU_TOKEN": machine.daemon.token, "MU_HOME": ""}
        status, out, told = machine.mu(*words, "-p", UPPER, "-p", "bucket=films", **remote)
        assert status == 0, out + told
        assert contents(tmp_path / "user" / "out") == {"a": "A\n"}
    finally:
        machine.daemon.stop()


def bare_zip(folder):
    from mu.functions.bundle import bundle

    return bundle(folder / "bare.zip").path


# ---------------------------------------------------------------- without credentials


def test_each_process_says_that_it_lacks_credentials_and_where_to_put_them(mine):
    params = ("-p", "bucket=films", "-p", "out_prefix=o/", "-p", UPPER)
    status, out, _ = mine.mu("launch", "map", *params, "-p", "prefix=x/", "--watch")
    assert status == 1
    assert "the daemon has no AWS credentials: put AWS_ACCESS_KEY_ID and AWS_SECRET" in out
    assert "mu.env" in out
    assert "[s3] of mu.conf" in out

    mine.mu("deploy", "--bare", "--name", "map")
    given = ("-p", 'keys=["a"]', "-p", "on_error=fail", "--retries", "0")
    status, out, _ = mine.mu("launch", "map", *params, *given, "--watch")
    assert status == 1
    assert (
        "this worker has no AWS credentials; the local engine takes them from the daemon's" in out
    )

    mine.files("plain", {"a": "1"})
    status, _, told = mine.mu("launch", "map", "--in", "plain", *params)
    assert status == 2
    assert "this command line has no AWS credentials: set AWS_PROFILE, or AWS_ACCESS_KEY_ID" in told


# ---------------------------------------------------------------- large files


@pytest.mark.soak
def test_a_sparse_file_of_6_gb_goes_in_and_out_with_little_memory(mine):
    folder = mine.folder / "user" / "large"
    folder.mkdir()
    with (folder / "sparse.bin").open("wb") as file:
        file.truncate(6 * 10**9)
    order = [BIN / "mu", "launch", "map", "--in", "large", "--out", "back", "-p"]
    told = subprocess.run(  # the worker's /tmp is small, but not for a sparse file
        [*order, "command=truncate -s 6000000000 {out}"],
        env=mine.env,
        cwd=folder.parent,
        timeout=1200,
    )
    assert told.returncode == 0
    pid, _ = mine.s3_server()
    made = mine.folder / "user" / "back" / "sparse.bin"
    assert made.stat().st_size == 6 * 10**9
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert int(peak[1]) < 1024**2
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 1024**2
