"""Deploying: to the local engine, to moto's AWS, and to an AWS that is slow or refuses."""

import base64
import hashlib
import json
import os
import re
import shlex
import threading

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.validate import ParamValidator
from kit.cli import inside as mu
from kit.cli import refusal
from kit.elves import ARM64, X86_64, compiled, fake_elf, needs_gcc
from kit.film import chunk, order, put_film
from kit.moto_aws import in_process_aws
from kit.wheels import make_wheel, requirements

from mu.cli.deploy import deploy_program, set_memory
from mu.cli.functions import Ingredients
from mu.cli.options import CliError
from mu.client.address import Home
from mu.config import Config, MuSection
from mu.engines.local.key import read_key
from mu.functions.aws import AwsClients, AwsError
from mu.functions.bundle import ZIP_LIMIT, bundle
from mu.functions.deploy import EVENT_AGE_S, Deployment, Settings, names_of
from mu.functions.shipment import Code, DeployError, Shipment

ROLE = "arn:aws:iam::123456789012:role/worker"


@pytest.fixture
def tool(tmp_path):
    path = tmp_path / "tool"
    path.write_text("#!/bin/sh\necho tool says $1\n")
    return path


@pytest.fixture
def zipped(tmp_path, tool):
    return bundle(tmp_path / "tool.zip", executables=[tool], command="./tool hi").path


# ---------------------------------------------------------------- the local engine

ANSWER = """
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
double twice(double);
int main(int count, char **words) {
    FILE *out = fopen(words[2], "w");
    fprintf(out, "%.0f", twice(21) + sqrt(atof("0")));
    return fclose(out);
}
"""


@needs_gcc
def test_a_dynamic_program_is_deployed_and_runs_a_job(daemon, s3, tmp_path, monkeypatch):
    """As a user does it: mu deploy, then the command that it prints, and a job with S3."""
    libs = tmp_path / "libs"
    libs.mkdir()
    twice = "double twice(double x) { return 2 * x; }"
    compiled(libs / "libtwice.so", twice, "-shared", "-fPIC")
    program = compiled(tmp_path / "answer", ANSWER, f"-L{libs}", "-ltwice", "-lm")
    words = [program, "--post", "##INFILE## ##OUTFILE##", "--lib-dir", libs, "--name", "deployed"]
    done = mu("--home", daemon.home, "deploy", *words, "--memory", 256, "--timeout", 60)
    assert done.exit_code == 0, done.output
    said = re.fullmatch(
        r"deployed in us-east-1 was created: code \d+ KiB, \w+, python3\.12, memory 256 MB,"
        r" timeout 60 s, /tmp 512 MB\n\nTo run a job on it:\n  mu (.*)\n",
        done.stdout,
    )
    assert said, done.output
    (tmp_path / "FOLDER").mkdir()
    (tmp_path / "FOLDER" / "any").touch()
    monkeypatch.chdir(tmp_path)
    ran = mu(*shlex.split(said[1]))
    assert ran.exit_code == 0, ran.output
    assert (tmp_path / "FOLDER-OUT" / "any").read_text() == "42"
    put_film(s3, "deployed", ["a", "b"])
    job = daemon.ask("/jobs", order("deployed", workers=1) | {"function": "deployed"})
    job = daemon.wait(job["id"])
    assert (job["state"], job["error"]) == ("done", None)
    assert chunk(s3, "deployed", 0) == "42"


