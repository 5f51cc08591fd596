"""The docs: the configuration page is up to date, the examples run, the links are not broken."""

import configparser
import re
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest
from mu_slurm.options import OPTIONS, ORDER_OPTIONS
from twisted.internet.task import Clock

from mu.aws import limits
from mu.events import Finish
from mu.jobs.book import JobBook
from mu.jobs.life import TRANSITIONS
from mu.jobs.summary import OF_NOW
from mu.metrics import Metrics
from mu.testing import FakeWorker, machine, play, run
from mu.totals import Totals, Traffic

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
PAGES += sorted((ROOT / "plugins").glob("*/*.md"))


def reference() -> str:
    """Return docs/configuration.md, generated from etc/mu.conf."""
    page = [
        "# Configuration",
        "",
        "Every option of [etc/mu.conf](../etc/mu.conf), with its default. This page is generated from",
        "that file by `python tests/unit/test_docs.py`.",
    ]
    words: list[str] = []
    for line in (ROOT / "etc" / "mu.conf").read_text().splitlines()[3:]:
        if line.startswith("#"):
            words.append(line.removeprefix("# "))
        elif line.startswith("["):
            page += ["", f"## {line}", "", "| option | default | meaning |", "|---|---|---|"]
        elif " = " in line:
            name, _, default = line.partition(" = ")
            meaning = " ".join(words).replace("<", "&lt;")  # <home> is no HTML
            page.append(f"| `{name}` | `{default}` | {meaning} |")
            words = []
    return "\n".join(page) + "\n"


def life_of_a_job() -> str:
    """Return the drawing of a job's life in docs/architecture.md, from the table of transitions."""
    arrows = [
        f"    {state.value} --> {after.value}: {step.value}"
        for state, steps in TRANSITIONS.items()
        for step, after in steps.items()
    ]
    return "\n".join(["```mermaid", "stateDiagram-v2", *arrows, "```"]) + "\n"


def all_metrics() -> str:
    """Return the table in docs/metrics.md, from the metrics of a daemon with a relay."""
    rows = ["| metric | labels | meaning |", "|---|---|---|"]
    port = SimpleNamespace(connections=(), strangers=())
    journal, notifier = SimpleNamespace(lag_s=0.0, backlog=0), SimpleNamespace(pending=0)
    relay = SimpleNamespace(connections=(), traffic=Traffic(), waiting_bytes=0)
    metrics = Metrics(JobBook(), Totals(), port, journal, relay, notifier, Clock())
    for family in metrics.collect():
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = dict.fromkeys(label for one in family.samples for label in one.labels)
        shown = []
        for label in labels:
            values = dict.fromkeys(one.labels.get(label) for one in family.samples)
            few = label not in ("le", "version", "kind")
            if label != "le":
                shown.append(f"{label}: {', '.join(filter(None, values))}" if few else label)
        rows.append(f"| `{name}` | {'; '.join(shown)} | {family.documentation} |")
    return "\n".join(rows) + "\n"


def test_the_table_of_metrics_is_up_to_date():
    page = (ROOT / "docs" / "metrics.md").read_text()
    assert page.endswith(f"\n\n{all_metrics()}"), "generate it: python tests/unit/test_docs.py"


def test_the_configuration_page_is_up_to_date():
    page = ROOT / "docs" / "configuration.md"
    assert page.read_text() == reference(), "generate it: python tests/unit/test_docs.py"


def test_the_page_of_limits_is_up_to_date():
    page = ROOT / "docs" / "limits.md"
    assert page.read_text() == limits.page(), "generate it: python tests/unit/test_docs.py"


def test_the_configuration_page_has_every_option():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "etc" / "mu.conf")
    rows = re.findall(r"^\| `(\w+)` \|", reference(), re.MULTILINE)
    assert rows == [option for section in parser.sections() for option in parser[section]]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_drawing_of_a_jobs_life_is_up_to_date():
    page = (ROOT / "docs" / "architecture.md").read_text()
    assert life_of_a_job() in page, "generate it: python tests/unit/test_docs.py"


PLUGIN = ROOT / "plugins" / "mu-slurm"


def pieces_of_the_plugin() -> list[str]:
    """Return what docs/engines.md shows of the plugin's code."""
    page = (ROOT / "docs" / "engines.md").read_text().partition("\n## Starting\n")[2]
    blocks = re.findall(r"(?:^    .*\n|^\n(?=    ))+", page, re.MULTILINE)
    pieces = [piece for block in blocks for piece in re.split(r"^ *\.\.\.\n", block, flags=re.M)]
    return [textwrap.dedent(piece).strip("\n") for piece in pieces]


def test_the_page_on_engines_shows_the_plugins_code():
    known = [path.read_text().splitlines() for path in (PLUGIN / "mu_slurm").glob("*.py")]
    pieces = pieces_of_the_plugin()
    assert len(pieces) > 10
    for piece in pieces:
        size = len(piece.splitlines())
        assert any(
            textwrap.dedent("\n".join(lines[first : first + size])) == piece
            for lines in known
            for first in range(len(lines))
        ), piece


