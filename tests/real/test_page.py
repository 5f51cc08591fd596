"""The page in a real Chromium: it logs in, launches, watches, cancels, and shows nothing as markup."""

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
from kit.cli import inside
from kit.film import order, put_film
from kit.install import ROOT
from stage import Daemon, free_ports_conf

playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
expect = playwright.expect
PATIENCE_MS = 60_000

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium: apt install chromium")


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as player:
        running = player.chromium.launch(executable_path=CHROMIUM)
        yield running
        running.close()


@pytest.fixture
def tab(browser):
    """A page of its own; an error in its scripts fails the test."""
    context = browser.new_context()
    context.set_default_timeout(PATIENCE_MS)
    expect.set_options(timeout=PATIENCE_MS)
    page = context.new_page()
    faults = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    yield page
    context.close()
    assert faults == []


def log_in(tab, daemon, *options):
    tab.goto(link_of(daemon, *options))
    expect(tab.get_by_role("heading", level=1)).to_be_visible()


def link_of(daemon, *options):
    told = inside("open", "--print", *options, daemon=daemon)
    assert told.exit_code == 0, told.output
    return told.stdout.strip()


def badge(tab):
    return tab.locator("main > .head .badge")


def test_a_link_works_once_and_the_session_stays_in_its_tab(tab, browser, daemon):
    link = link_of(daemon)
    tab.goto(link)
    expect(tab.get_by_role("heading", name="Jobs")).to_be_visible()
    assert tab.url == f"{daemon.url}/#/"
    tab.reload()
    expect(tab.get_by_role("heading", name="Jobs")).to_be_visible()
    other = browser.new_page()
    other.goto(link)
    expect(other.get_by_role("heading", name="Log in")).to_be_visible()
    expect(other.get_by_role("alert")).to_contain_text("this link was used already")
    other.get_by_label("Link or code").fill(link_of(daemon))
    other.get_by_role("button", name="Log in").click()
    expect(other.get_by_role("heading", name="Jobs")).to_be_visible()
    assert other.context.cookies() == []
    other.close()


def test_the_form_launches_a_job_that_is_watched_until_it_is_done(tab, daemon, s3, tmp_path):
    put_film(s3, "form", [f"frame {n}\n" for n in range(1, 13)])
    log_in(tab, daemon)
    tab.keyboard.press("n")
    tab.get_by_label("pipeline", exact=True).select_option("png2y4m")
    tab.get_by_label("workers").fill("6")
    tab.get_by_label(re.compile("^video")).fill("form")
    tab.get_by_label(re.compile("^bucket")).fill("films")
    tab.get_by_label(re.compile("^frames")).fill("0")
    tab.get_by_role("button", name="Launch").click()
    frames = tab.locator(".field", has=tab.get_by_label(re.compile("^frames")))
    expect(frames.get_by_role("alert")).to_contain_text("greater than or equal to 1")
    tab.get_by_label(re.compile("^frames")).fill("2")
    tab.get_by_label("name", exact=True).fill("it's mine")
    curl = tab.locator(".curl").inner_text()
    tab.get_by_role("button", name="Check").click()
    expect(tab.get_by_role("status").last).to_contain_text("It would start 6 actors")
    tab.get_by_role("button", name="Launch").click()
    expect(tab.get_by_role("heading", level=1)).to_contain_text("it's mine")
    expect(badge(tab)).to_have_text("done")
    expect(tab.locator(".figures")).to_contain_text("12 of 12 inputs")
    expect(tab.locator(".facts div", has_text="Peak memory")).to_contain_text(
        re.compile("[0-9] MB")
    )
    expect(tab.locator(".actors tbody tr")).to_have_count(6)
    for name in ("run", "retrieve", "upload"):
        expect(tab.locator(".tools .legend")).to_contain_text(name)
    first = daemon.ask(f"/jobs/{tab.url.rpartition('/')[2]}")

    (tmp_path / ".mu").symlink_to(daemon.home)
    env = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    told = subprocess.run(["sh", "-c", curl], env=env, capture_output=True, timeout=120, check=True)
    second = daemon.wait(json.loads(told.stdout)["id"])
    same = ("name", "pipeline", "params", "workers", "engine", "function", "state", "result")
    assert [first[name] for name in same] == [second[name] for name in same]