def test_deploying_again_changes_what_differs_and_nothing_else(daemon, zipped, tool):
    def deploy(*words):
        done = mu("--home", daemon.home, "deploy", "--name", "again", *words)
        assert done.exit_code == 0, done.output
        return done.stdout.partition("\n\n")[0].rstrip("\n")

    client = daemon.lambda_client()
    assert deploy("--zip", zipped).startswith("again in us-east-1 was created: ")
    config = client.get_function_event_invoke_config(FunctionName="again")
    assert (config["MaximumRetryAttempts"], config["MaximumEventAgeInSeconds"]) == (0, EVENT_AGE_S)
    before = client.get_function_configuration(FunctionName="again")
    assert deploy("--zip", zipped) == "again in us-east-1 is up to date"
    assert (
        client.get_function_configuration(FunctionName="again")["RevisionId"]
        == before["RevisionId"]
    )
    says = "again in us-east-1 would be updated: memory 256 MB (was 1769), /tmp 1024 MB (was 512)"
    assert deploy("--memory", 256, "--tmp", 1024, "--dry-run") == says
    assert deploy("--memory", 256, "--tmp", 1024) == says.replace("would be", "was")
    tool.write_text("#!/bin/sh\necho other\n")
    assert re.fullmatch(r"again in us-east-1 was updated: code \d+ KiB", deploy(tool))
    client.put_function_event_invoke_config(FunctionName="again", MaximumRetryAttempts=2)
    says = "retries by AWS 0 (was 2), events dropped after 60 s (was 21600)"
    assert deploy(tool) == f"again in us-east-1 was updated: {says}"
    assert deploy("--delete", "--dry-run") == "again in us-east-1 would be deleted"
    assert deploy("--delete") == "again in us-east-1 was deleted"
    assert deploy("--delete") == "again in us-east-1 does not exist"


def test_copies_are_separate_functions_that_a_job_uses_in_turn(daemon):
    words = ["--home", daemon.home, "deploy", "--bare", "--name", "many", "--copies", 3]
    done = mu(*words, "--json")
    told = json.loads(done.stdout)
    assert sorted(one["function"] for one in told) == ["many-0", "many-1", "many-2"]
    assert {one["did"] for one in told} == {"created"}
    command = mu(*words).stdout.splitlines()[-1].split()[1:]
    assert "--function many --copies 3" in " ".join(command)
    ran = mu(*command)
    assert ran.exit_code == 0, ran.output
    assert mu(*words[:3], "--delete", *words[4:]).stdout.count("was deleted") == 3


def test_a_suffix_makes_a_new_function(daemon):
    done = mu("--home", daemon.home, "deploy", "--bare", "--name", "own", "--suffix", "--json")
    (told,) = json.loads(done.stdout)
    assert re.fullmatch(r"own_[0-9a-f]{8}", told["function"])


def test_without_a_daemon_there_is_no_local_engine(tmp_path):
    done = mu("--home", tmp_path, "deploy", "--bare", "--name", "x", "--engine", "local")
    assert done.exit_code == 4
    assert f"no daemon is running for home {tmp_path}" in done.stderr


# ---------------------------------------------------------------- invalid options


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "no function given: use --name, a program, or --zip FILE"),
        (["--delete"], "--delete requires --name"),
        (
            ["--bare", "--name", "a b"],
            "a function's name must be 1 to 64 letters, digits, - and _, got 'a b'",
        ),
        (["/bin/sh", "--bare", "--name", "x"], "--bare deploys the worker only"),
        (["--name", "nothing-there"], "to create it, give a program, --zip FILE, or --bare"),
        (["--bare", "--name", "x", "--bucket", "b"], "--bucket is for AWS"),
        (["--bare", "--name", "x", "--memory", "64"], "64 is not in the range x>=128"),
    ],
)
def test_an_invalid_deployment_is_refused_with_a_sentence(daemon, words, says):
    assert says in refusal("--home", daemon.home, "deploy", "--engine", "local", *words)


def test_a_zip_cannot_be_combined_with_options_of_a_bundle(daemon, zipped, tool):
    words = ["--home", daemon.home, "deploy", "--engine", "local", "--zip", zipped]
    assert "--zip is a complete function, so it cannot be combined with" in refusal(*words, tool)
    assert "--zip is a complete function, so it cannot be combined with" in refusal(
        *words, "--post", "x"
    )


def test_a_zip_is_not_a_program(daemon, zipped):
    says = refusal("--home", daemon.home, "deploy", zipped)
    assert f"{zipped} is a zip, not a program; to deploy it, use mu deploy --zip {zipped}" in says