def shown(default: object) -> str:
    """Return a default as the page has it."""
    if isinstance(default, bool):
        return "yes" if default else "no"
    text = f"{default:g}" if isinstance(default, int | float) else str(default)
    return text and f"`{text}`"


def test_the_page_of_mu_slurm_has_all_its_options():
    page = (PLUGIN / "README.md").read_text()
    rows = re.findall(r"^\| `(\w+)`( \*)? \| ?(\S*) \| (.*) \|$", page, re.MULTILINE)
    assert rows == [
        (
            one.name,
            " *" if one.name in ORDER_OPTIONS else "",
            shown(one.default),
            one.help,
        )
        for one in OPTIONS
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_point_to_existing_files_and_headings(page):
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if "://" not in link:
            name, _, anchor = link.partition("#")
            target = page.parent / name if name else page
            assert target.exists(), f"{page.name}: {link}"
            assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


def examples(heading: str) -> dict:
    """Run the first code block under a heading of docs/pipelines.md; return what it defines."""
    section = (ROOT / "docs" / "pipelines.md").read_text().split(f"## {heading}\n")[1]
    block = re.search(r"(?:^    .*\n|^\n)+", section[section.index("\n    ") + 1 :], re.MULTILINE)
    defined: dict = {}
    exec(compile(textwrap.dedent(block[0]), "docs/pipelines.md", "exec"), defined)
    return defined


def test_the_whole_pipeline_in_pipelines_md_runs():
    pipeline = examples("A whole pipeline")["pipeline"]
    counted = {"run:wc": "OK:RETVAL(0):OUTPUT(7\n):COMMAND(wc)"}
    job = run(pipeline, {"bucket": "b", "keys": ["x", "y"]}, counted, workers=5)
    assert job.actors[1].commands[1] == "retrieve:y\0##TMPDIR##/text"
    assert job.result == {"words": 14}


def test_the_tests_in_pipelines_md_pass():
    assert examples("Testing")["job"].actors


def test_the_script_in_pipelines_md_runs():
    script = examples("As a script")["convert"]
    given = {"in_keys": ["a.png", "b.png"], "out_key": "out.y4m"}
    played = play(machine(script, {"bucket": "b"}, given=given))
    assert played.finish == Finish(result={"key": "out.y4m"})
    assert played.commands[0] == "set:bucket:b"
    assert played.commands[2] == "retrieve:a.png\0##TMPDIR##/00000000.png"
    assert played.commands[-1] == "upload:out.y4m\0##TMPDIR##/out.y4m"


def test_the_script_that_does_several_things_side_by_side_in_pipelines_md_runs():
    script = examples("Side by side")["count_all"]
    words = {"run:": "OK:RETVAL(0):OUTPUT(7\n):COMMAND(wc)"}
    driven = machine(script, {"bucket": "b"}, given={"keys": ["x", "y"]})
    played = play(driven, FakeWorker(words))
    assert played.finish == Finish(result=14)
    assert [command.partition("##")[0] for command in played.commands[2:]] == [
        "retrieve:x\0",
        "retrieve:y\0",
        "run:wc -w < ",
        "run:wc -w < ",
    ]


def test_the_stages_in_pipelines_md_run():
    pipeline = examples("Stages")["Count"]()
    counted = {"run:wc": "OK:RETVAL(0):OUTPUT(7\n):COMMAND(wc)"}
    job = run(pipeline, {"bucket": "b", "keys": ["x", "y"]}, counted)
    assert [actor.finish.result for actor in job.actors] == [7, 7, 14]
    assert [actor.commands[0] for actor in job.actors[:2]] == ["set:bucket:b"] * 2


def test_the_states_in_pipelines_md_run():
    first = examples("As states")["Fetch"]
    answers = {"run:": "OK:RETVAL(0):OUTPUT(7):COMMAND(wc)"}
    played = play(machine(first, {"bucket": "b"}, given={"key": "k"}), FakeWorker(answers))
    assert played.finish == Finish(result={"said": answers["run:"]})
    assert played.commands == [
        "set:bucket:b",
        "retrieve:k\0##TMPDIR##/text",
        "run:wc -w < ##TMPDIR##/text",
    ]


def test_the_control_page_names_the_fields_that_a_restart_may_change():
    page = (ROOT / "docs" / "control.md").read_text()
    *first, last = [f"`{name}`" for name in OF_NOW]
    assert f"{', '.join(first)} and {last} are as of now" in page


if __name__ == "__main__":
    (ROOT / "docs" / "configuration.md").write_text(reference())
    (ROOT / "docs" / "limits.md").write_text(limits.page())
    metrics = ROOT / "docs" / "metrics.md"
    metrics.write_text(metrics.read_text().partition("| metric |")[0] + all_metrics())
    architecture = ROOT / "docs" / "architecture.md"
    before, _, rest = architecture.read_text().partition("```mermaid\n")
    after = rest.partition("```\n")[2]
    architecture.write_text(before + life_of_a_job() + after)
