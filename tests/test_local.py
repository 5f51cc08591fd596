"""The embedded local engine: its API by boto3, its sandboxes, with real processes."""

import base64
import hashlib
import json
import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from local_support import (
    HANDLER,
    ROLE,
    Engine,
    bundle,
    processes_of,
    running_engine,
    start_engine,
    wait_for,
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
    with running_engine(home, **role) as engine:
        engine.create("f", Timeout=20, Environment={"Variables": {"A": "b"}})
        yield engine


@pytest.fixture(params=["/tmp", "/var/tmp"])
def anywhere(request: pytest.FixtureRequest) -> Iterator[Path]:
    with TemporaryDirectory(dir=request.param) as folder:
        yield Path(folder)


def test_a_created_function_is_told_as_aws_tells_it(engine: Engine) -> None:
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


def test_refusals_are_the_exceptions_that_boto3_knows(engine: Engine) -> None:
    refused = engine.lam.exceptions
    with pytest.raises(refused.ResourceNotFoundException, match="Function not found: arn"):
        engine.lam.get_function(FunctionName="none")
    with pytest.raises(refused.ResourceNotFoundException):
        engine.lam.invoke(FunctionName="f", Qualifier="7")
    with pytest.raises(refused.ResourceConflictException):
        engine.create("f")
    with pytest.raises(refused.InvalidParameterValueException, match="Timeout"):
        engine.create("g", Timeout=901)
    with pytest.raises(refused.InvalidParameterValueException, match="unzip"):
        engine.create("g", Code={"ZipFile": b"no zip"})
    with pytest.raises(refused.InvalidRequestContentException):
        engine.lam.invoke(FunctionName="f", Payload=b"{no json")
    large = json.dumps("x" * 2**20)
    with pytest.raises(refused.RequestTooLargeException):
        engine.lam.invoke(FunctionName="f", InvocationType="Event", Payload=large)


def test_a_request_that_is_not_signed_is_refused(engine: Engine) -> None:
    url = f"http://127.0.0.1:{engine.port}/2015-03-31/functions/f"
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(url)
    with refused.value as error:
        assert error.code == 403
        assert error.headers["x-amzn-ErrorType"] == "MissingAuthenticationTokenException"


def test_a_dry_run_runs_nothing(engine: Engine) -> None:
    answer = engine.lam.invoke(FunctionName="f", InvocationType="DryRun", Payload="{}")
    assert answer["StatusCode"] == 204


def test_an_exception_is_told_with_its_trace(engine: Engine) -> None:
    told = engine.fail("f", do="raise")
    assert (told["errorType"], told["errorMessage"]) == ("ValueError", "no such luck")
    assert len(told["stackTrace"]) == 1
    assert 'raise ValueError("no such luck")' in told["stackTrace"][0]


def test_a_result_that_is_no_json_is_an_error(engine: Engine) -> None:
    assert engine.fail("f", do="object")["errorType"] == "Runtime.MarshalError"


def test_a_bundle_without_the_handler_is_told(engine: Engine) -> None:
    for handler, kind in (
        ("nowhere.handler", "Runtime.ImportModuleError"),
        ("main.nothing", "Runtime.HandlerNotFound"),
    ):
        engine.create(kind.replace(".", "-"), Handler=handler)
        assert engine.fail(kind.replace(".", "-"))["errorType"] == kind


def test_an_exit_and_a_kill_are_told_as_aws_words_them(engine: Engine) -> None:
    assert engine.fail("f", do="exit", status=3)["errorMessage"].endswith(
        "Error: Runtime exited with error: exit status 3"
    )
    assert engine.fail("f", do="exit", status=0)["errorMessage"].endswith(
        "Error: Runtime exited without providing a reason"
    )
    killed = engine.fail("f", do="kill")
    assert killed["errorType"] == "Runtime.ExitError"
    assert killed["errorMessage"].endswith("Error: Runtime exited with error: signal: killed")


def test_a_function_that_takes_too_long_is_ended(engine: Engine) -> None:
    engine.create("short", Timeout=1)
    told = engine.fail("short", do="shell", command="sleep 60")
    assert told["errorMessage"].endswith("Task timed out after 1.00 seconds")


def test_an_event_is_accepted_before_it_runs(engine: Engine, tmp_path: Path) -> None:
    with TemporaryDirectory(dir="/var/tmp") as folder:
        entered = Path(folder) / "entered"
        engine.later("f", do="sleep", seconds=0, file=str(entered))
        wait_for(entered.exists, "the event ran")


def test_what_it_prints_is_in_the_log_and_its_end_is_told(engine: Engine) -> None:
    event = json.dumps({"do": "sleep", "seconds": 0, "file": "/tmp/x"})
    answer = engine.lam.invoke(FunctionName="f", LogType="Tail", Payload=event)
    tail = base64.b64decode(answer["LogResult"]).decode()
    assert tail.startswith("START RequestId: ")
    assert "\nsleeping now\n" in tail
    assert "REPORT RequestId: " in tail
    request = answer["ResponseMetadata"]["RequestId"]
    assert (engine.home / "local" / "logs" / "f" / f"{request}.log").read_text() == tail


def test_modes_and_links_of_the_zip_are_restored(engine: Engine) -> None:
    assert engine.shell("f", "./tool.sh") == [0, "the tool runs\n", ""]


def test_the_environment_is_the_functions_and_not_the_daemons(engine: Engine) -> None:
    found = engine.invoke("f", do="environment")
    assert found["AWS_LAMBDA_FUNCTION_NAME"] == "f"
    assert found["AWS_REGION"] == "eu-west-1"
    assert (found["A"], found["AWS_ACCESS_KEY_ID"]) == ("b", "role")
    assert not {"AWS_PROFILE", "SECRET_OF_THE_DAEMON", "PYTHONPATH", "TMPDIR"} & set(found)


def test_the_bundles_own_mu_is_imported(engine: Engine) -> None:
    where, path, boto3, folder = engine.invoke("f", do="mu")
    assert (where, boto3, path[0]) == ("the bundle", True, folder)


def test_nothing_is_missing_though_home_and_venv_lie_under_tmp(engine: Engine) -> None:
    if not engine.told["private_tmp"]:
        pytest.skip(engine.told["why_shared"])
    module, printed = engine.invoke("f", do="late import")
    assert not module.startswith("/tmp")
    assert printed == "6\n"


def test_code_is_replaced_under_a_running_sandbox(engine: Engine) -> None:
    engine.create("g", Timeout=20)
    with ThreadPoolExecutor() as threads:
        before = threads.submit(engine.shell, "g", "sleep 1; ./tool.sh")
        wait_for(lambda: list((engine.home / "local" / "logs" / "g").glob("*")), "it runs")
        engine.lam.update_function_code(FunctionName="g", ZipFile=bundle(HELLO))
        assert engine.invoke("g") == "new"
        assert before.result() == [0, "the tool runs\n", ""]
    codes = engine.home / "local" / "functions" / "g" / "code"
    wait_for(lambda: len(list(codes.iterdir())) == 1, "the old code is removed")


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
        # What follows would empty the machine's own /tmp if this were not so.
        if not engine.told["private_tmp"]:
            pytest.skip(engine.told["why_shared"])
        assert engine.shell("f", f"test ! -e {marker}")[0] == 0
        mine = threads.submit(engine.shell, "f", "echo 1 > /tmp/mine; sleep 1; cat /tmp/*")
        wait_for(lambda: list(anywhere.glob("local/sandboxes/*/tmp/mine")), "it writes")
        assert engine.shell("f", "ls -A /tmp; stat -c %a /tmp") == [0, "1777\n", ""]
        removal = f"test ! -e {marker} && mkdir -p /tmp/a/b && rm -rf /tmp/* && ls -A /tmp"
        assert engine.shell("f", removal) == [0, "", ""]
        assert engine.shell("f", "./tool.sh")[1] == "the tool runs\n"
        assert mine.result() == [0, "1\n", ""]
        sandboxes = anywhere / "local" / "sandboxes"
        wait_for(lambda: not list(sandboxes.iterdir()), "sandboxes' folders are removed")
    assert marker.exists()


DAEMONISE = "setsid sh -c 'sleep {} & setsid sleep {} &' >/dev/null 2>&1 </dev/null; echo done"


@pytest.mark.parametrize("options", [(), ("--shared-tmp",)])
def test_a_daemonised_grandchild_dies_with_its_sandbox(
    options: tuple[str, ...], tmp_path: Path
) -> None:
    with running_engine(tmp_path, *options) as engine:
        engine.create("f", Timeout=20)
        name = f"97.{time.time_ns()}"
        assert engine.shell("f", DAEMONISE.format(name, name))[1] == "done\n"
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
def test_sigterm_ends_the_engine_with_all_that_runs(
    options: tuple[str, ...], tmp_path: Path
) -> None:
    name = f"98.{time.time_ns()}"
    with running_engine(tmp_path, *options) as engine:
        engine.create("f", Timeout=20)
        for _ in range(5):
            engine.later("f", do="shell", command=DAEMONISE.format(name, name) + "; sleep 60")
        wait_for(lambda: len(sleepers(name)) == 10, "they run")
        began = time.monotonic()
    assert sleepers(name) == []
    assert time.monotonic() - began < 2.5


@pytest.mark.parametrize("options", [(), ("--shared-tmp",)])
def test_an_engine_killed_outright_leaves_nothing(options: tuple[str, ...], tmp_path: Path) -> None:
    name = f"99.{time.time_ns()}"
    process, engine = start_engine(tmp_path, *options)
    engine.create("f", Timeout=20)
    engine.later("f", do="shell", command=DAEMONISE.format(name, name) + "; sleep 60")
    wait_for(lambda: len(sleepers(name)) == 2, "they run")
    process.kill()
    process.wait()
    wait_for(lambda: not sleepers(name) and not processes_of(tmp_path), "all has ended")


def test_without_namespaces_the_engine_says_so(tmp_path: Path) -> None:
    with running_engine(tmp_path, "--shared-tmp") as engine:
        assert engine.told["private_tmp"] is False
        assert engine.told["why_shared"] == "asked for by --shared-tmp"
        assert "share the machine's /tmp" in engine.log
        engine.create("f", Timeout=1)
        assert engine.invoke("f", do="environment")["MU_SHARED_TMP"] == "1"
        assert engine.invoke("f", do="mu")[2], "boto3 is warm"
        assert "timed out" in engine.fail("f", do="shell", command="sleep 60")["errorMessage"]
        assert "signal: killed" in engine.fail("f", do="kill")["errorMessage"]


def test_a_dead_warm_parent_is_replaced(tmp_path: Path) -> None:
    with running_engine(tmp_path) as engine, ThreadPoolExecutor() as threads:
        engine.create("f", Timeout=20)
        waiting = threads.submit(engine.fail, "f", do="shell", command="sleep 60")
        wait_for(lambda: list((tmp_path / "local" / "sandboxes").glob("*/tmp")), "it runs")
        os.kill(warm_parent(engine), signal.SIGKILL)
        assert "signal: killed" in waiting.result()["errorMessage"]
        assert engine.shell("f", "echo again")[1] == "again\n"


@pytest.mark.parametrize("options", [(), ("--shared-tmp",)])
def test_a_sandbox_killed_from_outside_is_the_only_one_to_fail(
    options: tuple[str, ...], tmp_path: Path
) -> None:
    name = f"96.{time.time_ns()}"
    with running_engine(tmp_path, *options) as engine, ThreadPoolExecutor() as threads:
        engine.create("f", Timeout=20)
        other = threads.submit(engine.shell, "f", "sleep 1; echo mine")
        killed = threads.submit(engine.fail, "f", do="shell", command=f"sleep {name}")
        [sleeper] = wait_for(lambda: sleepers(name), "it runs")
        os.kill(supervisor_of(int(sleeper)), signal.SIGKILL)
        assert "signal: killed" in killed.result()["errorMessage"]
        assert other.result() == [0, "mine\n", ""]
        wait_for(lambda: not sleepers(name), "nothing of it is left")
        assert "signal: killed" in engine.log


def supervisor_of(pid: int) -> int:
    """Return the process that leads the session which `pid` belongs to."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[3])


def warm_parent(engine: Engine) -> int:
    children = Path(f"/proc/{engine.pid}/task/{engine.pid}/children").read_text().split()
    return int(children[0])


def test_more_than_the_concurrency_is_throttled(tmp_path: Path) -> None:
    with running_engine(tmp_path, "--concurrency", "1") as engine:
        engine.create("f", Timeout=20)
        engine.later("f", do="shell", command="sleep 60")
        with pytest.raises(engine.lam.exceptions.TooManyRequestsException) as refused:
            engine.invoke("f")
        assert refused.value.response["Reason"] == "ConcurrentInvocationLimitExceeded"


def test_functions_are_still_there_after_a_restart(tmp_path: Path) -> None:
    with running_engine(tmp_path) as engine:
        engine.create("f", Environment={"Variables": {"A": "b"}})
    with running_engine(tmp_path) as engine:
        assert engine.invoke("f", do="environment")["A"] == "b"


def test_over_its_memory_a_sandbox_is_killed(tmp_path: Path) -> None:
    with running_engine(tmp_path) as engine:
        hungry = (
            "import time\ndef handler(e, c):\n    x = bytearray(200 << 20)\n    time.sleep(30)\n"
        )
        engine.create("f", Code={"ZipFile": bundle(hungry)}, MemorySize=128, Timeout=20)
        assert "signal: killed" in engine.fail("f")["errorMessage"]


def test_two_hundred_events_enter_within_seconds(tmp_path: Path) -> None:
    with TemporaryDirectory(dir="/var/tmp") as folder, running_engine(tmp_path) as engine:
        engine.create("f", Timeout=60, Code={"ZipFile": bundle(HANDLER)})
        entered = Path(folder) / "entered"
        began = time.time()
        with ThreadPoolExecutor(4) as threads:
            event = {"do": "sleep", "seconds": 3, "file": str(entered)}
            list(threads.map(lambda _: engine.later("f", **event), range(200)))
        wait_for(
            lambda: entered.exists() and len(entered.read_text().split()) == 200, "all entered", 20
        )
        last = max(float(line) for line in entered.read_text().split())
        print(f"200 entered within {last - began:.2f} s")