def test_an_architecture_that_is_not_the_programs_is_refused(daemon, tmp_path):
    made = bundle(tmp_path / "a.zip", executables=[fake_elf(tmp_path / "a", ARM64)]).path
    words = ["--home", daemon.home, "deploy", "--zip", made, "--arch", "x86_64"]
    assert f"--arch is x86_64, but the programs in {made} are for arm64" in refusal(*words)


def test_the_local_engine_refuses_programs_for_another_processor(daemon, tmp_path):
    other = ARM64 if os.uname().machine == "x86_64" else X86_64
    program = fake_elf(tmp_path / "program", other)
    says = refusal("--home", daemon.home, "deploy", program)
    assert "the local engine does not emulate: deploy them with --engine lambda" in says


def test_functions_are_named_with_their_copies():
    assert names_of("f") == ["f"]
    assert names_of("f", 2) == ["f-0", "f-1"]
    with pytest.raises(DeployError, match="name must be 1 to 64 letters"):
        names_of("f" * 63, 1)


# ---------------------------------------------------------------- AWS, by moto


@pytest.fixture
def aws(monkeypatch):
    """AWS's management calls, answered in this process; and a role."""
    with in_process_aws(monkeypatch):
        trust = {"Version": "2012-10-17", "Statement": []}
        iam = boto3.client("iam", region_name="us-east-1")
        iam.create_role(RoleName="worker", AssumeRolePolicyDocument=json.dumps(trust))
        yield AwsClients()


def on_aws(tmp_path, *words, **env):
    return mu("--home", tmp_path, "deploy", "--engine", "lambda", *words, **env)


def test_a_function_on_aws_gets_all_its_settings(aws, tmp_path, zipped):
    words = ["--zip", zipped, "--name", "f", "--role", ROLE, "--memory", 3008, "--timeout", 300]
    words += ["--tmp", 2048, "--runtime", "python3.13", "--arch", "arm64"]
    done = on_aws(tmp_path, *words, "--regions", "us-east-1,eu-west-1")
    assert done.exit_code == 0, done.output
    run = "mu --home {} launch map --function f --engine lambda --regions us-east-1,eu-west-1"
    assert run.format(tmp_path) in done.stdout
    for region in ("us-east-1", "eu-west-1"):
        client = aws.client("lambda", region)
        there = client.get_function_configuration(FunctionName="f")
        assert there["CodeSha256"] == base64.b64encode(
            hashlib.sha256(zipped.read_bytes()).digest()
        ).decode("ascii")
        assert (there["MemorySize"], there["Timeout"], there["Runtime"]) == (
            3008,
            300,
            "python3.13",
        )
        assert (there["Architectures"], there["Role"]) == (["arm64"], ROLE)
        assert there["EphemeralStorage"] == {"Size": 2048}
        assert there["Handler"] == "lambda_function.lambda_handler"
        config = client.get_function_event_invoke_config(FunctionName="f")
        assert (config["MaximumRetryAttempts"], config["MaximumEventAgeInSeconds"]) == (0, 60)
    assert on_aws(tmp_path, *words[:6], "--json").stdout.count('"unchanged"') == 1


def test_packages_are_those_for_the_python_of_the_function_that_exists(aws, tmp_path):
    script = tmp_path / "tool.py"
    script.write_text("import need\n")
    words = ["--name", "f", "--role", ROLE, "--runtime", "python3.13", "--arch", "arm64"]
    assert on_aws(tmp_path, script, *words).exit_code == 0
    for tag in ("cp313-cp313-manylinux2014_aarch64", "cp312-cp312-manylinux2014_x86_64"):
        make_wheel(tmp_path / "w", "need", "1.0", tag)
    lines = requirements(tmp_path / "w", "need")
    done = on_aws(tmp_path, script, "--requirements", lines, "--name", "f")
    assert done.exit_code == 0, done.output
    assert f"Installing {lines} for Python 3.13 on arm64 ...\n" in done.stderr
    assert done.stdout.startswith("f in us-east-1 was updated: code ")


