"""Drawings and reports of timelines: figures, SVG and HTML, of few actors and of many."""

import base64
import doctest
import gzip
import hashlib
import json
import random
import re
import xml.etree.ElementTree as ET
from typing import Any

import pytest

from mu.page import bundle
from mu.timeline import figures, svg
from mu.timeline.plot import MOST_ROWS, plot
from mu.timeline.report import MOST_ACTORS, MOST_DETAILED, ReportPage
from mu.timeline.report import report as write_report

SVG = "{http://www.w3.org/2000/svg}"


def report(job, told, actors=()):
    return write_report(job, told, ReportPage(bundle.script(), bundle.style(), actors))


def row(number, state="done", error=None, **more):
    """Return an actor as GET /jobs/ID/workers has it."""
    failures = [{"attempt": 1, "at": 2.0, "label": "", "last_reply": "", "error": error}]
    told = {"actor": number, "state": state, "error": error, "result": None, "last_reply": "OK"}
    return told | {"failures": failures if error else [], "used": None} | more


def data_of(page):
    """Return what the scripts of a report show."""
    packed = re.search(r'id="data">([^<]*)<', page)[1]
    return json.loads(gzip.decompress(base64.b64decode(packed)))


def course(number, begin=1.0, error=None, runs=2):
    """Return an actor that retrieves and runs some times."""
    at, commands, states = begin, [], [(0.0, "waiting"), (0.2, "launching"), (0.4, "starting")]
    for name in ("retrieve", "run") * runs:
        states.append((at, name))
        commands.append((name, at, at, at + 1.0, "ok"))
        at += 1.0
    states.append((at, "done" if error is None else "failed"))
    attempt = {"attempt": 1, "worker": f"s{number}", "launched": 0.2, "accepted": 0.4}
    attempt |= {"hello": begin, "began": begin, "ended": at, "spare": False, "straggler": False}
    attempt |= {"error": error, "states": [], "away": [], "commands": commands}
    return {"actor": number, "attempt": 1, "states": states, "attempts": [attempt]}


def timeline(*actors, seconds=10.0, exact=True):
    of = {"id": "j1", "created": 1.8e9, "seconds": seconds, "ended": True, "exact": exact}
    return of | {"unused": [], "actors": list(actors)}


JOB: dict[str, Any] = {
    "id": "j1",
    "name": "",
    "pipeline": "map",
    "state": "done",
    "engine": "local",
}
JOB |= {"function": "f", "regions": ["us-east-1"], "counts": {"done": 2}, "cost_usd": None}


def texts(drawing):
    return [one.text for one in ET.fromstring(drawing).iter(f"{SVG}text")]


@pytest.mark.parametrize("module", [figures, svg])
def test_the_examples_in_the_docstrings_run(module):
    assert doctest.testmod(module).attempted
    assert doctest.testmod(module).failed == 0


def test_the_actors_in_each_phase_add_up_to_all_at_any_time():
    actors = [course(n, 1.0 + random.Random(n).random(), runs=1 + n % 3) for n in range(50)]
    counts = figures.concurrency(timeline(*actors), 100)
    assert {sum(column) for column in zip(*counts.values(), strict=True)} == {50}
    assert (counts["waiting"][0], counts["done"][-1]) == (50, 50)
    assert set(counts) == {"waiting", "launching", "starting", "working", "done"}


def test_a_phase_shorter_than_a_sample_loses_no_actor():
    brief = course(0)
    brief["states"] = [(0.0, "waiting"), (5.0, "run"), (5.001, "done")]
    counts = figures.concurrency(timeline(brief), 11)
    assert {sum(column) for column in zip(*counts.values(), strict=True)} == {1}


def test_a_histogram_counts_every_value_in_round_ranges():
    found = figures.histogram([0.1, 0.1, 0.25, 0.9, 1.7])
    assert sum(found.counts) == 5
    assert figures.histogram([3.0]).counts == [1]
    many = figures.histogram([n / 100 for n in range(10_000)])
    assert sum(many.counts) == 10_000
    assert len(many.counts) <= 41


def test_times_are_in_seconds_minutes_and_hours():
    assert [figures.in_seconds(at) for at in (0.25, 12, 185, 3725)] == [
        "0.25 s",
        "12 s",
        "3:05",
        "1:02:05",
    ]


