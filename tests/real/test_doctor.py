"""mu doctor: each check alone, then the command with the local engine and with moto's AWS."""

import configparser
import email.utils
import http.server
import io
import json
import logging
import socket
import threading
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from botocore.response import StreamingBody
from botocore.stub import ANY, Stubber
from kit.cli import answering, home_with
from kit.cli import http as http_answer
from kit.cli import inside as mu
from kit.moto_aws import in_process_aws
from moto.server import ThreadedMotoServer
from stage import Daemon, free_ports_conf

from mu.aws.limits import BOTO3
from mu.config import Config, LaunchSection, MuSection, RelaySection, WorkerSection
from mu.doctor import _run, account, bucket, coordinator, examine, function, inside, role
from mu.doctor.case import Case
from mu.findings import FAIL, OK, UNKNOWN, WARN
from mu.functions.aws import AwsClients, AwsError, aws_errors
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
        ("2600:1f18::1", WARN),
        ("no-such-host.invalid", FAIL),
    ],
)
def test_the_address_that_workers_on_aws_connect_to(host, level):
    found = judged(host)
    assert found.level == level
    assert host in found.sentence


def test_the_ports_to_open_are_named():
    where = Config(launch=LaunchSection(public_host="8.8.8.8"))
    found = coordinator.check_public_host(where, "mu.conf", [], True, [13579, 13337])
    assert (
        found.remedy == "allow inbound TCP from anywhere to port 13579 and 13337 (security group)"
    )


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
    assert coordinator.by_metadata() is None
    assert coordinator.by_checkip("http://127.0.0.1:1") is None
    assert coordinator.by_checkip("none") is None


# ---------------------------------------------------------------- the account


def test_whose_the_credentials_are():
    who = {"Arn": "arn:aws:iam::123456789012:user/me", "Account": "123456789012"}
    with answers("sts", ("get_caller_identity", who)) as clients:
        found = account.check_credentials(clients, "us-east-1")
    assert (found.level, found.sentence) == (OK, f"these credentials are those of {who['Arn']}")
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
        (1000, 1000, 1001, WARN),
        (1000, 900, 950, WARN),
        (10, 10, 5, WARN),
        (10, 10, 11, WARN),
        (10, 0, 1, FAIL),
        (5000, 5000, 3000, OK),
    ],
)
def test_the_quota(most, free, workers, level):
    with answers("lambda", ("get_account_settings", limits(most, free))) as clients:
        found = account.check_quota(clients, "us-east-1", workers)
    assert found.level == level
    assert str(workers) in found.sentence
    if workers > free:
        assert "--quota-code L-B99A9384 --desired-value " in found.remedy


def test_a_pipeline_that_needs_all_workers_at_once_needs_the_quota_for_them():
    with answers("lambda", ("get_account_settings", limits(10, 10))) as clients:
        found = account.check_quota(clients, "us-east-1", 11, "ring")
    assert (found.level, "pipeline ring needs 11 workers at once" in found.sentence) == (FAIL, True)


@pytest.mark.parametrize(("at_once", "level"), [("", WARN), ("ring", FAIL)])
def test_more_workers_than_the_local_engine_runs_take_turns(at_once, level):
    most = Config().local.concurrency
    assert account.check_local_concurrency(Config(), most, at_once).level == OK
    assert account.check_local_concurrency(Config(), most + 1, at_once).level == level


@pytest.mark.parametrize(
    ("most", "memory", "level"),
    [
        (None, 1769, OK),
        (None, 3008, OK),
        (10, 3009, WARN),
        (1000, 10_240, OK),
        (None, 10_241, WARN),
    ],
)
def test_the_memory_that_an_account_allows(most, memory, level):
    """AWS reduces it together with the concurrency of a new account, and tells only the latter."""
    asked = [("get_account_settings", limits(most, most))] if most else []
    with answers("lambda", *asked) as clients:
        found = account.check_memory(clients, "us-east-1", memory)
    assert found.level == level
    assert f"{memory:,} MB" in found.sentence


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


def subject(clients):
    return function.Subject(clients, "us-east-1", "f")


