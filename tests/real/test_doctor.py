"""mu doctor: each check alone, then the command with the local engine and with moto's AWS."""

import email.utils
import http.server
import json
import threading
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import boto3
import pytest
from botocore.stub import ANY, Stubber
from kit.cli import inside as mu
from kit.moto_aws import in_process_aws

from mu.config import Config, LaunchSection, MuSection, WorkerSection
from mu.doctor import Case, account, bucket, coordinator, examine, function, role
from mu.doctor.finding import FAIL, OK, WARN
from mu.functions.aws import AwsClients, AwsError
from mu.functions.bundle import bundle
from mu.functions.deploy import HANDLER
from mu.functions.iam import policies
from mu.net.certificates import Authority

KEYS = {"aws_access_key_id": "a", "aws_secret_access_key": "b"}
ROLE = "arn:aws:iam::123456789012:role/worker"


@contextmanager
def answers(service, *expected):
    """Clients of one service that give these answers: (operation, answer or error code, request)."""
    client = boto3.client(service, "us-east-1", **KEYS)
    with Stubber(client) as stub:
        for operation, answer, *request in expected:
            if isinstance(answer, str):
                code, _, message = answer.partition(": ")
                stub.add_client_error(
                    operation, code, message, expected_params=(request or [None])[0]
                )
            else:
                stub.add_response(operation, answer, *request)

        class Clients:
            def client(self, asked, region):
                assert asked == service
                return client

        yield Clients()
        stub.assert_no_pending_responses()


def config(home, **launch):
    return Config(mu=MuSection(home), launch=LaunchSection(**launch))


# ---------------------------------------------------------------- the CA and the worker port


def test_a_valid_ca(tmp_path):
    Authority.at_home(tmp_path)
    assert coordinator.check_ca(tmp_path).level == OK


def test_a_ca_that_is_missing_expires_soon_or_has_expired(tmp_path):
    assert coordinator.check_ca(tmp_path).level == WARN
    Authority.at_home(tmp_path)
    now = datetime.now(UTC)
    found = coordinator.check_ca(tmp_path, now + timedelta(days=20 * 365 - 10))
    assert (found.level, found.remedy) == (WARN, "mu keys renew ca, while no job is running")
    found = coordinator.check_ca(tmp_path, now + timedelta(days=21 * 365))
    assert found.level == FAIL
    assert "expired on 20" in found.sentence


def test_a_ca_key_that_others_can_read(tmp_path):
    Authority.at_home(tmp_path)
    (tmp_path / "ca.key").chmod(0o644)
    found = coordinator.check_ca(tmp_path)
    assert (found.level, "chmod 600" in found.remedy) == (FAIL, True)


def test_a_ca_key_of_another_ca(tmp_path):
    Authority.at_home(tmp_path)
    (tmp_path / "other").mkdir()
    Authority.at_home(tmp_path / "other")
    (tmp_path / "ca.key").write_bytes((tmp_path / "other" / "ca.key").read_bytes())
    found = coordinator.check_ca(tmp_path)
    assert found.level == FAIL
    assert "ca.key is not the key of" in found.sentence


def test_the_worker_port_shows_the_certificate_that_workers_expect(daemon, tmp_path):
    found = coordinator.check_worker_port(daemon.home, Config(), aws=True)
    assert found.level == OK
    assert "mu-coordinator, 127.0.0.1" in found.sentence


def test_a_daemon_with_another_ca_than_its_home_is_detected(daemon, tmp_path):
    Authority.at_home(tmp_path)
    (tmp_path / "ports.json").write_text((daemon.home / "ports.json").read_text())
    found = coordinator.check_worker_port(tmp_path, Config(), aws=True)
    assert found.level == FAIL
    assert "restart the daemon" in found.remedy


def test_a_worker_port_that_does_not_respond(tmp_path):
    Authority.at_home(tmp_path)
    assert coordinator.check_worker_port(tmp_path, Config(), aws=True).level == WARN
    (tmp_path / "ports.json").write_text('{"worker": 1}')
    found = coordinator.check_worker_port(tmp_path, Config(), aws=True)
    assert (found.level, "does not respond" in found.sentence) == (FAIL, True)


def test_a_worker_port_on_the_loopback_fails_for_aws(daemon):
    inside = replace(Config(), worker=WorkerSection(host="127.0.0.1"))
    assert coordinator.check_worker_port(daemon.home, inside, aws=True).level == FAIL
    assert coordinator.check_worker_port(daemon.home, inside, aws=False).level == OK


