"""The printed policies allow every call that mu makes, and nothing that no call needs.

The calls are recorded while mu's parts run against moto, which allows everything. kit/rights.py says
which rights they need, kit/iam.py decides as AWS does.
"""

import json
import os
from collections.abc import Iterable
from functools import cache

import boto3
import pytest
from kit.cli import inside as mu
from kit.cli import refusal
from kit.hands import FILM_ANSWERS
from kit.iam import ALLOWED, IMPLICIT_DENY, Request, decide, may_assume
from kit.moto_aws import in_process_aws
from kit.rights import ACCOUNT, NO_RESOURCES, Call, failing, lambda_call, logging, recorded_calls
from mu_worker.store import ObjectStore, StoreError
from twisted.internet import reactor
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from mu.aws.logs import aws_log_of
from mu.engines.connections import Timeouts
from mu.engines.lambda_api import LambdaEngine
from mu.engines.routes import Route
from mu.engines.signing import Credentials
from mu.functions.bundle import bundle
from mu.invocations import Accepted, ConcurrencyLimit, Invocation
from mu.pipelines import s3
from mu.registry import Registry
from mu.testing import FakeWorker, run

REGION = "us-east-1"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/mu-worker"
KNOWN = ("--function", "png2y4m", "--bucket", "films", "--role", ROLE)
LARGE = 2**23 + 2**16
"""More bytes than boto3 uploads in one request."""
SUFFIX = "png2y4m_0123abcd"
NAMES = ["png2y4m", "png2y4m-0", SUFFIX, f"{SUFFIX}-3"]
"""A function, a copy, one with a suffix, and a copy of that."""


@cache
def printed(which, *words):
    """Return what `mu doctor --policy` prints."""
    done = mu("doctor", "--policy", which, *words)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def listed(value):
    return [value] if isinstance(value, str) else value


def needed(calls: Iterable[Call], partition="aws") -> list[Request]:
    """Return what the calls need, each request once."""
    requests = (request for call in calls for request in call.rights(partition))
    return list({repr(request): request for request in requests}.values())


def check(policy, requests):
    """Assert that the policy allows all of the requests, and has nothing that none of them needs."""
    assert [one for one in requests if decide([policy], one) != ALLOWED] == []
    for statement in policy["Statement"]:
        for part in ("Action", "Resource"):
            for value in listed(statement[part]):
                alone = {"Version": policy["Version"], "Statement": [{**statement, part: value}]}
                assert any(decide([alone], one) == ALLOWED for one in requests), (part, value)


# ---------------------------------------------------------------- deploying, and the checks


@pytest.fixture(scope="module")
def aws(tmp_path_factory):
    """AWS in this process, with a bucket and two roles; a folder for files."""
    with pytest.MonkeyPatch.context() as monkeypatch, in_process_aws(monkeypatch):
        monkeypatch.setattr("mu.doctor.finders_of", lambda config: ())
        monkeypatch.setattr("mu.functions.aws._TRIES", 1)
        iam = boto3.client("iam", REGION)
        for name in ("mu-worker", "other"):
            trust = json.dumps(printed("trust"))
            iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust)
        boto3.client("s3", REGION).create_bucket(Bucket="films")
        yield tmp_path_factory.mktemp("aws")


def zipped(folder, text, size=0):
    tool, more = folder / "png2y4m", folder / "more"
    tool.write_text(f"#!/bin/sh\n# {text}\n")
    more.write_bytes(os.urandom(size))
    return bundle(folder / f"{text}.zip", executables=[tool], files=[more]).path


def deploy(folder, *words, status=0):
    done = mu("--home", folder, "deploy", "--engine", "lambda", *words)
    assert done.exit_code == status, done.output
    return done


@pytest.fixture(scope="module")
def deployed(aws):
    """The calls of mu deploy and mu doctor, with each option that matters; and of mu doctor alone."""
    small, large = zipped(aws, "small"), zipped(aws, "large", LARGE)
    name, role, through = ("--name", "png2y4m"), ("--role", ROLE), ("--bucket", "films")
    client = boto3.client("lambda", REGION)
    with recorded_calls() as calls:
        with failing("before-call.s3.UploadPart"):
            deploy(aws, "--zip", large, *name, *role, *through, status=2)
        deploy(aws, "--zip", small, *name, *role)
        client.delete_function_event_invoke_config(FunctionName="png2y4m")
        client.put_function_event_invoke_config(FunctionName="png2y4m", MaximumRetryAttempts=1)
        deploy(aws, "--zip", large, *name, *through, "--memory", 3008)
        deploy(aws, "--zip", small, *name, *through, *role, "--copies", 2)
        deploy(aws, "--zip", small, *name, *role, "--suffix", "--copies", 1)
        words = ("--engine", "lambda", "--function", "png2y4m", *KNOWN[2:], "--write")
        with recorded_calls() as checks:
            mu("--home", aws, "doctor", *words)
        deploy(aws, *name, "--delete")
    return calls, checks