def test_a_failed_job_shows_why_and_runs_again_what_failed(tab, daemon, s3):
    put_film(s3, "sad", ["fine\n", "fine\n", "bad\n", "fine\n", "bad\n", "fine\n"])
    job = daemon.wait(daemon.ask("/jobs", order("sad", workers=3))["id"])
    log_in(tab, daemon, job["id"])
    expect(badge(tab)).to_have_text("failed")
    failures = tab.locator(".failure")
    expect(failures).to_have_count(1)
    expect(failures).to_contain_text("cannot join")
    failures.get_by_role("button", name="2").click()
    expect(tab.locator(".actors tbody tr")).to_have_count(2)
    failures.get_by_role("link").first.click()
    expect(tab.get_by_role("heading", name="Failed attempts")).to_be_visible()
    expect(tab.locator(".log")).to_contain_text("cannot join")
    tab.keyboard.press("u")
    tab.get_by_role("button", name="Rerun failed").click()
    tab.get_by_role("button", name="Start the job").click()
    tab.wait_for_url(lambda url: not url.endswith(job["id"]))
    expect(tab.locator("dd", has_text=job["id"])).to_be_visible()
    expect(badge(tab)).to_have_text("failed")
    (again, *_) = daemon.ask("/jobs?last=1")
    assert (again["rerun"], again["workers"]) == (job["id"], 2)


def test_a_job_is_cancelled_after_a_confirmation(tab, daemon, s3):
    put_film(s3, "long", ["slow\n", "fine\n"])
    job = daemon.ask("/jobs", order("long", workers=1))["id"]
    log_in(tab, daemon, job)
    expect(badge(tab)).to_have_text("running")
    tab.get_by_role("button", name="Cancel").click()
    expect(tab.get_by_role("button", name="Back")).to_be_focused()
    tab.keyboard.press("Escape")
    assert not daemon.ask(f"/jobs/{job}")["finished"]
    tab.get_by_role("button", name="Cancel").click()
    tab.get_by_role("button", name="Cancel the job").click()
    expect(badge(tab)).to_have_text("cancelled")
    assert daemon.ask(f"/jobs/{job}")["state"] == "cancelled"


EVIL = (
    "<img src=x onerror=document.body.dataset.evil=1><script>document.body.dataset.evil=1</script>"
)


def test_what_a_worker_prints_is_text_wherever_it_is_shown(tab, daemon, s3):
    s3.client().put_object(Bucket="films", Key="evil/a", Body=b"1")
    params = {"bucket": "films", "keys": ["evil/a"], "out_prefix": "out/"}
    params["command"] = f"printf '\\033[31m%s\\033[0m\\n' '{EVIL}'; echo '{EVIL}' >&2; exit 3"
    job = {"pipeline": "map", "function": "png2y4m", "params": params, "retries": 1, "name": EVIL}
    ended = daemon.wait(daemon.ask("/jobs", job)["id"])
    assert ended["state"] == "failed"
    log_in(tab, daemon)
    expect(tab.locator(".jobs")).to_contain_text(EVIL)
    log_in(tab, daemon, ended["id"])
    expect(tab.get_by_role("heading", level=1)).to_contain_text(EVIL)
    expect(tab.locator("p.error")).to_contain_text("exit status 3")
    tab.locator(".actors a").first.click()
    expect(tab.locator(".log")).to_have_text(f"{EVIL}\n{EVIL}\n")
    assert tab.evaluate("document.body.dataset.evil") is None
    assert tab.locator("main img, main script").count() == 0
    # If a fault in the page made it markup all the same, the policy would not let it run.
    tab.evaluate(f"document.body.insertAdjacentHTML('beforeend', {EVIL!r})")
    tab.wait_for_timeout(200)
    assert tab.evaluate("document.body.dataset.evil") is None


def test_a_reader_sees_everything_and_changes_nothing(tab, daemon, s3):
    put_film(s3, "read", ["slow\n", "fine\n"])
    job = daemon.ask("/jobs", order("read", workers=1))["id"]
    log_in(tab, daemon, job, "--read-only")
    expect(badge(tab)).to_have_text("running")
    expect(tab.get_by_text("read only")).to_be_visible()
    assert tab.get_by_role("button", name="Cancel").count() == 0
    expect(tab.get_by_role("link", name="New job")).to_be_hidden()
    bearer = json.loads(tab.evaluate("sessionStorage.getItem('mu-session')"))["session"]
    for method, path in (("DELETE", f"/jobs/{job}"), ("POST", "/jobs"), ("POST", "/codes")):
        request = urllib.request.Request(daemon.url + path, b"{}", method=method)
        request.add_header("Authorization", f"Bearer {bearer}")
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=120)
        assert refused.value.code in (401, 403)
    daemon.ask(f"/jobs/{job}", method="DELETE")
    expect(badge(tab)).to_have_text("cancelled")


