"""The local engine, driven with boto3: its API and its sandboxes, with real processes."""

import base64
import hashlib
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from kit.film import wait_until
from kit.local import (
    CHECKOUT,
    COLD,
    HANDLER,
    ROLE,
    Engine,
    bundle,
    processes_of,
    running_engine,
    start_engine,
)

HELLO = "def handler(event, context):\n    return 'new'\n"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    home = tmp_path_factory.mktemp("home")
    role = {
        "AWS_ACCESS_KEY_ID": "role",
        "AWS_SECRET_ACCESS_KEY": "s",
        "AWS_PROFILE": "mine",
        "SECRET_OF_THE_DAEMON": "1",
    }
    with running_engine(home, warm=True, **role) as engine:
        engine.create("f", Timeout=20, Environment={"Variables": {"AB": "c"}})
        yield engine


@pytest.fixture(scope="module", params=[(), ("--shared-tmp",)])
def either(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    """With namespaces, and without."""
    with running_engine(tmp_path_factory.mktemp("home"), *request.param) as engine:
        engine.create("f", Timeout=20)
        yield engine


@pytest.fixture(params=["/tmp", "/var/tmp"])
def anywhere(request: pytest.FixtureRequest) -> Iterator[Path]:
    with TemporaryDirectory(dir=request.param) as folder:
        yield Path(folder)


def test_a_created_function_is_described_as_on_aws(engine: Engine) -> None:
    zipped = bundle()
    made = engine.create("told", Timeout=7, MemorySize=512, EphemeralStorage={"Size": 600})
    found = engine.lam.get_function(FunctionName="told")["Configuration"]
    assert made["ResponseMetadata"]["HTTPStatusCode"] == 201
    assert found["FunctionArn"] == "arn:aws:lambda:eu-west-1:000000000000:function:told"
    assert found["CodeSha256"] == base64.b64encode(hashlib.sha256(zipped).digest()).decode()
    assert (found["CodeSize"], found["Version"]) == (len(zipped), "$LATEST")
    assert (found["State"], found["LastUpdateStatus"]) == ("Active", "Successful")
    assert (found["Timeout"], found["MemorySize"], found["Role"]) == (7, 512, ROLE)
    assert found["EphemeralStorage"] == {"Size": 600}
    assert engine.lam.get_function_configuration(FunctionName="told")["Handler"] == "main.handler"


def test_a_function_answers_by_name_and_by_arn(engine: Engine) -> None:
    arn = "arn:aws:lambda:eu-west-1:000000000000:function:f"
    for name in ("f", "f:$LATEST", arn, f"{arn}:$LATEST"):
        answer = engine.invoke(name, x=[1, "é"])
        assert (answer["event"], answer["name"]) == ({"x": [1, "é"]}, "f")
        assert 15_000 < answer["left"] <= 20_000


def test_a_dry_run_runs_nothing(engine: Engine) -> None:
    answer = engine.lam.invoke(FunctionName="f", InvocationType="DryRun", Payload="{}")
    assert answer["StatusCode"] == 204


def test_an_event_is_accepted_before_it_runs(engine: Engine, tmp_path: Path) -> None:
    with TemporaryDirectory(dir="/var/tmp") as folder:
        entered = Path(folder) / "entered"
        engine.later("f", do="sleep", seconds=0, file=str(entered))
        wait_until(entered.exists, what="the event ran")


def test_modes_and_links_of_the_zip_are_restored(engine: Engine) -> None:
    assert engine.shell("f", "./tool.sh") == [0, "the tool runs\n", ""]


def test_the_environment_is_the_functions_and_not_the_daemons(engine: Engine) -> None:
    found = engine.invoke("f", do="environment")
    assert found["AWS_LAMBDA_FUNCTION_NAME"] == "f"
    assert found["AWS_REGION"] == "eu-west-1"
    assert (found["AB"], found["AWS_ACCESS_KEY_ID"]) == ("c", "role")
    assert not {"AWS_PROFILE", "SECRET_OF_THE_DAEMON", "PYTHONPATH", "TMPDIR"} & set(found)


def test_the_bundles_own_mu_is_imported(engine: Engine) -> None:
    where, path, boto3, folder = engine.invoke("f", do="mu")
    assert (where, boto3, path[0]) == ("the bundle", True, folder)


def test_sandboxes_find_a_home_and_a_venv_under_tmp(engine: Engine) -> None:
    if not engine.told["private_tmp"]:
        pytest.skip(engine.told["why_shared"])
    module, printed = engine.invoke("f", do="late import")
    assert not module.startswith("/tmp")
    assert printed == "6\n"


def test_updating_code_does_not_affect_a_running_sandbox(engine: Engine) -> None:
    engine.create("g", Timeout=20)
    with ThreadPoolExecutor() as threads:
        before = threads.submit(engine.shell, "g", "sleep 0.4; ./tool.sh")
        wait_until(lambda: list((engine.home / "local" / "logs" / "g").glob("*")), what="it runs")
        engine.lam.update_function_code(FunctionName="g", ZipFile=bundle(HELLO))
        assert engine.invoke("g") == "new"
        assert before.result() == [0, "the tool runs\n", ""]
    codes = engine.home / "local" / "functions" / "g" / "code"
    wait_until(lambda: len(list(codes.iterdir())) == 1, what="the old code is removed")


def test_a_deleted_function_is_gone(engine: Engine) -> None:
    engine.create("h")
    engine.lam.update_function_configuration(FunctionName="h", Timeout=9)
    engine.lam.put_function_event_invoke_config(FunctionName="h", MaximumRetryAttempts=0)
    config = engine.lam.get_function_event_invoke_config(FunctionName="h")
    assert config["MaximumRetryAttempts"] == 0
    assert engine.lam.get_function_configuration(FunctionName="h")["Timeout"] == 9
    engine.lam.delete_function(FunctionName="h")
    with pytest.raises(engine.lam.exceptions.ResourceNotFoundException):
        engine.lam.invoke(FunctionName="h")
    assert not (engine.home / "local" / "functions" / "h").exists()


def test_tmp_is_private_to_a_sandbox_wherever_home_is(anywhere: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    marker.touch()
    assert str(marker).startswith("/tmp/")
    with running_engine(anywhere) as engine, ThreadPoolExecutor() as threads:
        engine.create("f", Timeout=20)
        # Otherwise, the commands below would empty the machine's own /tmp.
        if not engine.told["private_tmp"]:
            pytest.skip(engine.told["why_shared"])
        private = f"test ! -e {marker} && grep -q ' /tmp ' /proc/self/mountinfo"
        assert engine.shell("f", private)[0] == 0
        name = f"0.5{time.time_ns()}"
        mine = threads.submit(engine.shell, "f", f"echo 1 > /tmp/mine; sleep {name}; cat /tmp/*")
        wait_until(lambda: sleepers(name), what="it has written")
        assert engine.shell("f", "ls -A /tmp; stat -c %a /tmp") == [0, "1777\n", ""]
        removal = f"{private} && mkdir -p /tmp/a/b && rm -rf /tmp/* && ls -A /tmp"
        assert engine.shell("f", removal) == [0, "", ""]
        assert engine.shell("f", "./tool.sh")[1] == "the tool runs\n"
        assert mine.result() == [0, "1\n", ""]
        sandboxes = anywhere / "local" / "sandboxes"
        wait_until(lambda: not list(sandboxes.iterdir()), what="sandboxes' folders are removed")
    assert marker.exists()


DAEMONISE = "setsid sh -c 'sleep {} & setsid sleep {} &' >/dev/null 2>&1 </dev/null; echo done"


def test_a_daemonised_grandchild_dies_with_its_sandbox(either: Engine) -> None:
    name = f"97.{time.time_ns()}"
    assert either.shell("f", DAEMONISE.format(name, name))[1] == "done\n"
    assert sleepers(name) == []


def sleepers(name: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes() == f"sleep\0{name}\0".encode():
                found.append(path.parent.name)
        except OSError:
            continue
    return found


@pytest.mark.parametrize("options", [(), ("--shared-tmp",)])
def test_sigterm_ends_the_engine_and_its_sandboxes(
    options: tuple[str, ...], tmp_path: Path
) -> None:
    name = f"98.{time.time_ns()}"
    with running_engine(tmp_path, *options) as engine:
        engine.create("f", Timeout=60)
        for _ in range(5):
            engine.later("f", do="shell", command=DAEMONISE.format(name, name) + "; sleep 60")
        wait_until(lambda: len(sleepers(name)) == 10, what="they run")
        began = time.monotonic()
    assert sleepers(name) == []
    assert time.monotonic() - began < 50, "not only at their timeout"


@pytest.mark.parametrize("options", [(), ("--shared-tmp",)])
def test_a_killed_engine_leaves_no_processes(options: tuple[str, ...], tmp_path: Path) -> None:
    name = f"99.{time.time_ns()}"
    process, engine = start_engine(tmp_path, *options)
    engine.create("f", Timeout=20)
    engine.later("f", do="shell", command=DAEMONISE.format(name, name) + "; sleep 60")
    wait_until(lambda: len(sleepers(name)) == 2, what="they run")
    process.kill()
    process.wait()
    wait_until(lambda: not sleepers(name) and not processes_of(tmp_path), what="all has ended")


def test_without_namespaces_the_engine_says_so(tmp_path: Path) -> None:
    with running_engine(tmp_path, "--shared-tmp", warm=True) as engine:
        assert engine.told["private_tmp"] is False
        assert engine.told["why_shared"] == "requested with --shared-tmp"
        assert "share the machine's /tmp" in engine.log
        engine.create("f", Timeout=1)
        assert engine.invoke("f", do="environment")["MU_SHARED_TMP"] == "1"
        assert engine.invoke("f", do="mu")[2], "boto3 is warm"
        engine.create("hungry", Timeout=20)
        with ThreadPoolExecutor() as threads:
            hungry = threads.submit(engine.fail, "hungry", do="allocate", mb=300, seconds=15)
            assert "timed out" in engine.fail("f", do="shell", command="sleep 60")["errorMessage"]
            assert "signal: killed" in engine.fail("f", do="kill")["errorMessage"]
            assert "signal: killed" in hungry.result()["errorMessage"]


def test_a_dead_warm_parent_is_replaced(tmp_path: Path) -> None:
    with running_engine(tmp_path) as engine, ThreadPoolExecutor() as threads:
        engine.create("f", Timeout=20)
        name = f"95.{time.time_ns()}"
        waiting = threads.submit(engine.fail, "f", do="shell", command=f"sleep {name}")
        wait_until(lambda: sleepers(name), what="it runs")
        os.kill(warm_parent(engine), signal.SIGKILL)
        assert "signal: killed" in waiting.result()["errorMessage"]
        assert engine.shell("f", "echo again")[1] == "again\n"


def test_killing_one_sandbox_does_not_affect_the_others(either: Engine) -> None:
    name = f"96.{time.time_ns()}"
    with ThreadPoolExecutor() as threads:
        other = threads.submit(either.shell, "f", "sleep 0.7; echo mine")
        killed = threads.submit(either.fail, "f", do="shell", command=f"sleep {name}")
        [sleeper] = wait_until(lambda: sleepers(name), what="it runs")
        os.kill(supervisor_of(int(sleeper)), signal.SIGKILL)
        assert "signal: killed" in killed.result()["errorMessage"]
        assert other.result() == [0, "mine\n", ""]
        wait_until(lambda: not sleepers(name), what="nothing of it is left")
        assert "signal: killed" in either.log


def supervisor_of(pid: int) -> int:
    """Return the session leader of `pid`."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[3])


def warm_parent(engine: Engine) -> int:
    children = Path(f"/proc/{engine.pid}/task/{engine.pid}/children").read_text().split()
    return int(children[0])


def test_functions_survive_a_restart(tmp_path: Path) -> None:
    with running_engine(tmp_path) as engine:
        engine.create("f", Environment={"Variables": {"OLD": "a", "AB": "b"}})
        engine.lam.update_function_configuration(
            FunctionName="f", Environment={"Variables": {"AB": "c"}}
        )
        with pytest.raises(engine.lam.exceptions.InvalidParameterValueException, match="HANDLER"):
            engine.lam.update_function_configuration(
                FunctionName="f", Environment={"Variables": {"_HANDLER": "c"}}
            )
        assert "OLD" not in engine.invoke("f", do="environment")
    with running_engine(tmp_path) as engine:
        assert engine.invoke("f", do="environment")["AB"] == "c"


def test_two_hundred_events_start_within_seconds(tmp_path: Path) -> None:
    with TemporaryDirectory(dir="/var/tmp") as folder, running_engine(tmp_path) as engine:
        engine.create("f", Timeout=60, Code={"ZipFile": bundle(HANDLER)})
        entered = Path(folder) / "entered"
        began = time.time()
        with ThreadPoolExecutor(4) as threads:
            event = {"do": "sleep", "seconds": 3, "file": str(entered)}
            list(threads.map(lambda _: engine.later("f", **event), range(200)))
        wait_until(
            lambda: entered.exists() and len(entered.read_text().split()) == 200, what="all entered"
        )
        last = max(float(line) for line in entered.read_text().split())
        print(f"200 entered within {last - began:.2f} s")


HIDDEN = ("token", "ca.key", "journal.db", "local/key", "local/engine.json", "local/logs")


@pytest.mark.parametrize("inside", ["", "checkout/deep/"])
def test_sandboxes_do_not_see_the_daemons_home(anywhere: Path, inside: str) -> None:
    home = anywhere / inside / "home"
    home.mkdir(parents=True)
    for name in ("token", "ca.key", "journal.db"):
        (home / name).write_text("a secret")
    with running_engine(home) as engine:
        if not engine.told["private_tmp"]:
            pytest.skip(engine.told["why_shared"])
        engine.create("f", Timeout=20)
        engine.create("g", Timeout=20)
        # The bundle is visible, and so is the path of the home: not what else is in it.
        code = engine.shell("f", "pwd")[1].strip()
        seen = code.partition("/local/functions/")[0]
        for root in {seen, str(home)}:
            for name in HIDDEN:
                assert engine.shell("f", f"cat {root}/{name}")[0] == 1
        assert engine.shell("f", f"find {seen} -path {code} -prune -o -type f -print")[1] == ""
        assert engine.shell("f", f"ls {seen}/local/functions")[1] == "f\n"
        assert engine.shell("f", "./tool.sh")[1] == "the tool runs\n"
        # Nor can they uncover it, write there, or find it by another process.
        assert engine.shell("f", f"touch {seen}/x {code}/x")[0] == 1
        uncover = f"umount {seen} || umount -l {seen}; cat {seen}/token"
        for command in (uncover, f"unshare -Urm sh -c '{uncover}'"):
            assert "a secret" not in engine.shell("f", command)[1]
        for root in {seen, str(home)}:
            by_others = f"for each in /proc/[0-9]*; do cat $each/root{root}/token; done"
            assert engine.shell("f", by_others)[1] == ""
    assert (home / "token").read_text() == "a secret"


def test_a_venv_in_the_home_stays_visible(tmp_path: Path) -> None:
    kept = tmp_path / "venv" / "lib"
    kept.mkdir(parents=True)
    (kept / "ours.py").write_text("NAME = 'ours'\n")
    (tmp_path / "token").write_text("a secret")
    handler = "import ours\ndef handler(event, context):\n    return [ours.NAME, ours.__file__]\n"
    with running_engine(tmp_path, PYTHONPATH=f"{kept}:{COLD}:{CHECKOUT}") as engine:
        if not engine.told["private_tmp"]:
            pytest.skip(engine.told["why_shared"])
        engine.create("f", Code={"ZipFile": bundle(handler)})
        name, file = engine.invoke("f")
        assert name == "ours"
        assert not Path(file).is_relative_to("/tmp")


def test_sandboxes_cannot_read_or_kill_one_another(tmp_path: Path) -> None:
    name = f"94.{time.time_ns()}"
    with running_engine(tmp_path) as engine, ThreadPoolExecutor() as threads:
        if not engine.told["private_tmp"]:
            pytest.skip(engine.told["why_shared"])
        engine.create("f", Timeout=20)
        victim = (
            f"echo secret > /dev/shm/mine; echo secret > /tmp/mine; SECRET=secret sleep {name} &"
            " sleep 1.5; cat /dev/shm/mine; readlink /proc/self/ns/ipc; kill $!"
        )
        running = threads.submit(engine.shell, "f", victim)
        [sleeper] = wait_until(lambda: sleepers(name), what="it runs")
        ours = os.readlink("/proc/self/ns/ipc")
        look = (
            "ls /dev/shm /tmp; cat /proc/[0-9]*/environ | tr '\\0' '\\n' | grep SECRET=;"
            f" kill -9 {sleeper}; ls -d /proc/{sleeper}"
        )
        status, said, _ = engine.shell("f", look)
        assert (status, said) == (2, "/dev/shm:\n\n/tmp:\n")
        assert "killed" in str(engine.fail("f", do="shell", command="kill -9 -1"))
        status, said, _ = running.result()
        secret, ipc = said.split("\n")[:2]
        assert (secret, ipc != ours) == ("secret", True)
        assert not list(Path("/dev/shm").glob("mine"))
