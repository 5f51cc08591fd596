"""The handler's process: sets up AWS's environment, calls the handler, writes its response."""

import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import NoReturn

from mu.engines.local import kernel
from mu.engines.local.sandbox_messages import ANSWERED, FAILED, SandboxSetup, SandboxTask

ANSWER_LIMIT = 6 * 2**20 + 100
_NOT_THE_ROLE = {
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
}


class LambdaContext:
    """The second argument of the handler."""

    function_version = "$LATEST"
    identity = None
    client_context = None

    def __init__(self, task: SandboxTask, log_stream: str) -> None:
        self.aws_request_id = task.id
        self.function_name = task.function
        self.invoked_function_arn = task.arn
        self.memory_limit_in_mb = str(task.memory)
        self.log_group_name = f"/aws/lambda/{task.function}"
        self.log_stream_name = log_stream
        self._deadline = time.monotonic() + task.timeout

    def get_remaining_time_in_millis(self) -> int:
        return max(0, int((self._deadline - time.monotonic()) * 1000))

    def log(self, message: object) -> None:
        sys.stdout.write(str(message))


Handler = Callable[[object, LambdaContext], object]


class HandlerError(Exception):
    """The handler cannot be imported, or its return value cannot be sent."""

    def __init__(self, kind: str, message: str, trace: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.trace = [trace] if trace else []


def role_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables with keys and endpoints; they replace the role of the function."""
    return {
        name: value
        for name, value in environment.items()
        if name.startswith("AWS_")
        and not name.startswith("AWS_LAMBDA_")
        and name not in _NOT_THE_ROLE
    }


def environment_of(
    task: SandboxTask, setup: SandboxSetup, role: Mapping[str, str]
) -> dict[str, str]:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    made = {
        **role,
        "AWS_EXECUTION_ENV": f"AWS_Lambda_python{version}",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(task.memory),
        "AWS_LAMBDA_FUNCTION_NAME": task.function,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{task.function}",
        "AWS_LAMBDA_LOG_STREAM_NAME": log_stream_of(task),
        "AWS_REGION": task.region,
        "AWS_DEFAULT_REGION": task.region,
        "HOME": "/tmp",
        "LAMBDA_TASK_ROOT": task.code,
        "LANG": "C.UTF-8",
        "MU_SHARED_MACHINE": "1",  # what the system says of the machine is not of this sandbox alone
        "LD_LIBRARY_PATH": f"{task.code}:{task.code}/lib",
        "PATH": "/usr/local/bin:/usr/bin:/bin:/opt/bin",
        "TZ": ":UTC",
        "_HANDLER": task.handler,
        **task.environment,
    }
    if setup.shared_tmp:
        made["MU_SHARED_TMP"] = "1"
    return made


def log_stream_of(task: SandboxTask) -> str:
    return f"{time.strftime('%Y/%m/%d', time.gmtime())}/[$LATEST]{task.id}"


def run(task: SandboxTask, setup: SandboxSetup, answer: int) -> NoReturn:
    """Call the handler, write its return value or exception to the file `answer`, and exit."""
    try:
        _prepare(task, setup)
        for name, number in (
            ("stdout", 1),
            ("stderr", 2),
        ):  # those of the warm parent refer to its own files
            printed = open(number, "w", 1, "utf-8", "backslashreplace", closefd=False)  # noqa: SIM115
            setattr(sys, name, printed)
        context = LambdaContext(task, log_stream_of(task))
        try:
            payload = _encode(_handler(task.handler)(json.loads(task.event), context))
            code = ANSWERED
        except Exception as error:
            payload, code = _describe(error, task.id), FAILED
        sys.stdout.flush()
        with open(answer, "wb", closefd=False) as file:
            file.write(payload)
        os._exit(code)
    except SystemExit as ended:
        sys.stdout.flush()
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        os._exit(status & 0xFF)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def _prepare(task: SandboxTask, setup: SandboxSetup) -> None:
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("800")  # if the machine runs out of memory, kill handlers before the daemon
    if setup.outer_ids is not None:
        kernel.unshare(kernel.NEW_USERS)
        kernel.map_user(*setup.outer_ids, 0, 0)
    elif not setup.shared_tmp:
        kernel.drop_capabilities()
    role = role_variables(os.environ) | task.role
    os.environ.clear()
    os.environ.update(environment_of(task, setup, role))
    time.tzset()
    sys.argv = [task.handler]
    sys.path.insert(0, task.code)
    os.chdir(task.code)


def _handler(name: str) -> Handler:
    module_name, dot, function = name.rpartition(".")
    if not dot:
        why = f"Bad handler '{name}': not enough values to unpack (expected 2, got 1)"
        raise HandlerError("Runtime.MalformedHandlerName", why)
    if module_name.split(".")[0] in sys.builtin_module_names:
        why = f"Cannot use built-in module {module_name} as a handler module"
        raise HandlerError("Runtime.BuiltInModuleConflict", why)
    try:
        module = importlib.import_module(module_name.replace("/", "."))
    except ImportError as error:
        traceback.print_exc()
        why = f"Unable to import module '{module_name}': {error}"
        raise HandlerError("Runtime.ImportModuleError", why) from error
    except SyntaxError as error:
        why = f"Syntax error in module '{module_name}': {error}"
        trace = f'  File "{error.filename}" Line {error.lineno}\n    {error.text}'
        raise HandlerError("Runtime.UserCodeSyntaxError", why, trace) from error
    try:
        found: Handler = getattr(module, function)
    except AttributeError:
        why = f"Handler '{function}' missing on module '{module_name}'"
        raise HandlerError("Runtime.HandlerNotFound", why) from None
    return found


def _encode(returned: object) -> bytes:
    try:
        payload = json.dumps(returned, ensure_ascii=False).encode()
    except (TypeError, ValueError) as error:
        why = f"Unable to marshal response: {error}"
        raise HandlerError("Runtime.MarshalError", why) from error
    if len(payload) > ANSWER_LIMIT:
        why = f"Response payload size exceeded maximum allowed payload size ({ANSWER_LIMIT} bytes)."
        raise HandlerError("Function.ResponseSizeTooLarge", why)
    return payload


def _describe(error: Exception, request_id: str) -> bytes:
    if isinstance(error, HandlerError):
        kind, trace = error.kind, error.trace
    else:
        frames = traceback.extract_tb(error.__traceback__)
        kind = type(error).__name__
        trace = traceback.format_list([each for each in frames if each.filename != __file__])
    fields = {
        "errorMessage": str(error),
        "errorType": kind,
        "requestId": request_id,
        "stackTrace": trace,
    }
    print(f"[ERROR] {kind}: {error}\nTraceback (most recent call last):\n{''.join(trace)}")
    return json.dumps(fields).encode()
