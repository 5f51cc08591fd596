"""What docs/seeing.md shows, run against a real daemon and its journal."""

import csv
import json
import os
import re
import subprocess
import sys
import textwrap
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from kit.cli import ENV, inside, refusal
from kit.film import put_film
from stage import Daemon, free_ports_conf

PAGE = Path(__file__).parents[2] / "docs" / "seeing.md"
NUMBER = 3


@pytest.fixture(scope="module")
def done(daemon, s3):
    """A job of some workers that is done."""
    put_film(s3, "seen", [f"{n}\n" for n in range(2 * NUMBER)])
    words = ["launch", "png2y4m", "-p", "bucket=films", "-p", "frames=2", "-p", "video=seen"]
    words += ["-n", NUMBER, "-w", "--json"]
    return json.loads(inside(*words, daemon=daemon).stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def shown(daemon, done, tmp_path_factory):
    """The folder in which all blocks of the page were run, as printed."""
    folder = tmp_path_factory.mktemp("seeing")
    blocks = re.findall(r"(?:^    .*\n)+", PAGE.read_text(), re.MULTILINE)
    script = "set -e\n" + "".join(map(textwrap.dedent, blocks))
    for told, real in (
        ("localhost:13580", daemon.url),
        ("1ffa5274b65a", done["id"]),
        ("~/.mu", str(daemon.home)),
        (" last ", f" {done['id']} "),  # other tests of this daemon order jobs, too
    ):
        assert told in script
        script = script.replace(told, real)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    ran = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=ENV | {"MU_HOME": str(daemon.home), "PATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    (folder / "stdout").write_text(ran.stdout)
    return folder


def test_the_table_has_each_start_state_and_command(shown):
    rows = list(csv.DictReader((shown / "job.csv").read_text().splitlines()))
    for actor in range(NUMBER):
        own = [row for row in rows if row["actor"] == str(actor)]
        (start,) = [row for row in own if row["what"] == "start"]
        assert 0 <= float(start["sent"]) <= float(start["begin"]) <= float(start["end"])
        commands = [row for row in own if row["what"] == "command" and row["name"] != "quit"]
        assert commands
        assert {row["outcome"] for row in commands} == {"ok"}
        assert [row["name"] for row in own if row["what"] == "state"]


def test_the_grep_on_the_page_finds_the_runs(shown):
    assert ",command,run," in (shown / "stdout").read_text()


def test_the_trace_is_one_that_perfetto_reads(shown):
    events = json.loads((shown / "job.json").read_text())["traceEvents"]
    assert {one["ph"] for one in events} == {"M", "X"}
    assert {one["tid"] for one in events if one["ph"] == "X"} >= set(range(NUMBER))


def test_the_drawing_is_whole_svg_and_names_the_job(shown, done):
    root = ET.parse(shown / "job.svg").getroot()
    texts = [one.text for one in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts[0].startswith(f"Job {done['id']}: png2y4m, done after ")
    assert f"{NUMBER} actors" in texts


def test_the_report_has_the_job_and_loads_nothing(shown, done):
    report = (shown / "job.html").read_text()
    assert done["id"] in report
    assert "<p>Used: CPU " in report
    assert "default-src 'none'" in report
    assert not re.search(r"<link|<img|\bsrc=|url\(|@import", report)


def test_the_timeline_is_paged(daemon, done):
    page = daemon.ask(f"/jobs/{done['id']}/timeline?limit=1&after=0")
    assert [one["actor"] for one in page["actors"]] == [1]
    assert page["actors"][0]["states"][-1][1] == "done"


def test_a_file_that_cannot_be_written_is_named(daemon, done, tmp_path):
    nowhere = tmp_path / "none" / "job.svg"
    assert f"cannot write {nowhere}: No such file" in refusal(
        "plot", done["id"], "-o", nowhere, daemon=daemon
    )


def test_a_png_is_made_or_it_is_said_what_it_needs(daemon, done, tmp_path, monkeypatch):
    png = tmp_path / "job.png"
    monkeypatch.setitem(sys.modules, "cairosvg", None)
    says = refusal("plot", done["id"], "-o", png, daemon=daemon)
    assert "a PNG needs pip install 'mu[png]'" in says
    monkeypatch.undo()
    pytest.importorskip("cairosvg", reason="pip install cairosvg")
    inside("plot", done["id"], "-o", png, daemon=daemon)
    assert png.read_bytes().startswith(b"\x89PNG")


def test_a_restart_changes_nothing_and_without_a_journal_a_sentence_says_so(tmp_path, s3, joiner):
    def timeline(daemon):
        return daemon.ask(f"/jobs/{job['id']}/timeline?detail=commands")

    daemon = Daemon(tmp_path, s3.env)
    try:
        daemon.create_function("png2y4m", joiner)
        order = {"pipeline": "hello", "function": "png2y4m", "workers": 2}
        job = daemon.wait(daemon.ask("/jobs", order)["id"])
        before = timeline(daemon)
    finally:
        daemon.stop()
    daemon = Daemon(tmp_path, s3.env)
    try:
        assert timeline(daemon) == before
    finally:
        daemon.stop()
    daemon = Daemon(tmp_path, s3.env, free_ports_conf(journal="enabled = no", local="enabled = no"))
    try:
        daemon.ask("/jobs", {"pipeline": "hello", "engine": "external"})
        says = refusal("trace", "last", daemon=daemon)
        assert "has no timeline: it is drawn from the journal" in says
    finally:
        daemon.stop()