def test_a_plot_has_a_row_for_each_actor_and_both_histograms():
    drawn = texts(plot(timeline(course(0), course(1)), "Job j1"))
    assert drawn[0] == "Job j1"
    assert {"waiting", "starting", "retrieve", "run", "2 actors"} <= set(drawn)
    assert [text for text in drawn if text.startswith(("Cold starts: 2", "Run commands: 4"))]


@pytest.mark.parametrize(
    "actors", [(), ({"actor": 0, "attempt": 0, "states": [(0.0, "waiting")], "attempts": []},)]
)
def test_a_job_that_has_not_begun_can_be_drawn(actors):
    drawn = texts(plot(timeline(*actors, seconds=0.0)))
    assert {"Cold starts: none yet", "Attempts: none yet"} <= set(drawn)
    assert "No attempt failed." in report(JOB, timeline(*actors, seconds=0.0))


def test_a_plot_of_very_many_actors_stays_small_and_shows_those_that_failed():
    actors = [course(n, error="x" if n == 4321 else None, runs=10) for n in range(10 * MOST_ROWS)]
    drawing = plot(timeline(*actors, seconds=25.0), "many")
    assert len(drawing) < 2_000_000
    assert "10,000 actors; 1,000 are shown: of neighbours, the failed or slowest one" in drawing
    failed = re.findall(r'd="([^"]+)" fill="#d13b1f"><title>failed', drawing)
    assert [path.count("M") for path in failed] == [1, 1], "in the chart and in the rows"


def test_no_text_of_a_worker_is_markup():
    evil = "</title><script>alert(1)</script>"
    told = timeline(course(0, error=evil))
    job = JOB | {"name": evil, "error": evil, "params": {"p": evil}, "result": evil}
    page = report(job, told, [row(0, error=evil)])
    whole = bundle.script()
    assert page.count("<script") - whole.count("<script") == 2
    assert "</script" not in whole
    for text in (page.replace(whole, ""), plot(told, evil)):
        assert "<script>" not in text
        assert "&lt;script&gt;" in text
    assert data_of(page)["actors"][0]["error"] == evil


def test_a_report_allows_its_own_script_and_styles_by_their_hashes():
    page = report(JOB, timeline(course(0)), [row(0)])
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)[1]
    texts = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    texts += re.findall(r'<script type="module">(.*?)</script>', page, re.DOTALL)
    known = [base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in texts]
    assert len(known) == 3
    assert sorted(re.findall(r"sha256-([^']*)'", policy)) == sorted(known)
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r'<link|<img|\bsrc=|url\(|@import| style="| on\w+="', page)


def test_a_report_says_what_workers_used():
    page = ReportPage("", "", [row(0)], [], ["Used: 1 s & more.", ""])
    assert "<p>Used: 1 s &amp; more.</p>" in write_report(JOB, timeline(course(0)), page)


def test_the_script_of_a_report_has_all_modules_in_it():
    script = bundle.script()
    assert not re.search(r"^\s*(import|export)\b", script, re.MULTILINE)
    assert script.index("const $canvas") < script.index("const $timeline") < script.index("$report")


def test_a_report_of_very_many_actors_has_those_that_failed_and_is_bounded():
    number = MOST_ACTORS + 50
    actors = [row(n, last_reply=4000 * "x", result=4000 * "y") for n in range(number)]
    actors[-1] = row(number - 1, "failed", 4000 * "z")
    page = report(JOB, timeline(*map(course, range(number))), actors)
    assert len(page) < 5_000_000
    shown = {one["actor"]: one for one in data_of(page)["actors"]}
    assert len(shown) == len(data_of(page)["timeline"]["actors"]) == MOST_ACTORS
    assert shown[number - 1]["failures"][0]["error"] == 500 * "z"
    assert len([one for one in shown.values() if one["last_reply"]]) == MOST_DETAILED
    assert "The 1,000 slowest of 10,050" in page


def test_a_report_groups_failures_and_says_what_is_not_known():
    failing = [course(n, error="no such key") for n in range(12)]
    page = report(JOB, timeline(*failing, course(12, error="out of memory"), exact=False))
    row = "<td>0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more</td><td>no such key</td>"
    assert f'<td class="n">12</td>{row}' in page
    assert "<td>Cost</td><td>unknown</td>" in page
    assert "when commands were sent is estimated" in page
    assert page.index("no such key") < page.index("out of memory")