def test_the_functions_of_a_launched_program_are_made_in_all_regions_and_kept_if_unchanged(
    aws, tmp_path, tool
):
    home = Home(Config(mu=MuSection(tmp_path)), "", "")
    parts = Ingredients([str(tool)], "", "", (), (), None)
    regions = ["us-east-1", "eu-west-1"]

    def deployed(role=None, dry=False):
        made = deploy_program(home, "lambda", regions, "t", 2, parts, None, role, dry)
        return [(one.name, one.region, one.did) for one in made]

    with pytest.raises(CliError, match="a new function needs a role: give --role ARN, or set"):
        deployed()
    names = [(f"t-{number}", region) for region in regions for number in range(2)]
    assert deployed(ROLE, dry=True) == [(*name, "created") for name in names]
    assert aws.client("lambda", "us-east-1").list_functions()["Functions"] == []
    assert deployed(ROLE) == [(*name, "created") for name in names]
    assert deployed() == [(*name, "unchanged") for name in names]
    tool.write_text("#!/bin/sh\necho other\n")
    assert deployed() == [(*name, "updated") for name in names]


def test_a_setting_above_awss_limit_is_a_warning_and_aws_decides(aws, tmp_path):
    done = on_aws(tmp_path, "--bare", "--name", "f", "--role", ROLE, "--timeout", 2400)
    assert done.exit_code == 0, done.output
    assert "Warning: timeout 2,400 s is more than the 1,800 s that AWS allowed in" in done.stderr
    there = aws.client("lambda", "us-east-1").get_function_configuration(FunctionName="f")
    assert there["Timeout"] == 2400


def test_the_role_may_come_from_the_environment(aws, tmp_path):
    assert "AWS_ROLE" in on_aws(tmp_path, "--bare", "--name", "f").stderr
    done = on_aws(tmp_path, "--bare", "--name", "f", AWS_ROLE=ROLE)
    assert done.exit_code == 0, done.output


def test_a_dry_run_changes_nothing(aws, tmp_path):
    done = on_aws(tmp_path, "--bare", "--name", "f", "--role", ROLE, "--dry-run")
    assert re.match(r"f in us-east-1 would be created: code \d+ KiB, x86_64, ", done.stdout)
    assert "To run a job" not in done.stdout
    assert aws.client("lambda", "us-east-1").list_functions()["Functions"] == []


def test_a_missing_role_is_reported_in_awss_words(aws, tmp_path, monkeypatch):
    monkeypatch.setattr("mu.functions.deploy.ROLE_S", 0.0)
    says = on_aws(tmp_path, "--bare", "--name", "f", "--role", ROLE + "x").stderr
    assert (
        "creating function f in us-east-1 failed: InvalidParameterValueException: The role" in says
    )


def test_a_zip_goes_through_s3_and_is_not_left_there(aws, tmp_path, zipped):
    s3 = aws.client("s3", "us-east-1")
    s3.create_bucket(Bucket="code-us-east-1")
    words = ["--zip", zipped, "--name", "f", "--role", ROLE, "--bucket", "code-{region}"]
    done = on_aws(tmp_path, *words, "--copies", 2)
    assert done.exit_code == 0, done.output
    assert done.stderr.count("to s3://code-us-east-1/mu/") == 1  # once for both
    sha = Code.of(zipped, None).sha256
    for name in ("f-0", "f-1"):
        there = aws.client("lambda", "us-east-1").get_function_configuration(FunctionName=name)
        assert there["CodeSha256"] == sha
    assert "Contents" not in s3.list_objects_v2(Bucket="code-us-east-1")


def test_a_rerun_gives_functions_on_aws_more_memory_but_no_versions_of_them(aws, tmp_path, zipped):
    words = ["--zip", zipped, "--name", "f", "--role", ROLE, "--copies", 2]
    assert on_aws(tmp_path, *words).exit_code == 0
    changed = set_memory(None, ["us-east-1"], ["f-0", "f-1"], 3008)
    assert [(one.did, one.changes) for one in changed] == [
        ("updated", ("memory 3008 MB (was 1769)",))
    ] * 2
    there = aws.client("lambda", "us-east-1").get_function_configuration(FunctionName="f-1")
    assert there["MemorySize"] == 3008
    with pytest.raises(CliError, match="got 'f:7'"):
        set_memory(None, ["us-east-1"], ["f:7"], 3008)