def test_a_page_of_another_site_is_refused(daemon):
    for origin in ("http://evil.example", "null", f"{daemon.url}.evil.example", "http://127.0.0.1"):
        request = urllib.request.Request(daemon.url + "/sessions", b'{"code": ""}')
        request.add_header("Origin", origin)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=120)
        assert json.load(refused.value)["error"]["message"].startswith("Origin must be the page's")


def test_the_page_goes_on_after_a_restart_of_the_daemon(tab, tmp_path, s3, joiner):
    daemon = Daemon(tmp_path, s3.env, free_ports_conf())
    try:
        daemon.create_function("png2y4m", joiner)
        put_film(s3, "lasting", ["nap\n", *["nap\n"] * 7])
        job = daemon.ask("/jobs", order("lasting", workers=1, frames=8))["id"]
        log_in(tab, daemon, job)
        expect(badge(tab)).to_have_text("running")
        daemon.process.kill()
        expect(tab.get_by_role("status").first).to_contain_text("Reconnecting")
        daemon = Daemon(tmp_path, s3.env, free_ports_conf())
        expect(badge(tab)).to_have_text("done")
        expect(tab.get_by_role("status").first).to_be_empty()
    finally:
        daemon.stop()


def test_the_keyboard_is_enough(tab, daemon, s3):
    put_film(s3, "keys", ["fine\n"] * 4)
    job = daemon.wait(daemon.ask("/jobs", order("keys", workers=2))["id"])
    log_in(tab, daemon)
    tab.keyboard.press("/")
    tab.keyboard.type(job["id"])
    expect(tab.locator(".jobs tbody tr")).to_have_count(1)
    tab.keyboard.press("Tab")
    expect(tab.get_by_role("link", name=job["id"])).to_be_focused()
    tab.keyboard.press("Enter")
    expect(badge(tab)).to_have_text("done")
    timeline = tab.locator("canvas.timeline")
    timeline.focus()
    before = timeline.get_attribute("aria-label")
    for key in ("+", "+", "ArrowRight"):
        tab.keyboard.press(key)
    expect(timeline).not_to_have_attribute("aria-label", before)
    tab.keyboard.press("0")
    expect(timeline).to_have_attribute("aria-label", before)
    tab.get_by_role("heading", level=1).click()
    tab.keyboard.press("?")
    expect(tab.get_by_role("dialog")).to_contain_text("one level up")
    tab.keyboard.press("Escape")
    tab.keyboard.press("u")
    expect(tab.get_by_role("heading", name="Jobs")).to_be_visible()


# ---------------------------------------------------------------- ten thousand actors

STEPS = """async () => {
  const canvas = document.querySelector("canvas.timeline");
  const times = [];
  for (const key of [..."++++----", "ArrowRight", "ArrowLeft", "+", "0"]) {
    const begun = performance.now();
    canvas.dispatchEvent(new KeyboardEvent("keydown", {key}));
    await new Promise((drawn) => requestAnimationFrame(() => setTimeout(drawn)));
    times.push(performance.now() - begun);
  }
  return times;
}"""