# ---------------------------------------------------------------- public_host


def judged(host, *finders, aws=True):
    where = Config(launch=LaunchSection(public_host=host))
    return coordinator.check_public_host(where, "mu.conf", finders, aws)


def guess():
    return "198.51.100.7", "somebody said so"


@pytest.mark.parametrize(
    ("host", "level"),
    [
        ("127.0.0.1", FAIL),
        ("::1", FAIL),
        ("0.0.0.0", FAIL),
        ("localhost", FAIL),
        ("10.1.2.3", WARN),
        ("192.168.1.1", WARN),
        ("100.64.0.1", WARN),
        ("fd00::1", WARN),
        ("8.8.8.8", OK),
        ("no-such-host.invalid", FAIL),
    ],
)
def test_the_address_that_workers_on_aws_connect_to(host, level):
    found = judged(host)
    assert found.level == level
    assert host in found.sentence


def test_a_guessed_address_is_shown_with_its_source():
    found = judged("127.0.0.1", lambda: None, guess)
    says = "set [launch] public_host in mu.conf to 198.51.100.7 (somebody said so)"
    assert found.remedy.startswith(says)
    assert "to this machine's public address" in judged("127.0.0.1", lambda: None).remedy
    found = judged("8.8.8.8", guess)
    assert (found.level, "address seems to be 198.51.100.7 (somebody" in found.sentence) == (
        WARN,
        True,
    )
    assert judged("8.8.8.8", lambda: ("8.8.8.8", "x")).level == OK


def test_for_the_local_engine_the_loopback_is_fine():
    assert judged("127.0.0.1", aws=False).level == OK


