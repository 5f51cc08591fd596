"""One line from a program to a job: mu launch --program, --dry-run, and the first steps as printed."""

import json
import re
import shlex
import textwrap
from pathlib import Path

import pytest
from kit.cli import inside
from kit.machine import Machine
from kit.nursery import daemons
from kit.wheels import make_wheel, requirements

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    made = Machine(tmp_path_factory.mktemp("mine"))
    for name, place in {"docs": ROOT / "docs", "examples": ROOT / "examples"}.items():
        (made.folder / "user" / name).symlink_to(place)
    (made.folder / "user" / ".venv").mkdir()
    (made.folder / "user" / ".venv" / "bin").symlink_to(daemons().shims)
    yield made
    made.daemon.stop()


SHOUT = """\
import sys
import shouting
text = open(sys.argv[1]).read()
open(sys.argv[2], "w").write(shouting.shout(text))
"""
SHOUTING = "def shout(text): return text.upper()\n"


@pytest.fixture
def shout(mine):
    """A Python script with one requirement, and three texts: the arguments of one line."""
    user = mine.folder / "user"
    make_wheel(user / "wheels", "shouting", body=SHOUTING)
    requirements(user / "wheels", "shouting")
    mine.files("texts", {"a b.txt": "hello\n", "it's.txt": "you\n", "deep/c.txt": "there\n"})
    (user / "shout.py").write_text(SHOUT)
    return ["launch", "map", "--program", "./shout.py", "--in", "texts", "--out", "loud"]


def test_one_line_makes_the_function_copies_files_and_runs_the_job(mine, shout):
    before = mine.mu(*shout, "--requirements", "wheels/requirements.txt", "--dry-run", "-n", "2")
    rows = before[1].splitlines()
    assert rows[0] == "Dry run: nothing is started, deployed or uploaded."
    assert rows[1].startswith("Function:  shout in us-east-1 would be created: code ")
    assert re.match(r"Upload:    3 files \(16 bytes\) to s3://mu_files/texts-\w+/, ", rows[2])
    assert rows[3] == "Inputs:    3"
    assert [row.split("/", 1)[1] for row in rows[4:7]] == ["a b.txt", "deep/c.txt", "it's.txt"]
    assert rows[7:] == [
        "Workers:   2 on engine local, up to 2 inputs each",
        "Cost:      at most $0.16; engine local costs nothing, this is AWS's price",
        "           6 attempts of up to 15 min, with 1769 MB (x86_64)",
        "Estimate:  none: no job of map on function shout is done yet",
    ]
    assert mine.daemon.ask("/jobs") == []
    assert mine.daemon.lambda_client().list_functions()["Functions"] == []
    assert not any(path.is_file() for path in (mine.daemon.home / "files").rglob("*"))

    status, _, told = mine.mu(*shout, "--requirements", "wheels/requirements.txt", "-n", "2")
    assert status == 0, told
    assert "\nFunction shout in us-east-1 was created: code " in told
    loud = mine.folder / "user" / "loud"
    made = {path.name: path.read_text() for path in loud.rglob("*.txt")}
    assert made == {"a b.txt": "HELLO\n", "it's.txt": "YOU\n", "c.txt": "THERE\n"}

    user = mine.folder / "user"
    same = ["--in", "texts", "--out", "loud", "-p", "command=true", "-n", "2", "--dry-run"]
    again = mine.mu("launch", "map", "--function", "shout", *same)[1]
    assert "Function:  shout in us-east-1\n" in again
    like = r"^Estimate:  about \$0\.\d{4} and [\d.]+ s, if it is like the last 1 job of map on "
    assert re.search(like, again, re.MULTILINE), again
    (user / "shout.py").write_text(SHOUT.replace("text)", "text + '!')"))
    status, _, told = mine.mu(*shout, "--requirements", "wheels/requirements.txt")
    assert status == 0, told
    assert "\nFunction shout in us-east-1 was updated: code " in told
    assert (loud / "a b.txt").read_text() == "HELLO\n!"


