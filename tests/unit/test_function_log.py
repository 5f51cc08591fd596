"""mu log --function: what functions themselves write to their logs."""

import json
import os
import time

import boto3
import pytest
from kit.cli import answering, home_with, http, inside, refusal
from kit.moto_aws import in_process_aws

from mu.functions.aws import AwsClients
from mu.functions.logs import cloudwatch_log

BEGAN = int(time.time()) - 600
JOB = {"id": "j1", "pipeline": "p", "workers": 1, "state": "running", "created": BEGAN}
JOB |= {"counts": {}, "finished": BEGAN + 100, "error": None, "result": None}


def job(engine, *functions, **more):
    return {"engine": engine, "functions": functions, "regions": ["us-east-1"], **JOB, **more}


def log_of(told, *words, **env):
    with answering(http("200 OK", json.dumps(told))) as client:
        return inside("--url", client.url, "log", "j1", "--function", *words, MU_TOKEN="t", **env)


@pytest.fixture
def aws(monkeypatch):
    with in_process_aws(monkeypatch):
        client = boto3.client("logs", "us-east-1")
        for group in ("/aws/lambda/film", "/aws/lambda/film-0"):
            client.create_log_group(logGroupName=group)
            client.create_log_stream(logGroupName=group, logStreamName="2026/[$LATEST]0123abcd")
            lines = [(-1, "too early"), (2, "START\n"), (101.5, "at its end"), (500, "too late")]
            client.put_log_events(
                logGroupName=group,
                logStreamName="2026/[$LATEST]0123abcd",
                logEvents=[
                    {"timestamp": int((BEGAN + at) * 1000), "message": f"{text} of {group[12:]}"}
                    for at, text in lines
                ],
            )
        yield


def test_the_log_on_aws_is_that_of_the_jobs_time(aws):
    arn = "arn:aws:lambda:us-east-1:123456789012:function:film:7"
    lines = list(cloudwatch_log(AwsClients(), arn, "us-east-1", BEGAN, BEGAN + 160))
    at = [time.strftime("%H:%M:%S", time.gmtime(BEGAN + after)) for after in (2, 101)]
    assert lines == [
        f"{at[0]}.000 0123abcd START\n of film\n",
        f"{at[1]}.500 0123abcd at its end of film\n",
    ]
    told = log_of(job("lambda", "film-0", "film"))
    assert told.exit_code == 0
    assert [line for line in told.stdout.splitlines() if "at its end" in line] == [
        f"{at[1]}.500 0123abcd at its end of {name}" for name in ("film-0", "film")
    ]


def test_a_function_that_never_ran_has_no_log(aws):
    told = log_of(job("lambda", "other"))
    assert told.exit_code == 2
    assert "no worker of other has run in us-east-1, or the function's role may not" in told.stderr


def test_a_missing_right_is_named(monkeypatch):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    denied = {"__type": "AccessDeniedException", "message": "User: u is not authorized"}
    with answering(http("400 Bad Request", json.dumps(denied))) as aws:
        keys = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
        told = log_of(job("lambda", "film"), AWS_ENDPOINT_URL_CLOUDWATCH_LOGS=aws.url, **keys)
    assert told.exit_code == 2
    assert told.stderr.endswith(
        ": grant your user or role logs:FilterLogEvents on"
        " arn:aws:logs:us-east-1:*:log-group:/aws/lambda/film:*\n"
    )


def test_the_local_log_is_read_where_the_daemon_is(tmp_path):
    told = log_of(job("local", "f"))
    assert "run this command there, without --url" in told.stderr
    logs = tmp_path / "local" / "logs" / "f"
    logs.mkdir(parents=True)
    for number, written in enumerate((-5, 50, 10, 500)):
        (logs / f"r{number}.log").write_text(f"log {number}\n")
        os.utime(logs / f"r{number}.log", (BEGAN + written,) * 2)
    for engine, shown in (
        ("local", "== invocation r2 ==\nlog 2\n\n== invocation r1 ==\nlog 1\n\n"),
        ("external", ""),
    ):
        with answering(http("200 OK", json.dumps(job(engine, "f")))) as client:
            port = client.url.rpartition(":")[2]
            home = home_with(tmp_path, ports=json.dumps({"control": int(port)}))
            read = inside("--home", home, "log", "j1", "--function")
        assert (read.stdout, read.exit_code) == (shown, 0 if shown else 2), read.output
    assert "mu cannot read the log of functions on engine external" in read.stderr


def test_it_goes_with_no_other_part_of_the_log():
    for words in (["-a", "1"], ["--key", "a"], ["-f"], ["--raw"]):
        assert "--function cannot be combined" in refusal("log", "j1", "--function", *words)