def test_a_large_zip_goes_through_the_configured_bucket_if_it_is_on_aws(
    aws, tmp_path, zipped, monkeypatch
):
    for module in ("bundle", "shipment"):
        monkeypatch.setattr(f"mu.functions.{module}.ZIP_LIMIT", 100)
    aws.client("s3", "us-east-1").create_bucket(Bucket="films")
    conf = tmp_path / "mu.conf"
    words = ["--config", conf, "deploy", "--engine", "lambda", "--zip", zipped, "--role", ROLE]
    conf.write_text(f"[mu]\nhome = {tmp_path}\n[s3]\nbucket = films\n")
    done = mu(*words, "--name", "f")
    assert (done.exit_code, done.stderr.count("to s3://films/mu/")) == (0, 1), done.output
    conf.write_text(f"{conf.read_text()}endpoint = http://127.0.0.1:9\n")
    assert "accepts directly: give --bucket NAME" in mu(*words, "--name", "g").stderr


def test_a_bucket_in_another_region_is_refused_before_anything_is_done(aws, tmp_path, zipped):
    where = {"LocationConstraint": "eu-west-1"}
    aws.client("s3", "eu-west-1").create_bucket(Bucket="far", CreateBucketConfiguration=where)
    words = ["--zip", zipped, "--name", "f", "--role", ROLE]
    says = on_aws(tmp_path, *words, "--bucket", "far").stderr
    assert "bucket far is in eu-west-1, and Lambda in us-east-1 accepts code from buckets" in says
    assert (
        "looking up bucket none failed: 404: Not Found"
        in on_aws(tmp_path, *words, "--bucket", "none").stderr
    )
    assert aws.client("lambda", "us-east-1").list_functions()["Functions"] == []


def test_a_large_zip_without_a_bucket_is_refused_with_a_remedy(aws, tmp_path, zipped):
    code = Code(zipped, ZIP_LIMIT + 1, "", None)
    says = r"tool\.zip has 50\.0 MiB, more than the 50\.0 MiB that Lambda .* directly: give --bucket NAME"
    with pytest.raises(DeployError, match=says):
        Shipment(code, "us-east-1", aws, "", print).check()
    Shipment(Code(zipped, ZIP_LIMIT, "", None), "us-east-1", aws, "", print).check()


def as_aws(daemon):
    """Return the environment in which a daemon's local engine stands for AWS Lambda."""
    key = read_key(daemon.home)
    return {
        "AWS_ENDPOINT_URL_LAMBDA": f"http://127.0.0.1:{daemon.ports['local']}",
        "AWS_ACCESS_KEY_ID": key.access_key,
        "AWS_SECRET_ACCESS_KEY": key.secret_key,
    }


def test_the_local_engine_is_never_reached_through_a_proxy(tmp_path, daemon):
    env = dict.fromkeys(("HTTP_PROXY", "http_proxy", "HTTPS_PROXY"), "http://127.0.0.1:1")
    words = ["--home", daemon.home, "deploy", "--bare", "--name", "direct", "--engine", "local"]
    assert mu(*words, **env).exit_code == 0
    env |= as_aws(daemon)
    done = on_aws(tmp_path, "--bare", "--name", "direct", "--role", ROLE, **env)
    assert done.exit_code == 0, done.output
    assert "direct in us-east-1 was updated" in done.stdout  # its role


def test_a_credential_process_that_fails_is_no_traceback(tmp_path):
    config = tmp_path / "config"
    config.write_text("[profile p]\ncredential_process = /none/program\n")
    env = {"AWS_CONFIG_FILE": str(config), "AWS_PROFILE": "p", "AWS_EC2_METADATA_DISABLED": "true"}
    env |= dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))
    done = on_aws(tmp_path, "--bare", "--name", "f", "--role", ROLE, **env)
    assert done.exit_code == 2
    assert "the credential_process or a file of profile 'p' cannot be used: " in done.stderr
    assert "Traceback" not in done.stderr