@pytest.fixture
def deploying(deployed):
    """All calls of mu deploy and mu doctor."""
    return deployed[0]


@pytest.fixture
def checking(deployed):
    """Those of mu doctor."""
    return deployed[1]


def test_the_deploy_policy_allows_what_mu_deploy_and_mu_doctor_do_and_no_more(deploying):
    check(printed("deploy", *KNOWN), needed(deploying))
    made = {call.operation for call in deploying}
    assert made >= {"PutFunctionEventInvokeConfig", "UpdateFunctionEventInvokeConfig"}


def test_a_daemon_makes_the_checks_of_mu_doctor_but_those_that_jobs_do_not_need(checking):
    """See docs/aws.md. What is denied there is unknown, and is no failure."""
    policy = printed("daemon", *KNOWN)
    assert {one.action for one in needed(checking) if decide([policy], one) != ALLOWED} == {
        "lambda:GetFunctionEventInvokeConfig",
        "iam:GetRole",
        "iam:SimulatePrincipalPolicy",
        "s3:DeleteObject",
    }


def test_another_role_is_passed_with_a_policy_for_that_role(aws):
    other = ROLE.replace("mu-worker", "other")
    code = zipped(aws, "changed")
    deploy(aws, "--zip", code, "--name", "changed", "--role", ROLE)
    with recorded_calls() as calls:
        deploy(aws, "--name", "changed", "--role", other)
    requests = needed(calls)
    assert "iam:PassRole" in [one.action for one in requests]
    words = ("--function", "changed", "--bucket", "films", "--role")
    before, after = printed("deploy", *words, ROLE), printed("deploy", *words, other)
    assert [one.action for one in requests if decide([before], one) != ALLOWED] == ["iam:PassRole"]
    assert [one for one in requests if decide([after], one) != ALLOWED] == []


def test_the_role_is_passed_to_lambda_only():
    policy = printed("deploy", *KNOWN)
    for service, decision in [("lambda", ALLOWED), ("ec2", IMPLICIT_DENY)]:
        context = {"iam:PassedToService": f"{service}.amazonaws.com"}
        assert decide([policy], Request("iam:PassRole", ROLE, context)) == decision
    assert decide([policy], Request("iam:PassRole", ROLE)) == IMPLICIT_DENY


def test_code_goes_through_one_bucket_for_each_region():
    words = ("--function", "f", "--bucket", "code-{region}", "--regions", "us-east-1,eu-west-1")
    policy = printed("deploy", *words)
    for bucket, decision in [
        ("code-us-east-1", ALLOWED),
        ("code-eu-west-1", ALLOWED),
        ("code-us-west-2", IMPLICIT_DENY),
    ]:
        put = Request("s3:PutObject", f"arn:aws:s3:::{bucket}/mu/f.zip")
        assert decide([policy], put) == decision


# ---------------------------------------------------------------- the daemon


class AnyLambda(Resource):
    """Answers each request as Lambda would; remembers them."""

    isLeaf = True

    def __init__(self):
        super().__init__()
        self.asked = []

    def render_POST(self, request):
        self.asked.append((request.method.decode(), request.path.decode()))
        request.setResponseCode(202)
        return b""

    def render_GET(self, request):
        self.asked.append((request.method.decode(), request.path.decode()))
        return b'{"MemorySize": 128, "AccountLimit": {"UnreservedConcurrentExecutions": 10}}'


