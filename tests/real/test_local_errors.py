"""The local engine's API errors and function errors, worded as on AWS."""

import io
import json
import stat
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from kit.local import ROLE, Engine, bundle, running_engine

FUNCTIONS = "/2015-03-31/functions"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with running_engine(tmp_path_factory.mktemp("home")) as engine:
        engine.create("f", Timeout=20)
        yield engine


def zip_of(*entries: tuple[str, bytes], links: tuple[tuple[str, str], ...] = ()) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content)
        for name, goal in links:
            link = zipfile.ZipInfo(name)
            link.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(link, goal)
    return written.getvalue()


def bomb() -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for number in range(26):
            archive.writestr(f"{number}", bytes(10 << 20))
    return written.getvalue()


# ---------------------------------------------------------------- requests


def test_errors_are_the_exceptions_that_boto3_knows(engine: Engine) -> None:
    refused = engine.lam.exceptions
    with pytest.raises(refused.ResourceNotFoundException, match="Function not found: arn"):
        engine.lam.get_function(FunctionName="none")
    with pytest.raises(refused.ResourceNotFoundException):
        engine.lam.invoke(FunctionName="f", Qualifier="7")
    with pytest.raises(refused.ResourceConflictException):
        engine.create("f")
    with pytest.raises(refused.InvalidRequestContentException):
        engine.lam.invoke(FunctionName="f", Payload=b"{no json")
    with pytest.raises(refused.InvalidRequestContentException):
        engine.lam.invoke(FunctionName="f", Payload=b"[" * 100_000)
    large = json.dumps("x" * 2**20)
    with pytest.raises(refused.RequestTooLargeException):
        engine.lam.invoke(FunctionName="f", InvocationType="Event", Payload=large)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"Timeout": 1801}, "'1801' at 'timeout' failed .* less than or equal to 1800"),
        ({"MemorySize": 10_241}, "at 'memorySize' failed"),
        ({"EphemeralStorage": {"Size": 10_241}}, "at 'size' failed"),
        ({"Handler": "m." + "h" * 127}, "'handler' failed .* length less than or equal to 128"),
        ({"Handler": "main handler"}, "'handler' failed .* pattern"),
        ({"Handler": ""}, "Runtime and Handler are mandatory"),
        ({"Description": "d" * 257}, "at 'description' failed"),
        ({"Runtime": "nodejs22.x"}, "at 'runtime' failed"),
        ({"Architectures": ["riscv"]}, "at 'architectures' failed"),
        ({"Environment": {"Variables": {"AWS_REGION": "x", "_HANDLER": "y"}}},
         "Reserved keys used in this request: AWS_REGION, _HANDLER"),
        ({"Environment": {"Variables": {"a-b": "x"}}}, "at 'environment.variables' failed"),
        ({"Environment": {"Variables": {"LARGE": "x" * 4096}}}, "exceeded the 4KB limit"),
        ({"Code": {"S3Bucket": "here", "S3Key": "there"}}, "takes ZipFile only"),
    ],
)  # fmt: skip
def test_function_settings_that_aws_rejects_are_rejected(
    engine: Engine, change: dict[str, Any], says: str
) -> None:
    with pytest.raises(ClientError, match=says) as refused:
        engine.create("g", **change)
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert not (engine.home / "local" / "functions" / "g").exists()


def test_an_invalid_name_is_rejected(engine: Engine) -> None:
    for name in ("n" * 65, "no name", "a/../b", "é"):
        with pytest.raises(ClientError, match="at 'functionName' failed"):
            engine.create(name)
    assert engine.raw("GET", f"{FUNCTIONS}/..%2f..%2fetc").status == 400


@pytest.mark.parametrize(
    "zipped",
    [
        b"no zip",
        bundle()[:-30],
        bundle().replace(b"def shell", b"def shelf"),
        zip_of(("../outside.py", b"")),
        zip_of(("a/../../outside.py", b"")),
        zip_of(("/etc/outside.py", b"")),
        zip_of(links=(("link", "/etc/passwd"),)),
        zip_of(links=(("link", "../../outside"),)),
        zip_of(("a/b/c", b""), links=(("a/b/up", "../.."), ("out", "a/b/up/../x"))),
        zip_of(links=(("up", ".."), ("up/file", "x"))),
        zip_of(("a", b""), ("a/b", b"")),
        zip_of(("n" * 300, b"")),
        zip_of(links=(("a", "b"), ("b", "a"))),
    ],
)
def test_a_damaged_or_malicious_zip_is_rejected_and_nothing_is_kept(
    engine: Engine, zipped: bytes
) -> None:
    with pytest.raises(engine.lam.exceptions.InvalidParameterValueException, match="unzip"):
        engine.create("g", Code={"ZipFile": zipped})
    functions = engine.home / "local" / "functions"
    assert [found.name for found in functions.iterdir()] == ["f"]
    with pytest.raises(engine.lam.exceptions.InvalidParameterValueException, match="unzip"):
        engine.lam.update_function_code(FunctionName="f", ZipFile=zipped)
    assert len(list((functions / "f" / "code").iterdir())) == 1
    assert engine.shell("f", "echo still there")[1] == "still there\n"