def test_an_endpoint_in_the_environment_is_used(tmp_path, daemon):
    done = on_aws(tmp_path, "--bare", "--name", "by-url", "--role", ROLE, **as_aws(daemon))
    assert done.exit_code == 0, done.output
    there = daemon.lambda_client().get_function_configuration(FunctionName="by-url")
    assert there["Role"] == ROLE


def test_failing_to_reach_aws_is_reported_in_a_sentence(tmp_path, monkeypatch):
    none = {"AWS_CONFIG_FILE": "/none", "AWS_SHARED_CREDENTIALS_FILE": "/none"}
    none |= {"AWS_EC2_METADATA_DISABLED": "true"}
    words = ["--bare", "--name", "f", "--role", ROLE]
    says = on_aws(tmp_path, *words, **none).stderr
    assert "there are no AWS credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in says
    says = on_aws(tmp_path, *words, **none, AWS_PROFILE="nobody").stderr
    assert "there is no profile 'nobody' in /none or /none" in says
    monkeypatch.setattr("mu.functions.aws._TRIES", 1)
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    says = on_aws(tmp_path, *words, **keys, AWS_ENDPOINT_URL_LAMBDA="http://127.0.0.1:1").stderr
    assert 'Could not connect to the endpoint URL: "http://127.0.0.1:1/' in says
    assert "that AWS_ENDPOINT_URL is correct if it is set" in says


# ---------------------------------------------------------------- an AWS that is slow or refuses


class Script:
    """A Lambda client that gives these answers, in order; requests are checked by AWS's model."""

    model = boto3.client("lambda", "us-east-1", aws_access_key_id="a", aws_secret_access_key="b")

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []

    def client(self, service, region):
        return self

    def __getattr__(self, operation):
        def call(**request):
            name = self.model.meta.method_to_api_mapping[operation]
            shape = self.model.meta.service_model.operation_model(name).input_shape
            assert not (report := ParamValidator().validate(request, shape)).has_errors(), (
                report.generate_report()
            )
            self.asked.append((operation, request))
            answer = self.answers.pop(0)
            if isinstance(answer, str):
                code, _, message = answer.partition(": ")
                raise ClientError({"Error": {"Code": code, "Message": message}}, name)
            return answer

        return call

    @property
    def operations(self):
        return [operation for operation, _ in self.asked]


GONE = "ResourceNotFoundException: not there"
READY = {"State": "Active", "LastUpdateStatus": "Successful"}


@pytest.fixture
def code(zipped):
    return Code.of(zipped, "arm64")


def deployment(script, **more):
    return Deployment(script, "us-east-1", lambda said: None, sleep=lambda seconds: None, **more)


def shipment(code, script):
    return Shipment(code, "us-east-1", script, "", print)


def there(code, **more):
    return {
        "CodeSha256": code.sha256,
        "Architectures": ["arm64"],
        "Handler": "lambda_function.lambda_handler",
        "MemorySize": 128,
        **READY,
        **more,
    }


OTHER = ROLE.replace("worker", "other")
DONE = {"MaximumRetryAttempts": 0, "MaximumEventAgeInSeconds": 60}


def test_a_role_that_may_not_be_passed_is_named_with_the_policy_that_allows_it(code):
    denied = (
        "AccessDeniedException: User: u is not authorized to perform: iam:PassRole on resource: "
    )
    script = Script(there(code, Role=ROLE), denied + OTHER)
    with pytest.raises(AwsError) as raised:
        deployment(script).deploy("f", Settings(role=OTHER), None)
    assert str(raised.value).endswith(
        f"grant your user or role iam:PassRole on {OTHER}; mu doctor --policy deploy --function NAME"
        " --bucket NAME --role ARN prints the policy"
    )


def test_a_new_role_is_waited_for(code):
    new = "InvalidParameterValueException: The role defined for the function cannot be assumed by Lambda."
    script = Script(GONE, new, new, {}, {"State": "Pending"}, READY, GONE, {})
    made = deployment(script).deploy("f", Settings(ROLE), code, shipment(code, script))
    assert made.did == "created"
    assert script.operations.count("create_function") == 3
    assert script.asked[-1] == ("put_function_event_invoke_config", {"FunctionName": "f"} | DONE)


