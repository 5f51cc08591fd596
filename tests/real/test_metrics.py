"""GET /metrics of a real daemon, and the alerts and the dashboard that are made of it."""

import json
import re
import shutil
import subprocess
import textwrap
import urllib.request
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from mu.config import Config

ETC = Path(__file__).parents[2] / "etc"
ALERTS = yaml.safe_load((ETC / "alerts.yml").read_text())
DASHBOARD = json.loads((ETC / "grafana-dashboard.json").read_text())
SERVERS_OWN = {"job", "instance"}
"""Labels that Prometheus adds."""


def scrape(daemon):
    """Return all samples with their labels, as a reader may see them."""
    request = urllib.request.Request(daemon.url + "/metrics")
    request.add_header("Authorization", f"Bearer {(daemon.home / 'read-token').read_text()}")
    with urllib.request.urlopen(request, timeout=120) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        families = list(text_string_to_metric_families(answer.read().decode()))
    return {
        (one.name, tuple(sorted(one.labels.items()))): one.value
        for family in families
        for one in family.samples
    }


@pytest.fixture(scope="module")
def grown(daemon):
    """By how much each sample grows with a job of two workers, and the samples after it."""
    before = scrape(daemon)
    order = {"pipeline": "hello", "function": "png2y4m", "workers": 2, "params": {"rounds": 3}}
    job = daemon.wait(daemon.ask("/jobs", order)["id"])
    assert job["state"] == "done"
    after = scrape(daemon)
    assert after.keys() == before.keys(), "a job adds no time series"
    return {name: after[name] - before[name] for name in after}, job


def test_a_job_is_counted(grown):
    counted, job = grown

    def of(name, **labels):
        return counted[name, tuple(sorted(labels.items()))]

    assert of("mu_jobs", state="done") == of("mu_jobs_ended_total", state="done") == 1
    assert of("mu_attempts_ended_total", outcome="done") == 2
    assert of("mu_launches_total", answer="accepted") == 2
    assert of("mu_connections_accepted_total") == 2
    assert of("mu_command_seconds_count", kind="echo") == 6
    assert 0 < of("mu_command_seconds_sum", kind="echo") < 600
    assert of("mu_commands_failed_total", kind="echo") == 0
    # A hello and 3 replies in; a welcome, 3 commands and quit out, and perhaps an ack.
    assert of("mu_frames_total", direction="in") >= 8
    assert of("mu_frames_total", direction="out") >= 10
    assert of("mu_bytes_total", direction="out") > 10 * 13
    assert of("mu_journal_commit_seconds_count") >= 2
    assert of("mu_cost_usd_total") == pytest.approx(job["cost_usd"], abs=1e-6)
    assert of("mu_workers", state="working") == of("mu_actors", state="running") == 0


PAGE = (ETC.parent / "docs" / "metrics.md").read_text()


def test_the_command_on_the_page_scrapes(daemon):
    (line,) = re.findall("^    (curl .*)$", PAGE, re.MULTILINE)
    line = line.replace("~/.mu", str(daemon.home))
    line = line.replace("13580", str(daemon.ports["control"]))
    told = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True).stdout
    assert told.startswith("# HELP mu_info ")


def test_the_configuration_on_the_page_fits_the_alerts_and_the_dashboard():
    begin, end = PAGE.index("    scrape_configs:"), PAGE.index("The token is a copy")
    (job,) = yaml.safe_load(textwrap.dedent(PAGE[begin:end]))["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"127.0.0.1:{Config().control.port}"]}]
    named = {name for one in EXPRESSIONS.values() for name in re.findall(r'job="([^"]*)"', one)}
    assert named == {job["job_name"]}


RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
EXPRESSIONS = {f"alert {rule['alert']}": rule["expr"] for rule in RULES}
EXPRESSIONS |= {
    f"panel {panel['title']}, {target['refId']}": target["expr"]
    for panel in DASHBOARD["panels"]
    for target in panel["targets"]
}
SELECTOR = re.compile(r"\b((?:mu|process)_\w+)(?:{([^}]*)})?")
MATCHER = re.compile(r'(\w+)(=~|=)"([^"]*)"')


@pytest.mark.parametrize("which", EXPRESSIONS)
def test_every_metric_that_an_alert_or_a_panel_names_exists(grown, which):
    samples = grown[0]
    expression = EXPRESSIONS[which]
    selectors = SELECTOR.findall(expression)
    assert selectors or expression == 'up{job="mu"} == 0'
    for name, matchers in selectors:
        labels = [dict(labels) for sample, labels in samples if sample == name]
        assert labels, f"{name} is not in the scrape"
        for label, how, value in MATCHER.findall(matchers):
            if label in SERVERS_OWN:
                continue
            for one in value.split("|") if how == "=~" else [value]:
                assert any(known.get(label) == one for known in labels), f"{name}: {label}={one}"
    for label in re.findall(r"by \(([^)]*)\)", expression):
        known = {key for _, labels in samples for key, _ in labels} | SERVERS_OWN
        assert set(label.split(", ")) <= known


def test_the_alerts_are_ten_and_each_says_what_to_do():
    assert len({rule["alert"] for rule in RULES}) == len(RULES) == 10
    for rule in RULES:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"]


def test_promtool_accepts_the_alerts():
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    subprocess.run(["promtool", "check", "rules", ETC / "alerts.yml"], check=True)


def test_the_panels_of_the_dashboard_do_not_overlap():
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    cells = [
        (x, y)
        for place in places
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)
