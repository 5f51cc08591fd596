"""mu.client against a real daemon, whose workers run functions of Python."""

import asyncio
import functools
import hashlib
import importlib
import inspect
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
from pathlib import Path

import pytest
from kit.wheels import make_wheel, requirements

from mu.client import (
    AsyncClient,
    Client,
    ClientError,
    ItemError,
    JobError,
    NotRunning,
    RequestRefused,
    calls,
    mapping,
)

PAGE = Path(__file__).parents[2] / "docs" / "python.md"
SECRET = 7


def plus(x, y=1):
    return x + y + SECRET - 7


@pytest.fixture(scope="module")
def client(daemon):
    return Client(home=daemon.home)


@pytest.fixture(scope="module")
def function(client):
    """The function that a map deploys, in which pymap may run any function of Python's own."""
    return client.map(plus, [1]).job.told["function"]


@pytest.fixture
def launch(client, function):
    def launch(call, items, workers=1, **more):
        params = {"call": call, "items": items, **more.pop("params", {})}
        return client.launch("pymap", workers=workers, function=function, params=params, **more)

    return launch


# ---------------------------------------------------------------- jobs


def test_a_job_yields_how_its_actors_end_and_knows_the_rest(launch, client):
    job = launch("math:sqrt", [1, 4, 9], workers=3, name="roots")
    ends = list(job)
    assert sorted(end["actor"] for end in ends) == [0, 1, 2]
    assert [end["n"] for end in ends] == [1, 2, 3]
    assert [result["rows"] for result in job.results()] == [[{"value": n}] for n in (1, 2, 3)]
    assert (job.wait(), job.state, client.job(job.id).state) == ("done",) * 3
    assert [one.id for one in client.jobs(name="roots")] == [job.id]
    assert [actor["inputs"]["done"] for actor in job.actors()] == [1, 1, 1]
    assert len(job.timeline()["actors"]) == 3
    assert "== actor 0 ==" in job.log()
    assert f"/#/jobs/{job.id}" in job._repr_html_()
    assert "3 of 3 done" in job._repr_html_()


def test_a_wait_ends_in_time_and_a_cancelled_job_has_no_results(launch):
    job = launch("time:sleep", [60])
    with pytest.raises(TimeoutError, match=f"job {job.id} has not ended within 0.2 s"):
        job.wait(0.2)
    job.cancel()
    assert job.wait() == "cancelled"
    with pytest.raises(JobError, match=f"job {job.id} was cancelled: cancelled by request"):
        job.results()


def test_a_refused_order_says_which_field_is_wrong(launch, client):
    with pytest.raises(RequestRefused, match="workers must be between 1 and") as refused:
        client.launch("hello", workers=0)
    assert (refused.value.field, refused.value.status) == ("workers", 400)
    with pytest.raises(RequestRefused, match="MODULE:FUNCTION, got 'sqrt'") as refused:
        launch("sqrt", [1])
    assert refused.value.field == "params.call"
    with pytest.raises(RequestRefused, match="there is no job 'none'"):
        client.job("none")


def test_the_same_works_with_asyncio(daemon, function):
    async def main():
        client = AsyncClient(url=daemon.url, token=daemon.token)
        order = {"function": function, "params": {"call": "operator:neg", "items": [1, 2]}}
        job = await client.launch("pymap", workers=2, **order)
        ends = [end async for end in job]
        assert len(ends) == len(await job.results()) == 2
        assert (await job.wait(), job.state) == ("done", "done")
        with pytest.raises(RequestRefused, match="must be between 1 and"):
            await client.launch("hello", workers=0)
        order["params"] = {"call": "time:sleep", "items": [60]}
        slow = await client.launch("pymap", **order)
        with pytest.raises(TimeoutError, match=f"job {slow.id} has not ended within 0.2 s"):
            await slow.wait(0.2)
        await slow.cancel()
        mapped = AsyncClient(home=daemon.home).map(plus, range(3))
        assert [value async for value in mapped] == [1, 2, 3]

    asyncio.run(main())


def test_both_clients_say_what_map_takes():
    names = inspect.signature(Client.map).parameters
    assert inspect.signature(AsyncClient.map).parameters == names
    assert "return_exceptions" in names


def test_without_a_daemon_the_client_says_how_to_start_one(tmp_path):
    with pytest.raises(NotRunning, match="no daemon is running for home .*: start it with"):
        Client(home=tmp_path)


def test_results_are_paged_and_waited_for(daemon, launch):
    job = launch("operator:neg", [1, 2, 3], workers=3)
    job.wait()
    path = f"/jobs/{job.id}/results"
    assert [row["n"] for row in daemon.ask(f"{path}?after=1&limit=1")] == [2]
    assert daemon.ask(f"{path}?after=3&wait=20") == []  # at once: the job has ended
    with pytest.raises(urllib.error.HTTPError, match="wait must be a time in seconds, got 'x'"):
        daemon.ask(f"{path}?wait=x")


# ---------------------------------------------------------------- functions of Python


def test_values_come_in_the_order_of_the_items(client):
    assert list(client.map(plus, range(50), workers=3)) == list(range(1, 51))
    assert list(client.map(functools.partial(plus, y=5), [1, 2], chunk=1)) == [6, 7]
    assert sorted(client.map(lambda x: -x, range(4), ordered=False)) == [-3, -2, -1, 0]
    assert list(client.map(plus, [])) == []