PARAMS = {
    "chain": {"key": "log", "out_prefix": "o/"},
    "film": {"prefix": "v.mp4", "out_prefix": "o/"},
    "ffmpeg_split": {"video": "v", "seconds": 1.0},
    "ffmpeg_split_upload": {"video": "v", "seconds": 1.0},
    "map": {"command": "x {in} {out}", "prefix": "in/", "out_prefix": "o/"},
    "mapreduce": {
        "command": "x {in} {out}",
        "reduce": "x {in} {out}",
        "prefix": "in/",
        "out_prefix": "o/",
    },
    "pymap": {"call": "math:sqrt", "items": [1]},
    "xcenc": {"keyframe_distance": 2, "upload_states": True},
}
DEFAULTS = {"png2y4m", "vpxenc", "xcenc7", "y4m2png", "gray_scale", "merge_mp4"}
DEFAULTS |= {"mk7frames", "stitch2", "dump_ssim", "dump_ssim7", "vpx_ssim"}
DEFAULTS |= {"split_dump_ssim", "split12_dump_ssim"}
"""Pipelines that are played with their default parameters."""
ANSWERS = {
    "chain": {"run:": 'OK:RETVAL(0):OUTPUT({"lines": 3}):COMMAND(x)'},
    "film": FILM_ANSWERS,
    "map": {"run:": "OK:RETVAL(0):OUTPUT(5):COMMAND(x)"},
    "mapreduce": {"run:": "OK:RETVAL(0):OUTPUT(5):COMMAND(x)"},
    "pymap": {"run:cat": 'OK:RETVAL(0):OUTPUT({"failed": 0, "bytes": 99999}):COMMAND(x)'},
    "y4m2png": {"run:test": "OK:RETVAL(0):OUTPUT(6):COMMAND(x)"},
}


def play_all(client, worker):
    """Play a job of every pipeline whose data is in films; `worker(pipeline)` makes its workers."""
    for key in ("log", "v.mp4", "in/1", "in/2"):
        client.put_object(Bucket="films", Key=key, Body=b"some\nlines\n")
    for name, pipeline in Registry.installed().pipelines.items():
        params = dict(PARAMS.get(name, {}))
        if "bucket" in [parameter.name for parameter in pipeline.parameters]:
            params["bucket"] = "films"
        played = run(pipeline, params, worker(name))
        for actor in played.actors:
            assert actor.finish is not None
            assert actor.finish.error is None, name


def test_the_examples_play_every_pipeline():
    used = {name for name in Registry.installed().pipelines if name not in ("hello", "linpack")}
    assert used == {*PARAMS, *DEFAULTS}


def planned(client):
    """Return the calls of `plan` and `finish` of all pipelines."""
    s3._regions.clear()
    with recorded_calls() as calls:
        play_all(client, lambda name: FakeWorker(ANSWERS.get(name)))
    return calls


