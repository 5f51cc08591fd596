"""What a function's log says about a worker that did not connect."""

import os
import time

import boto3
import pytest
from kit.moto_aws import in_process_aws

from mu.aws.endings import BadEnding, ending_in
from mu.aws.logs import EXCERPT, aws_ending_of, aws_log_of, telling_line
from mu.aws.names import plain_name, unqualified
from mu.engines.local.logs import local_ending_of, local_log_of

AWS = """\
INIT_START Runtime Version: python:3.12.v1
START RequestId: 1 Version: $LATEST
{}
END RequestId: 1
REPORT RequestId: 1 Duration: 90000.00 ms
"""


@pytest.mark.parametrize(
    ("printed", "says"),
    [
        ("mu worker: cannot reach h:1: timed out\nmu worker: gave up", "mu worker: gave up"),
        ("hello\n[ERROR] ImportError: no x\nbye", "[ERROR] ImportError: no x"),
        (
            "2026-11-27 Task timed out after 3.00 seconds\n",
            "2026-11-27 Task timed out after 3.00 seconds",
        ),
        ("hello\nbye", "bye"),
        (
            "[ERROR] Runtime.ImportModuleError: no x\nREPORT RequestId: 1 Status: error",
            "[ERROR] Runtime.ImportModuleError: no x",
        ),
        (
            "REPORT RequestId: 1 Status: error Error Type: Runtime.OutOfMemory",
            "REPORT RequestId: 1 Status: error Error Type: Runtime.OutOfMemory",
        ),
        ("", ""),
        ("[ERROR] " + "x" * 1000, "[ERROR] " + "x" * (EXCERPT - 8) + "…"),
    ],
)
def test_the_line_that_says_most_is_quoted(printed, says):
    assert telling_line(AWS.format(printed).splitlines()) == says


REPORT = (
    "REPORT RequestId: {}\tDuration: 1234.56 ms\tBilled Duration: 1235 ms\tMemory Size: 1536 MB\t"
    "Max Memory Used: {} MB\t{}"
)
KILLED = "RequestId: r-1 Error: Runtime exited with error: signal: killed\nRuntime.ExitError"


@pytest.mark.parametrize(
    ("lines", "how", "peak_mb"),
    [
        (
            [KILLED, REPORT.format("r-1", 1536, "")],
            "was killed: out of memory (peak 1,536 of 1,536 MB)",
            1536,
        ),
        (
            [REPORT.format("r-1", 1498, "Status: error\tError Type: Runtime.OutOfMemory")],
            "was killed: out of memory (peak 1,498 of 1,536 MB)",
            1498,
        ),
        (
            [KILLED, REPORT.format("r-1", 90, "")],
            "ended: Runtime exited with error: signal: killed",
            90,
        ),
        (
            [
                "2026-11-27T10:00:00Z r-1 Task timed out after 300.00 seconds",
                REPORT.format("r-1", 90, "Status: timeout"),
            ],
            "reached its function's timeout of 300 s",
            90,
        ),
        ([REPORT.format("r-1", 90, "")], None, 0),  # it returned
        ([KILLED], None, 0),  # its REPORT may still come
        ([KILLED, REPORT.format("r-2", 1536, "Error Type: Runtime.OutOfMemory")], None, 0),
    ],
)
def test_how_an_invocation_ended_badly_is_read_from_its_log(lines, how, peak_mb):
    found = ending_in("\n".join(lines).splitlines(), "r-1")
    assert found == (BadEnding(how, peak_mb) if how else None)


def test_how_a_local_invocation_ended_is_read_from_its_own_log(tmp_path):
    assert local_ending_of(tmp_path, "f", "r-1") is None
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "r-1.log").write_text("x" * 10**5 + "\n" + KILLED)
    assert local_ending_of(tmp_path, "f", "r-1") is None
    with (tmp_path / "f" / "r-1.log").open("a") as file:
        file.write("\n" + REPORT.format("r-1", 1536, "") + "\n")
    ending = local_ending_of(tmp_path, "f:7", "r-1")
    assert ending is not None
    assert ending.how == "was killed: out of memory (peak 1,536 of 1,536 MB)"


def test_cloudwatch_is_asked_how_one_invocation_ended(monkeypatch):
    with in_process_aws(monkeypatch):
        assert aws_ending_of("f", "us-east-1", "r-1", 0.0) is None
        logs = boto3.client("logs", "us-east-1")
        logs.create_log_group(logGroupName="/aws/lambda/f")
        logs.create_log_stream(logGroupName="/aws/lambda/f", logStreamName="s")
        now = time.time()
        said = [REPORT.format("r-0", 5, ""), KILLED, REPORT.format("r-1", 1536, "")]
        events = [{"timestamp": int(now * 1000), "message": line} for line in said]
        logs.put_log_events(logGroupName="/aws/lambda/f", logStreamName="s", logEvents=events)
        ending = aws_ending_of("f", "us-east-1", "r-1", now - 60)
        assert ending == BadEnding("was killed: out of memory (peak 1,536 of 1,536 MB)", 1536)


def test_the_local_engines_log_is_read_from_its_files_since_the_launch(tmp_path):
    assert local_log_of(tmp_path, "f", 0.0) == f"its log, in {tmp_path}/f, says nothing about it"
    (tmp_path / "f").mkdir()
    for at, text in ((10, "mu worker: old"), (30, "mu worker: new"), (20, "mu worker: newer")):
        path = tmp_path / "f" / f"{at}.log"
        path.write_text(AWS.format(text))
        os.utime(path, (at, at))
    assert local_log_of(tmp_path, "f:7", 15.0) == "its log says: mu worker: new"
    assert local_log_of(tmp_path, "f", 40.0).endswith("says nothing about it")


def test_cloudwatch_is_asked_for_the_functions_log_group(monkeypatch):
    with in_process_aws(monkeypatch):
        logs = boto3.client("logs", "us-east-1")
        assert aws_log_of("f", "us-east-1", 0.0) == (
            "its log cannot be read (ResourceNotFoundException: The specified log group does not"
            " exist.); to read it: aws logs tail /aws/lambda/f --since 30m --region us-east-1"
        )
        logs.create_log_group(logGroupName="/aws/lambda/f")
        logs.create_log_stream(logGroupName="/aws/lambda/f", logStreamName="s")
        arn = "arn:aws:lambda:us-east-1:123456789012:function:f:live"
        assert aws_log_of(arn, "us-east-1", 0.0).startswith(
            "its log says nothing about it; to read"
        )
        now = time.time()
        said = AWS.format("mu worker: cannot reach 10.0.0.1:13579: timed out").splitlines()
        events = [{"timestamp": int(now * 1000), "message": line} for line in said]
        logs.put_log_events(logGroupName="/aws/lambda/f", logStreamName="s", logEvents=events)
        assert aws_log_of(arn, "us-east-1", now - 60) == (
            "its log says: mu worker: cannot reach 10.0.0.1:13579: timed out"
        )


@pytest.mark.parametrize("qualifier", ["", ":live", ":$LATEST"])
@pytest.mark.parametrize(
    "place",
    [
        "",
        "function:",
        "123456789012:",
        "123456789012:function:",
        "eu-west-1:123456789012:",
        "arn:aws:lambda:eu-west-1:123456789012:function:",
    ],
)
def test_every_form_of_a_functions_name_has_the_same_log(place, qualifier):
    function = f"{place}film-2{qualifier}"
    assert plain_name(function) == "film-2"
    assert unqualified(function) == f"{place}film-2"