def test_packages_are_not_looked_up_again_for_a_function_that_has_them(mine, shout):
    user = mine.folder / "user"
    (user / "plain.txt").write_text("shouting==1.0\n")
    wheels = {"PIP_FIND_LINKS": str(user / "wheels"), "PIP_NO_INDEX": "1"}
    words = ["launch", "hello", "--program", "./shout.py", "--function", "again"]
    words += ["--requirements", "plain.txt"]

    def launched():
        status, _, told = mine.mu(*words, **wheels)
        assert status == 0, told
        return re.findall(r"^Installing|is up to date|was \w+(?=:)", told, re.MULTILINE)

    assert launched() == ["Installing", "was created"]
    assert launched() == ["is up to date"]
    mine.mu("deploy", "--bare", "--name", "again")  # someone else changes the function
    assert launched() == ["Installing", "was updated"]


def test_a_command_finds_the_functions_programs_by_their_names(mine):
    user = mine.folder / "user"
    for name in ("sort", "twice"):  # one that the machine has, too
        (user / name).write_text('#!/bin/sh\ncat "$1" "$1"\n')
        (user / name).chmod(0o755)
    mine.files("once", {"a": "x\n"})
    words = [
        "launch",
        "map",
        "--in",
        "once",
        "--out",
        "doubled",
        "-p",
        "command=twice {in} > {out}",
    ]
    status, _, told = mine.mu(*words, "--program", "./twice")
    assert status == 0, told
    words[-1] = "command=sort {in} | tee {out}"
    mine.mu("deploy", "./sort", "--name", "doubling")
    status, _, told = mine.mu(*words, "--function", "doubling")
    assert status == 0, told
    assert (user / "doubled" / "a").read_text() == "x\nx\n"


def test_a_dry_run_as_json_has_the_plan_and_the_bound(mine):
    told = json.loads(mine.mu("launch", "hello", "-n", "3", "--dry-run", "--json")[1])
    assert (told["actors"], told["inputs"], told["size"]) == (3, [{}, {}, {}], None)
    assert (told["bound_usd"], told["estimate"], told["deploys"]) == (None, None, [])


def test_a_dry_run_without_a_plan_says_why_and_orders_are_checked_as_ever(mine):
    words = ["launch", "map", "-p", "prefix=x/", "-p", "out_prefix=y/", "-p", "command=true"]
    status, _, told = mine.mu(*words, "-p", "bucket=mu_files", "--dry-run")
    assert (status, "the plan of map failed: there is no key below s3://mu_files/x/" in told) == (
        2,
        True,
    ), told
    status, _, told = mine.mu(
        *words, "-p", "bucket=b", "-p", 'keys=["a"]', "-p", "match=*", "--dry-run"
    )
    assert (status, told) == (
        2,
        "mu: params.match applies to params.prefix, not to params.keys: give only one of match and"
        " keys\n",
    )


def test_an_order_is_checked_before_anything_is_deployed_or_uploaded(mine):
    mine.files("checked", {"a": "x"})
    words = ["launch", "map", "--in", "checked", "--program", "examples/words.py"]
    status, _, told = mine.mu(*words, "--function", "early", "-p", "tolerate=3x")
    assert (status, told.splitlines()) == (
        2,
        [
            "mu: the order was refused: params.tolerate must be a number of at least 0, or a percentage"
            " such as '5%', got '3x'"
        ],
    )


def test_what_belongs_to_a_program_needs_one(mine):
    status, _, told = mine.mu("launch", "hello", "--post", "x")
    assert (status, told) == (
        2,
        "mu: --requirements, --with, --pre and --post need --program\n",
    )
    status, _, told = mine.mu("launch", "hello", "--program", "x", "--engine", "external")
    assert (status, told) == (2, "mu: --program is for engines lambda and local, got external\n")


def test_a_daemon_elsewhere_gets_no_function_on_its_local_engine(mine):
    url = f"http://127.0.0.1:{mine.daemon.ports['control']}"
    words = ("launch", "hello", "--program", "examples/words.py", "--url", url)
    status, _, told = mine.mu(*words, MU_TOKEN=mine.daemon.token, MU_HOME="")
    assert (status, told) == (
        2,
        "mu: with --url, --program deploys to AWS from this machine: give --engine lambda and"
        " --region NAME\n",
    )