def looked_up(answer):
    """The finding about a function of which Lambda says this."""
    asked = ("get_function_configuration", answer, {"FunctionName": "f"})
    with answers("lambda", asked) as clients:
        return function.check_function(subject(clients), 900.0)


def test_a_function_that_fits():
    found = looked_up(told())
    says = "f in us-east-1: python3.12, x86_64, 1769 MB, 900 s, /tmp 512 MB"
    assert (found.level, found.sentence) == (OK, says)


@pytest.mark.parametrize(
    ("reserved", "at_once", "level"),
    [(None, "", OK), (10, "", OK), (9, "", WARN), (9, "ring", FAIL), (0, "", FAIL)],
)
def test_the_reserved_concurrency(reserved, at_once, level):
    answer = {} if reserved is None else {"ReservedConcurrentExecutions": reserved}
    with answers("lambda", ("get_function_concurrency", answer)) as clients:
        found = function.check_reserve(subject(clients), 10, at_once)
    assert found.level == level
    if level != OK:
        assert "aws lambda delete-function-concurrency --function-name f" in found.remedy


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
    found = looked_up(told(**more))
    assert found.level == level
    assert found.remedy.startswith(remedy)


def test_a_missing_function():
    found = looked_up("ResourceNotFoundException: gone")
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
        assert function.check_retries(subject(clients)).level == level


def test_whether_we_may_invoke():
    dry = {"FunctionName": "f", "InvocationType": "DryRun"}
    with answers("lambda", ("invoke", {"StatusCode": 204}, dry)) as clients:
        assert function.check_invoke(subject(clients)).level == OK
    with (
        answers("lambda", ("invoke", "AccessDeniedException: no", dry)) as clients,
        pytest.raises(AwsError, match="mu doctor --policy deploy .* prints the policy"),
    ):
        function.check_invoke(subject(clients))


@pytest.mark.parametrize(
    ("host", "vpc", "level", "says"),
    [
        ("203.0.114.5", {}, OK, "f in us-east-1 has IPv4 access to the internet"),
        (
            "2600:1f18::1",
            {},
            FAIL,
            "at [2600:1f18::1]:13579, an IPv6 address, and f in us-east-1 has",
        ),
        ("2600:1f18::1", {"VpcId": "vpc-1"}, FAIL, "has no IPv6"),
        ("2600:1f18::1", {"VpcId": "vpc-1", "Ipv6AllowedForDualStack": True}, OK, "outbound TCP"),
        ("10.0.0.5", {}, FAIL, "a private address, and f in us-east-1 is not in a VPC"),
        ("10.0.0.5", {"VpcId": "vpc-1"}, OK, "f in us-east-1 is in vpc-1"),
    ],
)
def test_the_way_from_the_function_to_the_coordinator(host, vpc, level, says):
    place = coordinator.Reach.of(host, 13579)
    with answers("lambda", ("get_function_configuration", told(VpcConfig=vpc))) as clients:
        found = function.check_route(subject(clients), {"worker": place})
    assert found.level == level
    assert says in found.sentence


@pytest.mark.parametrize(("pipeline", "level"), [("", WARN), ("chain", FAIL)])
def test_no_way_to_the_relay_is_a_failure_for_a_pipeline_that_needs_it(pipeline, level):
    places = {"relay": coordinator.Reach.of("2600:1f18::1", 13337)}
    with answers("lambda", ("get_function_configuration", told())) as clients:
        assert function.check_route(subject(clients), places, pipeline).level == level


@pytest.mark.parametrize(("most", "says"), [(None, "16 for each CPU"), (40, "up to 40")])
def test_workers_on_managed_instances_share_an_environment(most, says):
    arn = "arn:aws:lambda:us-east-1:123456789012:capacity-provider:ours"
    instances = {"CapacityProviderArn": arn}
    if most:
        instances["PerExecutionEnvironmentMaxConcurrency"] = most
    config = {"LambdaManagedInstancesCapacityProviderConfig": instances}
    with answers(
        "lambda", ("get_function_configuration", told(CapacityProviderConfig=config))
    ) as c:
        managed = subject(c)
        found = function.check_function(managed, 5400.0)
    assert "--timeout 5400, unless" in found.remedy
    assert managed.managed
    found = function.check_managed(managed)
    assert found.level == WARN
    assert "runs on Managed Instances (ours)" in found.sentence
    assert says in found.sentence
    assert found.remedy.startswith("set PerExecutionEnvironmentMaxConcurrency to 1")