class DaemonTests(TestCase):
    async def test_the_daemon_policy_allows_what_launching_and_planning_do_and_no_more(self):
        lambdas = AnyLambda()
        port = reactor.listenTCP(0, Site(lambdas), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        url = f"http://127.0.0.1:{port.getHost().port}"  # type: ignore[attr-defined]
        keys = Credentials("AKID", "secret")
        engine = LambdaEngine(
            "lambda", reactor, lambda region: Route(url, region), lambda expired: keys, Timeouts()
        )
        self.addCleanup(engine.stop)
        for name in NAMES:
            assert await engine.launch(Invocation("l1", name, REGION, b"{}")) == Accepted()
            await engine.size(name, REGION)
            assert await engine.concurrency(name, REGION) == ConcurrencyLimit(10)
        with pytest.MonkeyPatch.context() as monkeypatch, in_process_aws(monkeypatch):
            client = boto3.client("s3", REGION)
            client.create_bucket(Bucket="films")
            calls = planned(client)
            with recorded_calls() as of_logs:
                for name in NAMES:
                    aws_log_of(name, REGION, 0.0)
        calls += of_logs
        calls += [lambda_call(method, path, REGION) for method, path in lambdas.asked]
        check(printed("daemon", *KNOWN), needed(calls))

    async def test_a_version_or_an_alias_of_a_function_may_be_launched(self):
        policy = printed("daemon", "--function", "png2y4m:live")
        for name in ("png2y4m", "png2y4m:live", "png2y4m-0:live", f"{SUFFIX}-3:live"):
            invoke = Call("lambda", "Invoke", {"FunctionName": name}, REGION)
            assert [decide([policy], one) for one in invoke.rights()] == [ALLOWED]
        other = Call("lambda", "Invoke", {"FunctionName": "png2y4m:test"}, REGION)
        assert [decide([policy], one) for one in other.rights()] == [IMPLICIT_DENY]
        for which in ("deploy", "function"):
            assert printed(which, "--function", "f:live") == printed(which, "--function", "f")


# ---------------------------------------------------------------- the functions' role


class StoreWorker(FakeWorker):
    """Retrieves and uploads with the worker's own code; its other commands succeed at once.

    What it retrieves is put there before, by `client`, if its key is `there`.
    """

    def __init__(self, store, client, folder, answers=None, there=lambda key: True):
        super().__init__(answers)
        self._store, self._client, self._there = store, client, there
        self._file = folder / "file"

    def answer(self, command):
        name, _, argument = command.partition(":")
        if name not in ("retrieve", "upload"):
            return super().answer(command)
        ours = self._variables
        bucket = ours.get("bucket", "films")  # the launch's event has it, too
        key = argument.partition("\0")[0] or ours["inkey" if name == "retrieve" else "outkey"]
        try:
            if name == "upload":
                self._file.write_text("made")
                self._store.upload(None, bucket, key, str(self._file))
            else:
                if self._there(key):
                    self._client.put_object(Bucket=bucket, Key=key, Body=b"1")
                self._store.retrieve(None, bucket, key, str(self._file))
        except StoreError as error:
            return [f"FAIL({error})"]
        return super().answer(command)


def recorded_store():
    """Return a worker's store, and the list of its calls."""
    with recorded_calls() as calls:
        store = ObjectStore(10)
        store.warm(None)
    return store, calls


@pytest.fixture(scope="module")
def worked(aws):
    """The calls of workers: those of every pipeline, and large uploads."""
    store, calls = recorded_store()
    client = boto3.client("s3", REGION)
    play_all(client, lambda name: lambda actor: StoreWorker(store, client, aws, ANSWERS.get(name)))
    large = aws / "large"
    large.write_bytes(bytes(LARGE))
    store.upload(None, "films", "large", str(large))
    with failing("before-call.s3.UploadPart"):
        store, others = recorded_store()
        with pytest.raises(StoreError):
            store.upload(None, "films", "larger", str(large))
    assert "AbortMultipartUpload" in [call.operation for call in others]
    return calls + others


def test_the_function_policy_allows_what_workers_and_their_logs_do_and_no_more(worked):
    logs = [request for name in NAMES for request in logging(name)]
    check(printed("function", *KNOWN), needed(worked) + logs)


def test_a_last_chunk_that_is_shorter_needs_the_answer_that_an_object_is_missing(aws):
    """Which S3 gives only to those who may list the bucket; others are told that it is forbidden."""
    pipeline = Registry.installed().pipelines["png2y4m"]
    client = boto3.client("s3", REGION)

    def worker(actor):
        there = "02.png", "01.png"
        return StoreWorker(ObjectStore(10), client, aws, there=lambda key: key.endswith(there))

    played = run(pipeline, {"bucket": "films", "video": "short", "frames": 3}, worker)
    assert played.actors[0].finish.error is None
    assert played.actors[0].finish.result["frames"] == 2


def test_lambda_and_nobody_else_may_assume_the_role():
    trust = printed("trust")
    assert may_assume(trust, "lambda.amazonaws.com")
    assert not may_assume(trust, "ec2.amazonaws.com")


# ---------------------------------------------------------------- all policies


@pytest.mark.parametrize("which", ["daemon", "deploy", "function"])
def test_what_is_known_is_named(which):
    for statement in printed(which, *KNOWN)["Statement"]:
        for resource in listed(statement["Resource"]):
            if resource == "*":
                assert set(listed(statement["Action"])) <= NO_RESOURCES
            else:
                assert any(name in resource for name in ("png2y4m", ":::films", ROLE)), resource


@pytest.mark.parametrize("which", ["daemon", "deploy", "function"])
def test_a_policy_says_nothing_about_what_belongs_to_others(which):
    policy = printed(which, *KNOWN)
    others = [
        Request("s3:GetObject", "arn:aws:s3:::films2/1"),
        Request("s3:PutObject", "arn:aws:s3:::Films/1"),
        Request("s3:DeleteObject", "arn:aws:s3:::films/bbb/1.png"),
        Request("s3:DeleteBucket", "arn:aws:s3:::films"),
        Request("s3:ListBucket", "arn:aws:s3:::other"),
        Request("iam:PassRole", ROLE + "2", {"iam:PassedToService": "lambda.amazonaws.com"}),
        *logging("png2y4m2"),
        *(
            Request(f"lambda:{action}", f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}")
            for action in ("InvokeFunction", "UpdateFunctionCode", "AddPermission")
            for name in ("png2y4m2", "PNG2Y4M", "other", "png2y4m_dev")
        ),
    ]
    assert [one for one in others if decide([policy], one) != IMPLICIT_DENY] == []


def test_only_those_who_deploy_may_delete_and_only_below_mu():
    for which in ("daemon", "deploy", "function"):
        policy = printed(which, *KNOWN)
        below = Request("s3:DeleteObject", "arn:aws:s3:::films/mu/0.zip")
        assert decide([policy], below) == (ALLOWED if which == "deploy" else IMPLICIT_DENY)
        assert ("s3:DeleteObject" in str(policy)) is (which == "deploy")


@pytest.mark.parametrize(
    ("region", "partition"),
    [
        ("us-east-1", "aws"),
        ("cn-north-1", "aws-cn"),
        ("us-gov-west-1", "aws-us-gov"),
        ("eusc-de-east-1", "aws-eusc"),
        ("us-iso-east-1", "aws-iso"),
        ("us-isob-east-1", "aws-iso-b"),
    ],
)
def test_policies_are_for_the_partition_of_the_region(deploying, worked, region, partition):
    role = ROLE.replace("arn:aws:", f"arn:{partition}:")
    known = ("--function", "png2y4m", "--bucket", "films", "--role", role, "--regions", region)
    logs = logging("png2y4m", region, partition)
    for which, requests in [
        ("deploy", needed(deploying, partition)),
        ("function", needed(worked, partition) + logs),
    ]:
        policy, standard = printed(which, *known), printed(which, *KNOWN)
        assert [one for one in requests if decide([policy], one) != ALLOWED] == []
        if partition != "aws":
            told = {decide([standard], one) for one in requests if one.resource != "*"}
            assert told == {IMPLICIT_DENY}
    assert f"arn:{partition}:iam::*:role/*" in str(printed("deploy", "--regions", region))


def test_without_names_the_policies_are_for_all(deploying, worked):
    for which, requests in (("deploy", needed(deploying)), ("function", needed(worked))):
        assert [one for one in requests if decide([printed(which)], one) != ALLOWED] == []
    for which in ("daemon", "deploy", "function"):
        listing = Request("s3:ListBucket", "arn:aws:s3:::any")
        assert decide([printed(which)], listing) == ALLOWED


@pytest.mark.parametrize("which", ["daemon", "deploy", "function"])
def test_a_policy_fits_inline_into_a_user(which):
    """2,048 characters without spaces: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html"""
    role = f"{ROLE[: -len('mu-worker')]}{'r' * 64}"
    policy = printed(which, "--function", "f" * 64, "--bucket", "b" * 63, "--role", role)
    assert len(json.dumps(policy, separators=(",", ":"))) <= 2048


def test_several_functions_are_all_named():
    policy = printed("daemon", "--function", "a", "--function", "b")
    for name in ("a", "b-1"):
        invoke = Call("lambda", "Invoke", {"FunctionName": name}, REGION)
        assert [decide([policy], one) for one in invoke.rights()] == [ALLOWED]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--function", "a b"], "--function must be a function's name, or NAME:ALIAS for a policy"),
        (["--function", "f*"], "--function must be a function's name"),
        (["--bucket", "*"], "--bucket must be letters, digits, '.', '-' and '_' for a policy"),
        (["--bucket", "arn:aws:s3:us-east-1:1:accesspoint/a"], "--bucket must be letters"),
        (["--role", "mu-worker"], "--role must be the ARN of a role for a policy, got 'mu-worker'"),
        (
            ["--role", ROLE, "--regions", "cn-north-1"],
            f"--role must be in the partition aws-cn of the region, got {ROLE}",
        ),
        (
            ["--regions", "us-east-1,cn-north-1"],
            "--regions must be in one partition of AWS, got aws, aws-cn",
        ),
    ],
)
def test_what_no_policy_can_name_is_refused(words, says):
    assert says in refusal("doctor", "--policy", "deploy", *words)


def test_every_action_is_one_that_botocore_knows():
    """Three have another name in IAM than in the API."""
    other = {"lambda:InvokeFunction": "Invoke", "s3:ListBucket": "ListObjectsV2"}
    other |= {"iam:PassRole": "GetRole"}
    keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b"}
    for policy in printed("all").values():
        for statement in policy["Statement"]:
            for action in listed(statement["Action"]):
                service, _, name = action.partition(":")
                model = boto3.client(service, REGION, **keys).meta.service_model
                assert other.get(action, name) in model.operation_names, action
