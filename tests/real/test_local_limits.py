"""A sandbox's limits: memory, /tmp, the size of its log; and what the log says."""

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.local import Engine, running_engine


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with running_engine(tmp_path_factory.mktemp("home")) as engine:
        engine.create("f", Timeout=20, MemorySize=512)
        engine.create("small", Timeout=20, MemorySize=128)
        yield engine


def tail_of(engine: Engine, name: str, **event: object) -> tuple[str, str, Path]:
    """Return the tail in the response, the whole log, and its path."""
    answer = engine.lam.invoke(FunctionName=name, LogType="Tail", Payload=json.dumps(event))
    request = answer["ResponseMetadata"]["RequestId"]
    log = engine.home / "local" / "logs" / name / f"{request}.log"
    tail = base64.b64decode(answer["LogResult"]).decode(
        errors="replace"
    )  # it may start within a character
    return tail, log.read_text(), log


def test_a_sandbox_over_its_memory_is_killed_long_before_it_would_end(engine: Engine) -> None:
    began = time.monotonic()
    tail, _, _ = tail_of(engine, "small", do="allocate", mb=300, seconds=60)
    assert time.monotonic() - began < 60
    assert tail.endswith(
        "Max Memory Used: 128 MB\tStatus: error\tError Type: Runtime.OutOfMemory\n"
    )


def test_a_sandbox_that_grows_fast_is_killed_although_it_would_soon_be_done(engine: Engine) -> None:
    told = engine.fail("small", do="allocate", mb=600, seconds=0.6)
    assert told["errorMessage"].endswith("Error: Runtime exited with error: signal: killed")


def test_memory_of_child_processes_counts(engine: Engine) -> None:
    command = "python3 -c 'import time; x = bytearray(300 << 20); time.sleep(15)'"
    told = engine.fail("small", do="shell", command=command)
    assert told["errorType"] == "Runtime.ExitError"
    assert told["errorMessage"].endswith("Error: Runtime exited with error: signal: killed")


def test_memory_shared_by_forks_counts_once(engine: Engine) -> None:
    command = (
        "python3 -c 'import os, time; x = bytearray(200 << 20);"
        " [os.fork() for _ in range(3)]; time.sleep(1.4)'"
    )
    assert engine.shell("f", command) == [0, "", ""]


def test_a_full_tmp_is_reported_as_a_full_disk(engine: Engine) -> None:
    if not engine.told["private_tmp"]:
        pytest.skip(engine.told["why_shared"])
    fill = "head -c {}m /dev/zero > /tmp/x; stat -c %s /tmp/x"
    status, size, complaint = engine.shell("f", fill.format(600))
    assert (status, size) == (0, f"{512 << 20}\n")
    assert "No space left on device" in complaint
    engine.lam.update_function_configuration(FunctionName="f", EphemeralStorage={"Size": 700})
    assert engine.shell("f", fill.format(600)) == [0, f"{600 << 20}\n", ""]


def test_beyond_tmp_memory_tmp_is_on_disk(tmp_path: Path) -> None:
    with running_engine(tmp_path, "--tmp-memory", "100") as engine:
        engine.create("f", Timeout=20)
        status, kind, _ = engine.shell("f", "stat -f -c %T /tmp; touch /tmp/x; ls /tmp")
    assert (status, kind.split()[1:]) == (0, ["x"])
    assert kind.split()[0] != "tmpfs"


def test_output_is_in_the_log_and_its_tail_in_the_response(engine: Engine) -> None:
    tail, log, path = tail_of(engine, "f", do="print", text="a line", times=2)
    request = path.stem
    start, one, two, end, report = tail.splitlines()
    assert start == f"START RequestId: {request} Version: $LATEST"
    assert (one, two) == ("a line", "a line")
    assert end == f"END RequestId: {request}"
    assert report.startswith(f"REPORT RequestId: {request}\tDuration: ")
    assert "\tBilled Duration: " in report
    assert "\tMemory Size: 512 MB\tMax Memory Used: " in report
    assert log == tail


def test_the_tail_has_4_kb_and_ends_with_the_report(engine: Engine) -> None:
    tail, log, _ = tail_of(engine, "f", do="print", text="é" * 50, times=1000)
    raw = log.encode()
    assert tail == raw[-4096:].decode(errors="replace")
    assert len(raw) > 100_000
    assert "REPORT RequestId: " in tail


def test_an_error_is_in_the_log(engine: Engine) -> None:
    tail, _, _ = tail_of(engine, "f", do="raise")
    assert "\n[ERROR] ValueError: no such luck\nTraceback (most recent call last):\n" in tail
    tail, _, _ = tail_of(engine, "f", do="exit", status=3)
    assert "Error: Runtime exited with error: exit status 3\nRuntime.ExitError\nEND" in tail
    assert tail.endswith("Status: error\tError Type: Runtime.ExitError\n")


def test_100_mb_of_output_do_not_fill_the_disk(engine: Engine) -> None:
    tail, log, path = tail_of(engine, "f", do="print", text="x" * 999_999 + "y", times=100)
    assert path.stat().st_size < 2**19
    assert log.startswith("START ")
    assert "bytes omitted here" in log
    assert "\nEND RequestId: " in tail


def test_a_program_with_endless_output_is_killed_at_its_timeout(engine: Engine) -> None:
    engine.create("loud", Timeout=1)
    command = "setsid yes >&2 & yes >&2"
    told = engine.fail("loud", do="shell", command=f"exec 2>/proc/$PPID/fd/2; {command}")
    assert told["errorMessage"].endswith("Task timed out after 1.00 seconds")