# ---------------------------------------------------------------- from inside the function


def ran(payload, tmp_path, **more):
    """The finding of a function that gives this answer, and what it found."""
    Authority.at_home(tmp_path)
    body = StreamingBody(io.BytesIO(payload), len(payload))
    answer = ("invoke", {"StatusCode": 200, "Payload": body, **more})
    around = []
    with answers("lambda", answer) as clients:
        return inside.check_inside(subject(clients), {}, tmp_path, around.append), around


def test_a_worker_of_an_earlier_version_is_not_a_failure(tmp_path):
    """Such a worker refuses the event before it does anything."""
    says = b'{"errorMessage": "event key mode must be an integer from 0 to 2, got 3"}'
    found, around = ran(says, tmp_path, FunctionError="Unhandled")
    assert (found.level, found.remedy, around) == (UNKNOWN, "deploy f again", [])


@pytest.mark.parametrize("payload", [b'"hello"', b"not JSON", b"[]", b'{"python": "3.12"}'])
def test_a_function_that_is_no_worker_is_noticed(payload, tmp_path):
    found, around = ran(payload, tmp_path)
    assert (found.level, around) == (FAIL, [])
    assert "did not tell what it has: it answered" in found.sentence


@pytest.mark.parametrize(
    ("version", "level", "says"),
    [
        ("1.36.0", OK, "boto3 1.36.0; 1.36 is needed"),
        ("2.0.1", OK, "boto3 2.0.1"),
        ("1.34.145", FAIL, "has boto3 1.34.145, but retrieve: and upload: need 1.36 or newer"),
        ("1.9.42", FAIL, "1.9.42"),
        ("", FAIL, "has no boto3"),
    ],
)
def test_the_age_of_boto3_in_the_function(version, level, says):
    around = inside.Surroundings("3.12.7", version, [], {})
    found = inside.check_boto3(function.Subject(AwsClients(), "us-east-1", "f"), around)
    assert found.level == level
    assert says in found.sentence


def test_the_oldest_boto3_is_the_one_that_mu_installs():
    setup = configparser.ConfigParser()
    setup.read(Path(__file__).parents[2] / "setup.cfg")
    (line,) = [one for one in setup["options"]["install_requires"].split("\n") if "boto3" in one]
    assert line == f"boto3 >={'.'.join(map(str, BOTO3))}"


# ---------------------------------------------------------------- the role


def test_a_missing_role():
    none = ("get_role", "NoSuchEntity: none", {"RoleName": "worker"})
    with answers("iam", none) as clients:
        assert role.check_role(clients, "us-east-1", ROLE).level == FAIL


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


# ---------------------------------------------------------------- rights


@dataclass(frozen=True)
class Denying:
    """Clients of an AWS that denies all calls but some operations of Lambda."""

    allowed: frozenset[str] = frozenset()

    def client(self, service, region):
        client = boto3.client(service, region, **KEYS)

        def deny(request, event_name, **_):
            name = event_name.rpartition(".")[2]
            if name in self.allowed:
                return AWSResponse(request.url, 204, {}, Body(b""))
            words = f"User: me is not authorized to perform: {service}:{name} on resource: *"
            body, headers = (
                f'{{"Message": "{words}"}}',
                {"x-amzn-ErrorType": "AccessDeniedException"},
            )
            if request.method == "HEAD":
                body = ""
            elif service != "lambda":
                body = f"<Code>AccessDenied</Code><Message>{words}</Message>"
                body = f"<ErrorResponse><Error>{body}</Error></ErrorResponse>"
            headers["date"] = email.utils.formatdate(usegmt=True)
            return AWSResponse(request.url, 403, headers, Body(body.encode()))

        client.meta.events.register(f"before-send.{service}", deny)
        return client


class Body(io.BytesIO):
    def stream(self):
        yield self.read()