def test_modules_of_the_client_are_sent_along(client, tmp_path, monkeypatch):
    (tmp_path / "own_helper.py").write_text("def twice(x):\n    return 2 * x\n")
    (tmp_path / "own_work.py").write_text(
        "import own_helper\nwork = lambda x: own_helper.twice(x)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    work = importlib.import_module("own_work").work
    assert list(client.map(work, [1, 2])) == [2, 4]


def shouted(text):
    return importlib.import_module("shouting").loud(text)


def test_packages_of_the_requirements_are_installed_in_the_function(client, tmp_path):
    make_wheel(tmp_path / "w", "shouting", body="def loud(text):\n    return text.upper()\n")
    lines = requirements(tmp_path / "w", "shouting==1.0")
    assert list(client.map(shouted, ["a", "b"], requirements=lines)) == ["A", "B"]
    with pytest.raises(ModuleNotFoundError, match="shouting"):
        list(client.map(shouted, ["a"]))
    lines = requirements(tmp_path / "w", "shouting==2.0")
    with pytest.raises(ClientError, match="there is no wheel of shouting==2.0 for Python"):
        client.map(shouted, ["a"], requirements=lines)


def fail_at_three(x):
    if x == 3:
        raise KeyError("three")
    if x == 4:
        os._exit(9)
    return x


def test_what_a_call_raises_is_raised_and_cancels_the_job(client):
    results = client.map(fail_at_three, range(4), workers=2)
    with pytest.raises(KeyError, match="three") as raised:
        list(results)
    assert "raised for item 3 by a worker" in raised.value.__notes__[0]
    assert "in fail_at_three" in raised.value.__notes__[0]
    assert results.job.wait() in ("failed", "cancelled")


def test_exceptions_may_be_returned_and_a_dead_process_fails_its_own_item(client):
    results = client.map(fail_at_three, range(6), workers=1, return_exceptions=True)
    values = list(results)
    assert [type(value) for value in values] == [int, int, int, KeyError, ItemError, int]
    assert str(values[4]) == "item 4: its process died: exit status 9"
    assert results.job.refresh()["inputs"] == {"total": 6, "done": 4, "failed": 2}


def test_an_item_that_fails_is_tried_again(client):
    def second_time(name):
        file = Path(f"/tmp/{name}")  # of the sandbox
        file.write_text(file.read_text() + "x" if file.exists() else "x")
        if len(file.read_text()) < 2:
            os._exit(1)
        return file.read_text()

    with pytest.raises(ItemError, match="item 0: its process died: exit status 1"):
        list(client.map(second_time, ["a"]))
    assert list(client.map(second_time, ["b"], item_retries=1)) == ["xx"]


def large(x):
    return bytes(100_000) + x


def test_large_results_come_through_a_blob_or_s3(client, s3, monkeypatch):
    expected = [bytes(100_000) + b"a", bytes(100_000) + b"b"]
    results = client.map(large, [b"a", b"b"])
    assert list(results) == expected
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    through_s3 = client.map(large, [b"a", b"b"], bucket="films", workers=1)
    assert list(through_s3) == expected
    for job in (results.job, through_s3.job):
        assert all(len(str(actor)) < 5000 for actor in job.actors())
    (end,) = through_s3.job
    assert end["result"]["key"] == f"pymap/{through_s3.job.id}/00000000.json"


def test_another_version_of_python_is_refused_with_a_sentence(client, monkeypatch):
    monkeypatch.setattr(mapping, "PYTHON", "3.4")
    with pytest.raises(ItemError, match=r"the client runs Python 3\.4 and the function Python 3\."):
        list(client.map(plus, [1]))


def test_ctrl_c_cancels_the_job(client):
    def interrupt(number, frame):
        raise KeyboardInterrupt

    results = client.map(time.sleep, [60], progress=True)
    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        with pytest.raises(KeyboardInterrupt):
            list(results)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert results.job.wait() == "cancelled"


def test_what_cannot_be_pickled_is_named(client):
    with pytest.raises(ClientError, match="item 1 cannot be sent: TypeError: cannot pickle"):
        client.map(plus, [1, (one for one in [])])


# ---------------------------------------------------------------- blobs


def test_a_blob_is_kept_under_its_digest_only(daemon, client):
    ask = client._send
    content = b"some content" * 1000
    digest = hashlib.sha256(content).hexdigest()
    assert not ask(calls.has_blob(digest))
    with pytest.raises(RequestRefused, match=f"the content's SHA-256 is .*, not {digest}"):
        ask(calls.put_blob(digest, b"other"))
    ask(calls.put_blob(digest, content))
    assert ask(calls.has_blob(digest))
    assert ask(calls.get_blob(digest)) == content
    assert (daemon.home / "blobs" / digest).stat().st_mode & 0o077 == 0
    with pytest.raises(RequestRefused, match="named by its SHA-256 in 64 hex digits, got 'x'"):
        ask(calls.put_blob("x", b""))


def test_a_reader_can_send_no_blob(daemon):
    reader = Client(url=daemon.url, token=(daemon.home / "read-token").read_text())
    with pytest.raises(RequestRefused, match="may only read") as refused:
        reader._send(calls.put_blob("0" * 64, b""))
    assert refused.value.status == 403
    with pytest.raises(RequestRefused, match="must have at most 1048576 bytes"):
        reader._send(calls.put_blob("0" * 64, bytes(2**20 + 1)))


# ---------------------------------------------------------------- docs/python.md


def test_the_code_in_the_docs_runs(daemon, tmp_path):
    blocks = re.findall(r"(?:^    .*\n|^\n(?=    ))+", PAGE.read_text(), re.MULTILINE)
    script = tmp_path / "page.py"
    code = "".join(line[4:] or "\n" for block in blocks for line in block.splitlines(True))
    script.write_text(code)
    env = {**os.environ, "MU_HOME": str(daemon.home)}
    ran = subprocess.run([sys.executable, script], env=env, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "998001]" in ran.stdout
    assert "division by zero" in ran.stdout