def test_a_zip_bomb_is_rejected(engine: Engine) -> None:
    with pytest.raises(ClientError, match="Unzipped size must be smaller than 262144000 bytes"):
        engine.create("g", Code={"ZipFile": bomb()})
    assert not (engine.home / "local" / "functions" / "g").exists()


def test_a_body_over_70_mb_is_rejected_and_not_kept(engine: Engine) -> None:
    answer = engine.raw("POST", FUNCTIONS, bytes(70_167_212))
    assert answer.status == 413
    assert answer.headers["x-amzn-ErrorType"] == "RequestEntityTooLargeException"
    assert answer.told["message"] == "Request must be smaller than 70167211 bytes"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "kind"),
    [
        ("GET", "/", b"", 404, "UnknownOperationException"),
        ("PATCH", f"{FUNCTIONS}/f", b"", 404, "UnknownOperationException"),
        ("GET", f"{FUNCTIONS}/f/policy", b"", 404, "UnknownOperationException"),
        ("POST", FUNCTIONS, b"{", 400, "InvalidRequestContentException"),
        ("POST", FUNCTIONS, b"[" * 100_000, 400, "InvalidRequestContentException"),
        ("POST", FUNCTIONS, b"[]", 400, "InvalidRequestContentException"),
        ("POST", FUNCTIONS, b'{"FunctionName": 7}', 400, "ValidationException"),
        ("PUT", f"{FUNCTIONS}/f/configuration", b'{"Timeout": "9"}', 400, "ValidationException"),
        ("PUT", f"{FUNCTIONS}/f/configuration", b'{"Environment": 9}', 400, "ValidationException"),
        ("PUT", f"{FUNCTIONS}/f/code", b'{"ZipFile": "*"}', 400, "InvalidParameterValueException"),
        ("PUT", "/2017-10-31/functions/f/concurrency", b"{}", 400, "ValidationException"),
    ],
)
def test_invalid_requests_get_the_errors_of_aws(
    engine: Engine, method: str, path: str, body: bytes, status: int, kind: str
) -> None:
    answer = engine.raw(method, path, body)
    assert (answer.status, answer.headers["x-amzn-ErrorType"]) == (status, kind)
    assert answer.told["Type"] == "User"
    assert answer.told["message"]


def test_unsigned_requests_and_web_pages_are_rejected(engine: Engine) -> None:
    unsigned = engine.raw("GET", f"{FUNCTIONS}/f", Authorization="")
    assert unsigned.status == 403
    assert unsigned.headers["x-amzn-ErrorType"] == "MissingAuthenticationTokenException"
    assert engine.raw("GET", f"{FUNCTIONS}/f", Origin="http://example.com").status == 403


def test_an_engine_starts_although_a_functions_file_is_broken(tmp_path: Any) -> None:
    broken = tmp_path / "local" / "functions" / "old"
    broken.mkdir(parents=True)
    (broken / "config.json").write_text('{"name": "old", "what": 1}')
    with running_engine(tmp_path) as engine:
        assert engine.lam.list_functions()["Functions"] == []
        engine.waits_for("config.json, which is not a function")
        engine.create("old")
        assert engine.shell("old", "echo new")[1] == "new\n"


# ---------------------------------------------------------------- functions that fail


def test_an_exception_is_reported_with_its_trace(engine: Engine) -> None:
    told = engine.fail("f", do="raise")
    assert (told["errorType"], told["errorMessage"]) == ("ValueError", "no such luck")
    assert [*told] == ["errorMessage", "errorType", "requestId", "stackTrace"]
    assert len(told["stackTrace"]) == 1
    assert 'raise ValueError("no such luck")' in told["stackTrace"][0]