def examined(tmp_path, *allowed):
    """The levels of the checks, for credentials that have only these rights, and all findings."""
    Authority.at_home(tmp_path)
    case = Case(
        config(tmp_path, public_host="8.8.8.8", checkip="none"),
        "mu.conf",
        "lambda",
        Denying(frozenset(allowed)),
        ["us-east-1"],
        ["f"],
        role=ROLE,
        bucket="films",
        storage=Denying(),
    )
    found = [one for one in examine(case) if one.check not in ("CA", "worker port", "relay port")]
    return [(one.check, one.level) for one in found if one.check != "public_host"], found


def test_rights_that_jobs_do_not_need_are_unknown_and_no_failure(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    levels, found = examined(tmp_path, "Invoke")
    assert levels == [
        ("credentials", UNKNOWN),
        ("clock", OK),
        ("concurrency", UNKNOWN),
        ("memory", OK),
        ("function", UNKNOWN),
        ("reserve", UNKNOWN),
        ("retries", UNKNOWN),
        ("invoking", OK),
        ("role", UNKNOWN),
        ("role", UNKNOWN),
        ("bucket", WARN),
    ]
    (quota,) = [one for one in found if one.check == "concurrency"]
    assert "not authorized to perform: lambda:GetAccountSettings" in quota.sentence
    says = "jobs do not need this right; to have it checked: grant your user or role"
    assert quota.remedy.startswith(says)


def test_a_right_that_jobs_need_is_a_failure(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    levels, _ = examined(tmp_path)
    assert [level for level in levels if level[1] == FAIL] == [("invoking", FAIL)]


@pytest.mark.parametrize(
    ("refusal", "check", "level"),
    [
        ("TooManyRequestsException: Rate exceeded", "inside", UNKNOWN),
        ("ResourceConflictException: being prepared", "inside", UNKNOWN),
        ("AccessDeniedException: no", "inside", FAIL),
        ("UnrecognizedClientException: wrong key", "reserve", FAIL),
    ],
)
def test_what_passes_by_itself_is_no_failure(refusal, check, level):
    with answers("lambda", ("invoke", refusal)) as clients:
        found = _run(check, lambda: function.check_invoke(subject(clients)))
    assert found.level == level


def test_only_what_jobs_need_fails_if_it_cannot_be_reached(monkeypatch):
    """A network may have no way to STS or IAM, and one to Lambda."""
    monkeypatch.setattr("mu.functions.aws._TRIES", 1)
    for name, value in KEYS.items():
        monkeypatch.setenv(name.upper(), value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{closed_port()}")
    clients = AwsClients()
    found = _run("credentials", lambda: account.check_credentials(clients, "us-east-1"))
    assert (found.level, "Could not connect" in found.sentence) == (UNKNOWN, True)
    assert _run("invoking", lambda: function.check_invoke(subject(clients))).level == FAIL


def test_without_the_right_to_delete_the_test_object_is_left_behind():
    body = StreamingBody(io.BytesIO(b"mu"), 2)
    told = [
        ("put_object", {}),
        ("get_object", {"Body": body}),
        ("delete_object", "AccessDenied: no"),
    ]
    with answers("s3", *told) as clients:
        found = bucket.check_bucket_write(clients, "us-east-1", "films")
    assert (found.level, found.remedy.startswith("aws s3 rm s3://films/mu/doctor-")) == (WARN, True)


def test_a_refusal_of_the_memory_of_a_function_names_the_accounts_quota():
    refusal = "'MemorySize' value failed to satisfy constraint: Member must have value less than or"
    refusal = f"InvalidParameterValueException: {refusal} equal to 3008"
    with answers("lambda", ("create_function", refusal)) as clients:
        lambda_client = clients.client("lambda", "us-east-1")
        request = {"FunctionName": "f", "Role": ROLE, "Code": {"ZipFile": b"z"}}
        with pytest.raises(AwsError) as told, aws_errors("creating function f"):
            lambda_client.create_function(**request)
    assert told.value.remedy.startswith("this account allows less memory, as new accounts do")


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
    assert list(found)[:5] == ["CA", "worker port", "relay port", "public_host", "concurrency"]


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


def rows(done):
    """The findings that `mu doctor --json` printed, by check."""
    return {one["check"]: one for one in json.loads(done.stdout)}


def test_a_function_that_may_be_another_than_a_worker_is_run_only_on_request(daemon):
    words = ["--home", daemon.home, "doctor", "--function", "png2y4m", "--json"]
    found = rows(mu(*words))
    assert found["inside"]["level"] == UNKNOWN
    assert "worker inside" not in found
    found = rows(mu(*words, "--run"))
    assert {found[check]["level"] for check in INSIDE} == {OK}
    assert f"127.0.0.1:{daemon.ports['relay']}" in found["relay inside"]["sentence"]


INSIDE = ("inside", "worker inside", "relay inside", "boto3")


def test_a_closed_relay_port_is_noticed_here_and_from_inside_the_function(tmp_path):
    address = f"127.0.0.1:{closed_port()}"
    ours = Daemon(tmp_path, conf=free_ports_conf(relay=f"address = {address}"))
    try:
        assert mu("--home", ours.home, "deploy", "--bare", "--name", "ring").exit_code == 0
        words = ["--config", ours.conf, "doctor", "--function", "ring", "--json"]
        needing = mu(*words, "--pipeline", "chain")
        any_job, other = mu(*words), mu(*words, "--pipeline", "hello")
    finally:
        ours.stop()
    found = rows(needing)
    assert (found["relay port"]["level"], found["relay inside"]["level"]) == (FAIL, FAIL)
    assert f"the relay at {address} does not respond" in found["relay port"]["sentence"]
    assert f"the relay port: cannot reach {address}" in found["relay inside"]["sentence"]
    assert found["worker inside"]["level"] == OK
    found = rows(any_job)
    assert (found["relay port"]["level"], found["relay inside"]["level"]) == (WARN, WARN)
    assert not {"relay port", "relay inside"} & set(rows(other))
    assert [done.exit_code for done in (needing, any_job, other)] == [1, 0, 0]


def test_a_relay_with_a_certificate_of_another_ca_is_noticed(daemon, tmp_path):
    Authority.at_home(tmp_path)
    far = Config(relay=RelaySection(address=f"127.0.0.1:{daemon.ports['relay']}"))
    found = coordinator.check_relay(tmp_path, far, True, "chain")
    assert (found.level, "would reject the certificate" in found.sentence) == (FAIL, True)
    assert coordinator.check_relay(daemon.home, far, False, "chain").level == OK
    found = coordinator.check_relay(daemon.home, far, True, "chain")
    assert (found.level, "a loopback address" in found.sentence) == (FAIL, True)


def test_a_relay_without_a_ca_to_check_it_with_is_unknown(tmp_path):
    far = Config(relay=RelaySection(address="127.0.0.1:1"))
    assert coordinator.check_relay(tmp_path, far, True, "chain").level == UNKNOWN


def test_no_relay_is_a_failure_only_for_a_pipeline_that_needs_one(tmp_path):
    none = Config(relay=RelaySection(enabled=False))
    assert coordinator.check_relay(tmp_path, none, True, "chain").level == FAIL
    assert coordinator.check_relay(tmp_path, none, True, "").level == OK


def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def test_the_daemons_credentials_are_checked_and_without_a_daemon_the_shells(tmp_path, monkeypatch):
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    iam = boto3.client("iam", "us-east-1", endpoint_url=url, **KEYS)
    env = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_ENDPOINT_URL": url}
    keys = {}
    for name in ("daemon", "shell"):
        iam.create_user(UserName=name)
        made = iam.create_access_key(UserName=name)["AccessKey"]
        pair = {"AWS_ACCESS_KEY_ID": made["AccessKeyId"]}
        keys[name] = env | pair | {"AWS_SECRET_ACCESS_KEY": made["SecretAccessKey"]}
    conf = free_ports_conf(launch="engine = lambda\ncheckip = none", local="enabled = no")
    for name, value in keys["shell"].items():
        monkeypatch.setenv(name, value)
    try:
        ours = Daemon(tmp_path, keys["daemon"], conf)
        words = ["--config", ours.conf, "doctor", "--json"]
        try:
            running = rows(mu(*words))
            remote = mu("--url", ours.url, "doctor", "--json", MU_TOKEN=ours.token)
        finally:
            ours.stop()
        stopped = rows(mu(*words))
    finally:
        server.stop()
    says = "credentials are those of arn:aws:iam::123456789012:user"
    assert running["daemon"]["level"] == OK
    assert running["credentials"]["sentence"] == f"the daemon's {says}/daemon"
    assert rows(remote)["credentials"] == running["credentials"]
    assert stopped["daemon"]["level"] == WARN
    assert "no daemon is running" in stopped["daemon"]["sentence"]
    assert "These checks use the credentials of this shell" in stopped["daemon"]["sentence"]
    assert stopped["credentials"]["sentence"] == f"this shell's {says}/shell"


@pytest.mark.parametrize(
    ("status", "says"),
    [
        ("404 Not Found", "the running daemon is of an earlier version"),
        ("401 Unauthorized", "rejected the token"),
        ("500 Oops", "failed: a fault"),
    ],
)
def test_a_daemon_that_cannot_make_the_checks_is_a_finding(tmp_path, status, says):
    body = '{"error": {"message": "a fault", "field": null}}'
    with answering(http_answer(status, body)) as client:
        port = client.url.rpartition(":")[2]
        home = home_with(tmp_path / "home", f'{{"control": {port}}}')
        found = rows(mu("--home", home, "doctor", "--json"))
    assert found["daemon"]["level"] == WARN
    assert says in found["daemon"]["sentence"]
    assert found["public_host"]["level"] == OK


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--pipeline", "hallo"], "unknown pipeline 'hallo'; the pipelines are chain, "),
        (["--region", "a b,us_east"], "regions must be names of AWS regions, got 'us_east'"),
    ],
)
def test_what_the_daemon_refuses_is_the_commands_error(daemon, words, says):
    done = mu("--home", daemon.home, "doctor", *words)
    assert (done.exit_code, done.stdout) == (2, "")
    assert says in done.stderr


def test_a_pipeline_without_a_daemon_is_unknown(tmp_path):
    found = rows(mu("--home", tmp_path, "doctor", "--json", "--pipeline", "chain"))
    assert found["pipeline"]["level"] == UNKNOWN


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
    monkeypatch.setattr("mu.doctor.finders_of", lambda config: (guess,))
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
        ("daemon", "warn"),
        ("CA", "warn"),
        ("worker port", "warn"),
        ("relay port", "warn"),
        ("public_host", "fail"),
        ("credentials", "ok"),
        ("clock", "ok"),
        ("concurrency", "fail"),  # moto has no GetAccountSettings
        ("memory", "ok"),
        ("function", "ok"),
        ("reserve", "ok"),
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


def test_a_bucket_is_checked_where_s3_in_mu_conf_says(s3, tmp_path):
    s3.client().create_bucket(Bucket="elsewhere")
    keys = (f"{name} = {s3.env[name.upper()]}" for name in KEYS)
    (tmp_path / "aws").write_text("\n".join(["[profile minio]", *keys]))
    conf = tmp_path / "mu.conf"
    conf.write_text(
        f"[mu]\nhome = {tmp_path}\n[s3]\nendpoint = {s3.url}\nprofile = minio\nbucket = elsewhere\n"
    )
    nowhere = {"AWS_CONFIG_FILE": str(tmp_path / "aws"), "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}

    def found(*more):
        told = json.loads(mu("--config", conf, "doctor", "--json", *more, **nowhere).stdout)
        rows = [one for one in told if one["check"] in ("bucket", "writing")]
        return [(one["level"], one["sentence"]) for one in rows]

    said = "an object in elsewhere was written, read and deleted"
    assert found("--write") == [("ok", f"elsewhere exists at {s3.url}"), ("ok", said)]
    assert found("--bucket", "none") == [("fail", f"bucket none does not exist at {s3.url}")]
    (embedded,) = found("--bucket", "mu_files", "--write")
    assert embedded[0] == "ok"


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