@pytest.mark.soak
def test_ten_thousand_actors_are_shown_filtered_and_zoomed(tab, tmp_path):
    workers = 10_000
    conf = free_ports_conf(worker="hello_s = 600", local="enabled = no")
    daemon = Daemon(tmp_path, conf=conf)
    try:
        body = {"pipeline": "hello", "engine": "external", "workers": workers}
        job = daemon.ask("/jobs", body | {"params": {"rounds": 20}})
        event = job["event"]
        for name, field in (("ca.pem", "cacert"), ("job.pem", "srvcrt"), ("job.key", "srvkey")):
            (tmp_path / name).write_text(event[field])
        command = [sys.executable, str(ROOT / "bench" / "swarm.py"), str(tmp_path)]
        swarm = subprocess.Popen(
            [*command, str(daemon.ports["worker"]), str(workers)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        swarm.stdout.readline()
        tab.set_default_timeout(600_000)
        expect.set_options(timeout=600_000)
        log_in(tab, daemon, job["id"])
        swarm.stdin.write(b"go\n")
        swarm.stdin.flush()
        expect(badge(tab)).to_have_text("done")
        expect(tab.locator(".figures")).to_contain_text("10,000 of 10,000 inputs")
        expect(tab.locator(".tools .legend")).to_contain_text("echo")
        swarm.wait(60)
        assert tab.locator(".actors tbody tr").count() == 50
        tab.get_by_label("Filter actors by text").fill("9999")
        expect(tab.locator(".actors tbody tr")).to_have_count(1)
        tab.get_by_label("Filter actors by text").fill("")
        expect(tab.locator(".pager")).to_contain_text("1–50 of 10,000")
        times = tab.evaluate(STEPS)
        print("steps, in ms:", [round(one) for one in times])
        tab.screenshot(path=tmp_path / "page.png", full_page=True)
    finally:
        daemon.process.kill()


def test_failed_inputs_are_grouped_by_reason_and_actors_are_found_by_their_inputs(tab, daemon, s3):
    for name in ("one", "two", "bad1", "three", "bad2", "four"):
        s3.client().put_object(Bucket="films", Key=f"found/{name}", Body=name.encode())
    params = {"bucket": "films", "prefix": "found/", "out_prefix": "found-out/"}
    params |= {"command": "grep -v bad {in} > {out}", "tolerate": "2"}
    given = {"pipeline": "map", "workers": 2, "function": "png2y4m", "params": params}
    job = daemon.wait(daemon.ask("/jobs", given)["id"])
    assert job["state"] == "done", job["error"]
    log_in(tab, daemon, job["id"])
    expect(tab.locator(".failure")).to_have_count(1)
    expect(tab.locator(".failure")).to_contain_text("found/bad1")
    expect(tab.locator(".failure pre")).to_have_text("exit status 1")
    rows = tab.locator(".actors tbody tr")
    expect(rows).to_have_count(2)
    tab.get_by_label("Filter actors by text").fill("BAD1")
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("done")
    tab.get_by_label("Filter actors by text").fill("no such thing")
    expect(rows).to_have_count(0)


def test_a_report_shows_the_page_without_a_network_and_a_summary_without_scripts(
    tab, browser, daemon, s3, tmp_path
):
    put_film(s3, "told", ["a\n", "b\n", "c\n", "bad\n", "d\n", "e\n"])
    failed = daemon.wait(daemon.ask("/jobs", order("told", workers=3))["id"])
    path = tmp_path / "job.html"
    assert inside("report", failed["id"], "-o", path, daemon=daemon).exit_code == 0
    tab.context.set_offline(True)
    said = []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("request", lambda request: said.append(request.url))
    tab.goto(path.as_uri())
    expect(badge(tab)).to_have_text("failed")
    expect(tab.locator(".failure pre")).to_contain_text("expected 'OK:RETVAL(0)'")
    expect(tab.locator(".actors tbody tr")).to_have_count(3)
    expect(tab.get_by_role("heading", name="Slowest actors", exact=True)).to_be_visible()
    expect(tab.get_by_role("button", name="Cancel")).to_have_count(0)
    canvas = tab.locator("canvas.timeline")
    expect(canvas).to_have_attribute("aria-label", re.compile("^Timeline of 3 actors, from 0 s "))
    expect(tab.locator(".tools .legend")).to_contain_text("run")
    tab.get_by_title("Zoom in").click()
    expect(canvas).not_to_have_attribute("aria-label", re.compile("from 0 s "))
    tab.get_by_label("Filter actors by state").select_option("failed")
    expect(tab.locator(".actors tbody tr")).to_have_count(1)
    tab.locator(".actors tbody a").click()
    expect(tab.get_by_role("heading", level=1)).to_contain_text("Actor 1")
    expect(tab.get_by_role("heading", name="Failed attempts")).to_be_visible()
    tab.get_by_role("link", name=f"Job {failed['id']}").click()
    expect(tab.get_by_role("heading", name="Actors", exact=True)).to_be_visible()
    assert said == [path.as_uri()], "no request but the file itself, and no complaint"
    context = browser.new_context(java_script_enabled=False)
    plain = context.new_page()
    plain.goto(path.as_uri())
    expect(plain.get_by_role("heading", name="Commands")).to_be_visible()
    expect(plain.locator("main")).to_be_hidden()
    context.close()
