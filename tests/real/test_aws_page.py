"""Runs the commands of docs/aws.md in order, from the credentials to the clean-up.

AWS is here: moto for IAM, STS and logs, a local engine for Lambda, rclone for S3.
"""

import json
import logging
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import boto3
import pytest
from kit.film import JOIN
from kit.nursery import daemons
from stage import Daemon, free_ports_conf

from mu.config import Config
from mu.engines.local.key import key_file

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
PAGE = (ROOT / "docs" / "aws.md").read_text().replace("films", "page-films")
ALL = "0.0.0.0/0"
NO_PROGRAM = ("public_host = ", "region = ", "engine = ", "[launch]", "twistd ")


def commands(*headings: str) -> str:
    """Return the indented blocks under these headings, as a shell script."""
    script = ["set -e"]
    for heading in headings:
        section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
        for block in re.findall(r"(?:^    .*\n)+", section, re.MULTILINE):
            script += textwrap.dedent(block).splitlines()
    return "\n".join(line for line in script if not line.startswith(NO_PROGRAM))


@pytest.fixture(scope="module")
def engine(s3, tmp_path_factory):
    """A daemon whose local engine stands for AWS Lambda."""
    folder = tmp_path_factory.mktemp("lambda")
    key = key_file(folder / "home")  # one pair of keys for all that stands for AWS here
    key.parent.mkdir(parents=True)
    names = {"access_key": "AWS_ACCESS_KEY_ID", "secret_key": "AWS_SECRET_ACCESS_KEY"}
    key.write_text(json.dumps({field: s3.env[name] for field, name in names.items()}))
    key.chmod(0o600)
    running = Daemon(folder, s3.env)
    assert running.home == folder / "home"
    yield running
    running.stop()


@pytest.fixture(scope="module")
def aws(engine, s3, tmp_path_factory):
    """A machine with `aws`, `mu` and the servers they need: its environment and current folder."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    folder = tmp_path_factory.mktemp("machine")
    program = folder / "png2y4m"
    program.write_text(JOIN)
    program.chmod(0o755)
    (folder / "frames").mkdir()
    for number in range(1, 5):
        (folder / "frames" / f"{number:08d}.png").write_text(f"frame {number}\n")
    env = {
        name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MU_"))
    }
    env |= s3.env | {
        "PATH": f"{daemons().aws}:{daemons().shims}:{BIN}:{env['PATH']}",
        "HOME": str(folder),
    }
    env |= {"AWS_ENDPOINT_URL": "http://{}:{}".format(*server.get_host_and_port())}
    env |= {"AWS_ENDPOINT_URL_LAMBDA": f"http://127.0.0.1:{engine.ports['local']}"}
    env |= dict.fromkeys(
        ("AWS_REQUEST_CHECKSUM_CALCULATION", "AWS_RESPONSE_CHECKSUM_VALIDATION"), "when_required"
    )
    yield env, folder
    server.stop()


def run(script, aws):
    env, folder = aws
    return subprocess.run(
        ["/bin/sh", "-c", script], env=env, cwd=folder, capture_output=True, text=True, timeout=120
    )


def test_the_commands_of_the_page_work_from_the_credentials_to_the_clean_up(aws, engine, s3):
    env, folder = aws
    keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b"}
    ec2 = boto3.resource("ec2", "us-east-1", endpoint_url=env["AWS_ENDPOINT_URL"], **keys)
    group = ec2.create_security_group(GroupName="coordinator", Description="mu")
    env["GROUP"] = group.id
    names = (
        "1. Configuration and credentials",
        "2. The functions' role and the bucket",
        "3. The function",
    )
    done = run(commands(*names, "4. The coordinator"), aws)
    assert done.returncode == 0, done.stderr
    assert "png2y4m in us-east-1" in done.stdout
    group.reload()
    opened = [(rule["FromPort"], rule["IpRanges"][0]["CidrIp"]) for rule in group.ip_permissions]
    assert sorted(opened) == [(Config().relay.port, ALL), (Config().worker.port, ALL)]
    assert "memory 1769 MB" in done.stdout
    assert (folder / "mu.conf").is_file()
    there = engine.lambda_client().get_function_configuration(FunctionName="png2y4m")
    role = "arn:aws:iam::123456789012:role/mu-worker"
    assert there["Role"] == role
    for which in ("deploy", "daemon", "function"):
        for statement in json.loads((folder / f"{which}.json").read_text())["Statement"]:
            assert (statement["Resource"] == "*") is (statement["Sid"] == "Quota"), statement
            if statement["Sid"] == "PassRole":
                assert statement["Resource"] == role

    conf = free_ports_conf(launch="engine = lambda\ncheckip = none", local="enabled = no")
    ours = Daemon(folder, env, conf)
    try:
        job = commands("5. A job").splitlines()
        doctor = run(next(line for line in job if " doctor " in line), aws)
        assert doctor.returncode == 1  # on this machine there is no public address
        levels = re.findall(r"^(\w+) +([\w ]{13}) ", doctor.stdout, re.MULTILINE)
        assert {name.strip() for level, name in levels if level == "ok"} >= {
            *("daemon", "CA", "worker port", "relay port", "credentials", "function", "retries"),
            *("invoking", "inside", "worker inside", "relay inside", "boto3", "bucket"),
        }, doctor.stdout
        launched = run("\n".join(line for line in job if " doctor " not in line), aws)
        assert launched.returncode == 0, launched.stdout + launched.stderr
        assert launched.stdout.count(" finished after ") == 2
    finally:
        ours.stop()
    made = s3.client().list_objects_v2(Bucket="page-films", Prefix="bbb-y4m_02/")["Contents"]
    assert [one["Size"] for one in made] == [16, 16]

    logs = boto3.client("logs", "us-east-1", endpoint_url=env["AWS_ENDPOINT_URL"], **keys)
    logs.create_log_group(logGroupName="/aws/lambda/png2y4m")
    cleaned = run(commands("Cleaning up"), aws)
    assert cleaned.returncode == 0, cleaned.stderr
    assert "page-films" not in [bucket["Name"] for bucket in s3.client().list_buckets()["Buckets"]]


def test_the_costs_on_the_page_follow_from_its_prices():
    row = re.search(r"^\| a GB-second \| \$([\d.]+) \| \$([\d.]+) \|$", PAGE, re.MULTILINE)
    told = re.search(r"1,000 workers with 1,769 MB for 60 s \| \$([\d.]+) \| \$([\d.]+) ", PAGE)
    for price, cost in zip(row.groups(), told.groups(), strict=True):
        assert f"{1000 * 60 * 1769 / 1024 * float(price):.2f}" == cost