@pytest.mark.parametrize(
    ("handler", "code", "kind", "says"),
    [
        ("nowhere.handler", "", "Runtime.ImportModuleError",
         "Unable to import module 'nowhere': No module named 'nowhere'"),
        ("main.handler", "import nothing_like_it", "Runtime.ImportModuleError",
         "Unable to import module 'main': No module named 'nothing_like_it'"),
        ("main.handler", "def handler(:", "Runtime.UserCodeSyntaxError",
         "Syntax error in module 'main': invalid syntax (main.py, line 1)"),
        ("main.handler", "1 / 0", "ZeroDivisionError", "division by zero"),
        ("main.nothing", "", "Runtime.HandlerNotFound",
         "Handler 'nothing' missing on module 'main'"),
        ("handler", "", "Runtime.MalformedHandlerName",
         "Bad handler 'handler': not enough values to unpack (expected 2, got 1)"),
        ("sys.exit", "", "Runtime.BuiltInModuleConflict",
         "Cannot use built-in module sys as a handler module"),
    ],
)  # fmt: skip
def test_a_missing_handler_is_reported_as_by_awslambdaric(
    engine: Engine, handler: str, code: str, kind: str, says: str
) -> None:
    engine.create("broken", Handler=handler, Code={"ZipFile": bundle(code)})
    told = engine.fail("broken")
    engine.lam.delete_function(FunctionName="broken")
    assert (told["errorType"], told["errorMessage"]) == (kind, says)
    if kind.endswith("SyntaxError"):
        assert told["stackTrace"][0].endswith('main.py" Line 1\n    def handler(:')


@pytest.mark.parametrize(
    ("what", "kind", "says"),
    [
        ("object()", "Runtime.MarshalError",
         "Unable to marshal response: Object of type object is not JSON serializable"),
        ("'\\ud800'", "Runtime.MarshalError", "Unable to marshal response: "),
        ("'x' * (6 << 20) + 'x' * 99", "Function.ResponseSizeTooLarge",
         "Response payload size exceeded maximum allowed payload size (6291556 bytes)."),
    ],
)  # fmt: skip
def test_a_result_that_cannot_be_sent_is_an_error(
    engine: Engine, what: str, kind: str, says: str
) -> None:
    told = engine.fail("f", do="return", what=what)
    assert told["errorType"] == kind
    assert told["errorMessage"].startswith(says)


def test_exits_and_kills_are_worded_as_on_aws(engine: Engine) -> None:
    assert engine.fail("f", do="exit", status=3)["errorMessage"].endswith(
        "Error: Runtime exited with error: exit status 3"
    )
    assert engine.fail("f", do="exit", status=0)["errorMessage"].endswith(
        "Error: Runtime exited without providing a reason"
    )
    killed = engine.fail("f", do="kill")
    assert killed["errorType"] == "Runtime.ExitError"
    assert killed["errorMessage"].endswith("Error: Runtime exited with error: signal: killed")


def test_a_function_that_times_out_is_killed(engine: Engine) -> None:
    engine.create("short", Timeout=1)
    told = engine.fail("short", do="shell", command="sleep 60")
    assert told["errorType"] == "Sandbox.Timedout"
    assert told["errorMessage"].endswith("Error: Task timed out after 1.00 seconds")


def test_the_role_is_stored(engine: Engine) -> None:
    assert engine.lam.get_function_configuration(FunctionName="f")["Role"] == ROLE


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.example", 403),
        ("evil.example:13590", 403),
        ("localhost.evil.example", 403),
        ("", 403),
    ],
)
def test_a_foreign_host_is_refused_even_with_a_signature(engine, host, status):
    answer = engine.raw("GET", FUNCTIONS, Host=host)
    assert (answer.status, answer.headers["x-amzn-ErrorType"]) == (status, "AccessDeniedException")
    assert "Host must be" in answer.told["message"]


@pytest.mark.parametrize("host", ["localhost:{}", "127.0.0.1:{}", "LOCALHOST", "[::1]:{}"])
def test_the_names_of_this_machine_are_accepted(engine, host):
    assert engine.raw("GET", FUNCTIONS, Host=host.format(engine.port)).status == 200


@pytest.mark.parametrize("name", ["Host", "Authorization", "X-Amz-Date", "X-Amz-Nothing"])
def test_a_header_that_is_not_utf_8_is_refused(engine, name):
    answer = engine.raw("GET", FUNCTIONS, **{name: "\xff\xfe"})
    assert answer.status == 403
    assert "Exception" in answer.headers["x-amzn-ErrorType"]