def test_another_refusal_of_a_new_function_is_not_retried(code):
    script = Script(GONE, "InvalidParameterValueException: Unzipped size must be smaller")
    with pytest.raises(AwsError, match="Unzipped size must be smaller"):
        deployment(script).deploy("f", Settings(ROLE), code, shipment(code, script))


def test_another_update_in_progress_is_waited_for_before_and_after_each_change(code):
    busy = {"State": "Active", "LastUpdateStatus": "InProgress"}
    script = Script(
        there(code, CodeSha256="old", LastUpdateStatus="InProgress"),
        *(busy, READY),
        *({}, busy, READY),  # the code
        *("ResourceConflictException: an update is in progress", {}, busy, READY),  # the settings
        DONE,
    )
    made = deployment(script).deploy("f", Settings(memory=256), code, shipment(code, script))
    assert made.changes[1:] == ("memory 256 MB (was 128)",)
    assert script.operations == [
        *["get_function_configuration"] * 3,
        *("update_function_code", *["get_function_configuration"] * 2),
        *["update_function_configuration"] * 2,
        *["get_function_configuration"] * 2,
        "get_function_event_invoke_config",
    ]


def test_a_function_that_fails_to_start_is_reported_with_the_reason(code):
    failed = {"State": "Failed", "StateReason": "the key is disabled"}
    script = Script(GONE, {}, failed)
    with pytest.raises(
        DeployError, match="function f in us-east-1 failed to start: the key is disabled"
    ):
        deployment(script).deploy("f", Settings(ROLE), code, shipment(code, script))


def test_a_function_that_never_becomes_ready_is_given_up(code, monkeypatch):
    monkeypatch.setattr("mu.functions.deploy.READY_S", 2.0)
    script = Script(GONE, {}, *[{"State": "Pending"}] * 4)
    with pytest.raises(
        DeployError, match=r"not ready after 2 s: its state is Pending, its update Successful"
    ):
        deployment(script).deploy("f", Settings(ROLE), code, shipment(code, script))


def test_a_container_image_is_left_alone(code):
    script = Script(there(code, PackageType="Image"))
    with pytest.raises(DeployError, match="is a container image and cannot be updated"):
        deployment(script).deploy("f", Settings(), code, shipment(code, script))


def test_destinations_of_failed_events_are_kept(code):
    script = Script(there(code), {"MaximumRetryAttempts": 2, "DestinationConfig": {"x": 1}}, {})
    made = deployment(script).deploy("f", Settings(), code, shipment(code, script))
    assert script.operations[-1] == "update_function_event_invoke_config"
    assert made.did == "updated"


def test_unchanged_code_is_not_uploaded(code):
    script = Script(there(code), DONE)
    made = deployment(script).deploy("f", Settings(memory=128), code, shipment(code, script))
    assert (made.did, made.changes) == ("unchanged", ())
    assert not [name for name in script.operations if name.startswith("update")]


def test_a_missing_permission_is_reported_with_where_to_find_the_policy(code):
    denied = "AccessDeniedException: User x is not authorized to perform: lambda:CreateFunction"
    script = Script(GONE, denied)
    with pytest.raises(
        AwsError,
        match=r"lambda:CreateFunction: grant your user .* --policy deploy .* prints the policy",
    ):
        deployment(script).deploy("f", Settings(ROLE), code, shipment(code, script))


def test_code_is_uploaded_once_for_many_threads_and_deleted(code):
    class S3:
        puts = deletes = 0

        def client(self, service, region):
            return self

        def upload_file(self, path, bucket, key):
            self.puts += 1

        def delete_object(self, Bucket, Key):
            self.deletes += 1

    s3 = S3()
    sent = Shipment(code, "us-east-1", s3, "b", lambda said: None)
    threads = [threading.Thread(target=sent.source) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    sent.close()
    sent.close()
    assert (s3.puts, s3.deletes) == (1, 1)