def test_the_hint_of_a_deployment_is_a_job_that_runs(mine):
    mine.files("FOLDER", {"fruit": "pear\napple\n"})
    status, told, _ = mine.mu("deploy", "/usr/bin/sort", "--post", "##INFILE## -o ##OUTFILE##")
    assert status == 0
    hint = told.splitlines()[-1].strip()
    given = ["-p", "command=./sort {in} -o {out}", "-n", "5", "--watch"]
    assert shlex.split(hint)[-5:] == given
    done = mine.run(hint)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (mine.folder / "user" / "FOLDER-OUT" / "fruit").read_text() == "apple\npear\n"


def test_a_rerun_with_more_memory_changes_the_function_and_fetches_the_outputs(mine):
    mine.files("needy", {"a": "x\n", "b": "y\n"})
    mine.mu("deploy", "--bare", "--name", "small", "--memory", "256")
    needs = 'test "$AWS_LAMBDA_FUNCTION_MEMORY_SIZE" -ge 300 && cp {in} {out}'
    words = ["launch", "map", "--function", "small", "--in", "needy", "-p", f"command={needs}"]
    assert mine.mu(*words, "-w")[0] == 1

    status, _, told = mine.mu("rerun", "last", "--memory", "300", "-p", "nosuch=1")
    assert (status, "unknown parameter 'nosuch'" in told) == (2, True)
    status, _, told = mine.mu("rerun", "last", "--memory", "300", "--engine", "external")
    assert (status, told) == (
        2,
        "mu: --memory is for engines lambda and local, and the job's is external\n",
    )
    status, told, errors = mine.mu(
        "rerun", "last", "--memory", "300", "--name", "more memory", "--out", "satisfied"
    )
    assert status == 0, told + errors
    assert "\nFunction small in us-east-1 was updated: memory 300 MB (was 256).\n" in errors
    satisfied = mine.folder / "user" / "satisfied"
    assert {path.name: path.read_text() for path in satisfied.iterdir()} == {"a": "x\n", "b": "y\n"}
    (job,) = json.loads(mine.mu("jobs", "--name", "more memory", "--json")[1])
    assert (job["state"], bool(job["rerun"])) == ("done", True)


# ---------------------------------------------------------------- as printed


def test_the_one_line_on_the_page_runs_as_printed(mine):
    page = (ROOT / "docs" / "cli.md").read_text().split("## One line: launch --program\n")[1]
    block = re.search(r"(?:^    .*\n)+", page, re.MULTILINE)
    body = "def tabulate(rows): return '\\n'.join(f'{n}  {word}' for n, word in rows)\n"
    wheels = make_wheel(mine.folder / "w", "tabulate", body=body).parent
    done = mine.run(
        f"set -e\n{textwrap.dedent(block[0])}", PIP_NO_INDEX="1", PIP_FIND_LINKS=str(wheels)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (mine.folder / "user" / "tables" / "my trees.txt").read_text() == "1  oak\n2  birch\n"


def test_the_first_steps_in_the_help_run_as_printed(mine):
    steps = inside("--help").stdout.split("First steps:\n")[1].split("\n\n")[0].splitlines()
    commands = [re.split(r"  +", step.strip())[0] for step in steps]
    commands = [command for command in commands if not command.startswith("twistd ")]  # it runs
    done = mine.run("\n".join(["set -e", *commands]))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "said_hello: 5\n" in done.stdout


def test_the_command_line_section_of_the_readme_runs_as_printed(mine):
    section = (ROOT / "README.md").read_text().split("## The command line\n")[1].split("\n## ")[0]
    blocks = re.findall(r"(?:^    .*\n)+", section, re.MULTILINE)
    done = mine.run("set -e\n" + "".join(map(textwrap.dedent, blocks)))
    assert done.returncode == 0, done.stdout + done.stderr
    made = (mine.folder / "user" / "words" / "cli.md").read_text()
    assert re.match(r" *\d+ \w+\n", made)