@pytest.fixture
def metadata(monkeypatch):
    """EC2's metadata service, version 2, on the loopback."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_PUT(self):
            self.answer(b"a-token" if self.path == "/latest/api/token" else b"")

        def do_GET(self):
            good = self.headers["X-aws-ec2-metadata-token"] == "a-token"
            self.answer(b"203.0.113.9" if good and self.path.endswith("/public-ipv4") else b"")

        def answer(self, body):
            self.send_response(200 if body else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED", raising=False)
    monkeypatch.setenv(
        "AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://127.0.0.1:{server.server_port}/"
    )
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_instance_knows_its_address_from_its_metadata(metadata, monkeypatch):
    assert coordinator.by_metadata() == ("203.0.113.9", "from EC2's metadata service")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    assert coordinator.by_metadata() is None


def test_without_an_answer_there_is_no_guess(monkeypatch):
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED", raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr(coordinator, "CHECKIP", "http://127.0.0.1:1")
    assert coordinator.by_metadata() is None
    assert coordinator.by_checkip() is None


# ---------------------------------------------------------------- the account


def test_whose_the_credentials_are():
    who = {"Arn": "arn:aws:iam::123456789012:user/me", "Account": "123456789012"}
    with answers("sts", ("get_caller_identity", who)) as clients:
        found = account.check_credentials(clients, "us-east-1")
    assert (found.level, found.sentence) == (OK, who["Arn"])
    who["Arn"] = "arn:aws:iam::123456789012:root"
    with answers("sts", ("get_caller_identity", who)) as clients:
        assert account.check_credentials(clients, "us-east-1").level == WARN


@pytest.mark.parametrize(
    ("refusal", "remedy"),
    [
        (
            "InvalidClientTokenId: The security token is invalid",
            "the access key belongs to another account",
        ),
        (
            "SignatureDoesNotMatch: The signature",
            "the secret key is wrong, or this machine's clock",
        ),
        (
            "ExpiredToken: The token is expired",
            "get new credentials; if they are new, this machine's clock is wrong",
        ),
    ],
)
def test_credentials_that_aws_rejects(refusal, remedy):
    with (
        answers("sts", ("get_caller_identity", refusal)) as clients,
        pytest.raises(AwsError) as told,
    ):
        account.check_credentials(clients, "us-east-1")
    assert told.value.remedy.startswith(remedy)


@pytest.mark.parametrize(
    ("ahead", "level", "says"),
    [
        (0, OK, "within 1 s of AWS's"),
        (45, WARN, "45 s ahead of AWS's"),
        (-3600, FAIL, "3600 s behind AWS's"),
    ],
)
def test_the_clock(ahead, level, says):
    there = 1_800_000_000
    date = {"date": email.utils.formatdate(there, usegmt=True)}
    answer = {"ResponseMetadata": {"HTTPHeaders": date}}
    with answers("sts", ("get_caller_identity", answer)) as clients:
        found = account.check_clock(clients, "us-east-1", lambda: there + ahead)
    assert found.level == level
    assert says in found.sentence


def limits(most, free):
    return {"AccountLimit": {"ConcurrentExecutions": most, "UnreservedConcurrentExecutions": free}}


@pytest.mark.parametrize(
    ("most", "free", "workers", "level"),
    [
        (1000, 1000, 1000, OK),
        (1000, 1000, 1001, FAIL),
        (1000, 900, 950, FAIL),
        (10, 10, 5, WARN),
        (10, 10, 11, FAIL),
        (5000, 5000, 3000, OK),
    ],
)
def test_the_quota(most, free, workers, level):
    with answers("lambda", ("get_account_settings", limits(most, free))) as clients:
        found = account.check_quota(clients, "us-east-1", workers)
    assert found.level == level
    assert str(workers) in found.sentence
    if level == FAIL:
        assert "--quota-code L-B99A9384 --desired-value " in found.remedy


def test_copies_are_recommended_for_many_workers():
    found = account.check_growth(3500, 1)
    assert (found.level, "starting 3500 takes 30 s" in found.sentence) == (WARN, True)
    assert "--copies 4 " in found.remedy
    assert account.check_growth(3500, 4).level == OK


# ---------------------------------------------------------------- the function


def told(**more):
    return {
        "Runtime": "python3.12",
        "Handler": HANDLER,
        "Timeout": 900,
        "MemorySize": 1769,
        "Role": ROLE,
        "Architectures": ["x86_64"],
        "State": "Active",
        "LastUpdateStatus": "Successful",
        **more,
    }


def looked_at(answer, reserved=None, workers=10):
    concurrency = {} if reserved is None else {"ReservedConcurrentExecutions": reserved}
    expected = [("get_function_configuration", answer, {"FunctionName": "f"})]
    expected.append(("get_function_concurrency", concurrency))
    with answers("lambda", *expected) as clients:
        return function.check_function(clients, "us-east-1", "f", 900.0, workers)


def test_a_function_that_fits():
    found = looked_at(told())
    says = "f in us-east-1: python3.12, x86_64, 1769 MB, 900 s, /tmp 512 MB"
    assert (found.level, found.sentence) == (OK, says)
    assert looked_at(told(), reserved=10).level == OK
    found = looked_at(told(), reserved=9)
    assert (found.level, "aws lambda delete-function-concurrency" in found.remedy) == (FAIL, True)


@pytest.mark.parametrize(
    ("more", "level", "remedy"),
    [
        (
            {"Runtime": "python3.9"},
            WARN,
            "mu deploy --name f --regions us-east-1 --runtime python3.12",
        ),
        ({"Timeout": 60}, WARN, "mu deploy --name f --regions us-east-1 --timeout 900, unless"),
        ({"Handler": "index.handler"}, FAIL, "choose another --function, or replace it"),
        ({"State": "Failed", "StateReason": "no key"}, FAIL, "deploy f again"),
        ({"State": "Inactive"}, WARN, "jobs wait for it"),
        ({"State": "Pending"}, WARN, "jobs wait for it"),
        ({"State": "Deleting"}, WARN, "jobs wait for it"),
    ],
)
def test_a_function_that_does_not_fit(more, level, remedy):
    with answers("lambda", ("get_function_configuration", told(**more))) as clients:
        found = function.check_function(clients, "us-east-1", "f", 900.0, 1)
    assert found.level == level
    assert found.remedy.startswith(remedy)


def test_a_missing_function():
    gone = ("get_function_configuration", "ResourceNotFoundException: gone")
    with answers("lambda", gone) as clients:
        found = function.check_function(clients, "us-east-1", "f", 900.0, 1)
    assert (found.level, found.sentence) == (FAIL, "f in us-east-1 does not exist")


@pytest.mark.parametrize(
    ("answer", "level"),
    [
        ({"MaximumRetryAttempts": 0, "MaximumEventAgeInSeconds": 60}, OK),
        ({"MaximumRetryAttempts": 2, "MaximumEventAgeInSeconds": 60}, WARN),
        ("ResourceNotFoundException: none", WARN),
    ],
)
def test_retries_by_aws(answer, level):
    with answers("lambda", ("get_function_event_invoke_config", answer)) as clients:
        assert function.check_retries(clients, "us-east-1", "f").level == level


def test_whether_we_may_invoke():
    dry = {"FunctionName": "f", "InvocationType": "DryRun"}
    with answers("lambda", ("invoke", {"StatusCode": 204}, dry)) as clients:
        assert function.check_invoke(clients, "us-east-1", "f").level == OK
    with (
        answers("lambda", ("invoke", "AccessDeniedException: no", dry)) as clients,
        pytest.raises(AwsError, match="mu doctor --policy deploy .* prints the policy"),
    ):
        function.check_invoke(clients, "us-east-1", "f")


# ---------------------------------------------------------------- the role


@pytest.mark.parametrize(
    ("answer", "level"),
    [
        ("NoSuchEntity: none", FAIL),
        ("AccessDenied: not you", WARN),
    ],
)
def test_a_role_that_cannot_be_read(answer, level):
    with answers("iam", ("get_role", answer, {"RoleName": "worker"})) as clients:
        assert role.check_role(clients, "us-east-1", ROLE).level == level


def simulated(**decisions):
    results = [
        {"EvalActionName": name.replace("_", ":"), "EvalDecision": decision}
        for name, decision in decisions.items()
    ]
    return {"EvaluationResults": results}


def test_what_the_role_lets_workers_do():
    stream = "arn:aws:logs:us-east-1:123456789012:log-group:/aws/lambda/f:log-stream:mu"
    asked = {"PolicySourceArn": ROLE, "ActionNames": ANY, "ResourceArns": [stream]}
    logs = ("simulate_principal_policy", simulated(logs_PutLogEvents="allowed"), asked)
    objects = simulated(s3_GetObject="allowed", s3_PutObject="implicitDeny")
    asked = {"PolicySourceArn": ROLE, "ActionNames": ANY, "ResourceArns": ["arn:aws:s3:::films/*"]}
    more = ("simulate_principal_policy", objects, asked)
    listing = ("simulate_principal_policy", simulated(s3_ListBucket="allowed"))
    with answers("iam", logs, more, listing) as clients:
        found = role.check_role_may(clients, "us-east-1", ROLE, "f", "films")
    assert (found.level, found.sentence) == (FAIL, "role worker lacks s3:PutObject")
    with answers("iam", logs) as clients:
        assert role.check_role_may(clients, "us-east-1", ROLE, "f", "").level == OK
    with answers("iam", ("simulate_principal_policy", "AccessDenied: no")) as clients:
        assert role.check_role_may(clients, "us-east-1", ROLE, "f", "").level == WARN


# ---------------------------------------------------------------- the command


def test_a_check_that_raises_does_not_stop_the_others(tmp_path):
    class Broken:
        def client(self, service, region):
            raise RuntimeError(f"no {service} today")

    where = config(tmp_path, public_host="8.8.8.8")
    case = Case(where, "mu.conf", "local", Broken(), ["us-east-1"], ["f"], workers=2000)
    found = {finding.check: finding for finding in examine(case)}
    assert found["function"].sentence == "the check itself failed: RuntimeError: no lambda today"
    assert found["concurrency"].level == WARN
    assert list(found) == ["CA", "worker port", "public_host", "concurrency", "function"]


def test_all_checks_pass_for_a_running_daemon_and_its_function(daemon, s3, monkeypatch):
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    assert mu("--home", daemon.home, "deploy", "--bare", "--name", "well").exit_code == 0
    words = ["--home", daemon.home, "doctor", "--function", "well", "--bucket", "films", "--write"]
    done = mu(*words)
    assert done.exit_code == 0, done.output
    assert [line for line in done.stdout.splitlines() if line.startswith(("fail", "warn"))] == []
    assert done.stdout.endswith("\nAll checks passed.\n")
    assert "an object in films was written, read and deleted" in done.stdout
    left = s3.client().list_objects_v2(Bucket="films", Prefix="mu/")
    assert "Contents" not in left


def test_a_failed_check_has_a_remedy_and_sets_the_exit_status(daemon):
    done = mu("--home", daemon.home, "doctor", "--function", "not-there", "--json")
    assert done.exit_code == 1
    (found,) = [one for one in json.loads(done.stdout) if one["level"] == "fail"]
    assert found["check"] == "function"
    assert found["remedy"] == "mu deploy PROGRAM --name not-there --regions us-east-1"


def test_a_function_with_an_impossible_name_is_refused(tmp_path):
    done = mu("--home", tmp_path, "doctor", "--function", "a b")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "a function's name must be 1 to 64 letters, digits, - and _, got 'a b'" in done.stderr


def test_no_local_engine_is_a_finding(tmp_path):
    done = mu("--home", tmp_path, "doctor", "--engine", "local")
    assert done.exit_code == 1
    assert "no daemon is running for home" in done.stdout
    assert "1 check failed: a job cannot run yet." in done.stdout


@pytest.fixture
def aws(monkeypatch):
    monkeypatch.setattr("mu.doctor.FINDERS", (guess,))
    with in_process_aws(monkeypatch):
        yield monkeypatch


def test_aws_is_checked_from_the_credentials_to_the_bucket(aws, tmp_path):
    iam = AwsClients().client("iam", "us-east-1")
    trust = json.dumps(policies()["trust"])
    arn = iam.create_role(RoleName="worker", AssumeRolePolicyDocument=trust)["Role"]["Arn"]
    AwsClients().client("s3", "us-east-1").create_bucket(Bucket="films")
    made = bundle(tmp_path / "f.zip").path
    words = ["--home", tmp_path, "deploy", "--engine", "lambda", "--zip", made, "--role", arn]
    assert mu(*words).exit_code == 0
    words = ["--home", tmp_path, "doctor", "--engine", "lambda", "--function", "f", "--json"]
    found = json.loads(mu(*words, "--bucket", "films", "--write").stdout)
    levels = [(one["check"], one["level"]) for one in found]
    assert levels == [
        ("CA", "warn"),
        ("worker port", "warn"),
        ("public_host", "fail"),
        ("credentials", "ok"),
        ("clock", "ok"),
        ("concurrency", "fail"),  # moto has no GetAccountSettings
        ("function", "ok"),
        ("retries", "ok"),
        ("invoking", "ok"),
        ("role", "ok"),
        ("role", "fail"),  # nor SimulatePrincipalPolicy
        ("bucket", "ok"),
        ("writing", "ok"),
    ], found


def test_missing_credentials_are_reported_once(aws, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        aws.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        aws.setenv(name, "/none")
    aws.setenv("AWS_EC2_METADATA_DISABLED", "true")
    words = ["--home", tmp_path, "doctor", "--engine", "lambda", "--function", "f", "--bucket", "b"]
    done = mu(*words)
    assert done.exit_code == 1
    assert done.stdout.count("AWS credentials") == 1
    assert "the other checks of AWS were skipped" in done.stdout


def test_a_bucket_that_is_missing_or_in_another_region(aws):
    found = bucket.check_bucket(AwsClients(), ["us-east-1"], "none")
    assert (found.level, found.remedy) == (FAIL, "aws s3 mb s3://none --region us-east-1")
    where = {"LocationConstraint": "eu-west-1"}
    AwsClients().client("s3", "eu-west-1").create_bucket(
        Bucket="far", CreateBucketConfiguration=where
    )
    found = bucket.check_bucket(AwsClients(), ["us-east-1", "eu-west-1"], "far")
    assert (found.level, "workers in us-east-1 is slower" in found.sentence) == (WARN, True)


def test_a_role_that_lambda_may_not_assume(aws):
    trust = json.dumps(policies()["trust"]).replace("lambda.", "ec2.")
    iam = AwsClients().client("iam", "us-east-1")
    arn = iam.create_role(RoleName="other", AssumeRolePolicyDocument=trust)["Role"]["Arn"]
    found = role.check_role(AwsClients(), "us-east-1", arn)
    says = "Lambda may not assume role other: its trust policy names ec2.amazonaws.com"
    assert (found.level, found.sentence) == (FAIL, says)


def test_the_policies_are_printed(tmp_path):
    every = json.loads(mu("doctor", "--policy").stdout)
    assert list(every) == ["daemon", "deploy", "function", "trust"]
    words = ["doctor", "--policy", "function", "--function", "f", "--bucket", "films"]
    assert json.loads(mu(*words).stdout) == policies(["f"], ["films"])["function"]
