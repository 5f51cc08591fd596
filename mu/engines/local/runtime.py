"""The handler's own process: the environment that AWS gives, the handler, its answer."""

import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NoReturn

from mu.engines.local import kernel
from mu.engines.local.order import ANSWERED, FAILED, Ground, Order

ANSWER_LIMIT = 6 * 2**20 + 100
_NOT_THE_ROLE = {
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
}


class LambdaContext:
    """The handler's second argument."""

    function_version = "$LATEST"
    identity = None
    client_context = None

    def __init__(self, order: Order, log_stream: str) -> None:
        self.aws_request_id = order.id
        self.function_name = order.function
        self.invoked_function_arn = order.arn
        self.memory_limit_in_mb = str(order.memory)
        self.log_group_name = f"/aws/lambda/{order.function}"
        self.log_stream_name = log_stream
        self._deadline = time.monotonic() + order.timeout

    def get_remaining_time_in_millis(self) -> int:
        return max(0, int((self._deadline - time.monotonic()) * 1000))

    def log(self, message: object) -> None:
        sys.stdout.write(str(message))


class BundleError(Exception):
    """The bundle's handler cannot be called, or what it returned cannot be sent."""

    def __init__(self, kind: str, message: str, trace: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.trace = [trace] if trace else []


def role_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that stand in for the function's role: keys, endpoints."""
    return {
        name: value
        for name, value in environment.items()
        if name.startswith("AWS_")
        and not name.startswith("AWS_LAMBDA_")
        and name not in _NOT_THE_ROLE
    }


def environment_of(order: Order, ground: Ground, role: Mapping[str, str]) -> dict[str, str]:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    made = {
        **role,
        "AWS_EXECUTION_ENV": f"AWS_Lambda_python{version}",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(order.memory),
        "AWS_LAMBDA_FUNCTION_NAME": order.function,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{order.function}",
        "AWS_LAMBDA_LOG_STREAM_NAME": log_stream_of(order),
        "AWS_REGION": order.region,
        "AWS_DEFAULT_REGION": order.region,
        "HOME": "/tmp",
        "LAMBDA_TASK_ROOT": order.code,
        "LANG": "C.UTF-8",
        "LD_LIBRARY_PATH": f"{order.code}:{order.code}/lib",
        "PATH": "/usr/local/bin:/usr/bin:/bin:/opt/bin",
        "TZ": ":UTC",
        "_HANDLER": order.handler,
        **order.environment,
    }
    if ground.shared_tmp:
        made["MU_SHARED_TMP"] = "1"
    return made


def log_stream_of(order: Order) -> str:
    return f"{time.strftime('%Y/%m/%d', time.gmtime())}/[$LATEST]{order.id}"


def run(order: Order, ground: Ground, answer: int) -> NoReturn:
    """Call the handler; leave what it returned, or raised, in the file `answer`, and exit."""
    try:
        _settle_in(order, ground)
        for name, number in (("stdout", 1), ("stderr", 2)):  # the warm parent's are for its files
            printed = open(number, "w", 1, "utf-8", "backslashreplace", closefd=False)  # noqa: SIM115
            setattr(sys, name, printed)
        context = LambdaContext(order, log_stream_of(order))
        try:
            payload = _encode(_handler(order.handler)(json.loads(order.event), context))
            code = ANSWERED
        except Exception as error:
            payload, code = _describe(error, order.id), FAILED
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


def _settle_in(order: Order, ground: Ground) -> None:
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("800")  # should the machine's memory end: handlers go before the daemon
    if ground.outer_ids is not None:
        kernel.unshare(kernel.NEW_USERS)
        kernel.map_user(*ground.outer_ids, 0, 0)
    role = role_variables(os.environ)
    os.environ.clear()
    os.environ.update(environment_of(order, ground, role))
    time.tzset()
    sys.argv = [order.handler]
    sys.path.insert(0, order.code)
    os.chdir(order.code)


def _handler(name: str) -> Callable[[Any, LambdaContext], Any]:
    module_name, dot, function = name.rpartition(".")
    if not dot:
        why = f"Bad handler '{name}': not enough values to unpack (expected 2, got 1)"
        raise BundleError("Runtime.MalformedHandlerName", why)
    if module_name.split(".")[0] in sys.builtin_module_names:
        why = f"Cannot use built-in module {module_name} as a handler module"
        raise BundleError("Runtime.BuiltInModuleConflict", why)
    try:
        module = importlib.import_module(module_name.replace("/", "."))
    except ImportError as error:
        traceback.print_exc()
        why = f"Unable to import module '{module_name}': {error}"
        raise BundleError("Runtime.ImportModuleError", why) from error
    except SyntaxError as error:
        why = f"Syntax error in module '{module_name}': {error}"
        trace = f'  File "{error.filename}" Line {error.lineno}\n    {error.text}'
        raise BundleError("Runtime.UserCodeSyntaxError", why, trace) from error
    try:
        found: Callable[[Any, LambdaContext], Any] = getattr(module, function)
    except AttributeError:
        why = f"Handler '{function}' missing on module '{module_name}'"
        raise BundleError("Runtime.HandlerNotFound", why) from None
    return found


def _encode(returned: object) -> bytes:
    try:
        payload = json.dumps(returned, ensure_ascii=False).encode()
    except (TypeError, ValueError) as error:
        why = f"Unable to marshal response: {error}"
        raise BundleError("Runtime.MarshalError", why) from error
    if len(payload) > ANSWER_LIMIT:
        why = f"Response payload size exceeded maximum allowed payload size ({ANSWER_LIMIT} bytes)."
        raise BundleError("Function.ResponseSizeTooLarge", why)
    return payload


def _describe(error: Exception, request_id: str) -> bytes:
    if isinstance(error, BundleError):
        kind, trace = error.kind, error.trace
    else:
        frames = traceback.extract_tb(error.__traceback__)
        kind = type(error).__name__
        trace = traceback.format_list([each for each in frames if each.filename != __file__])
    told = {
        "errorMessage": str(error),
        "errorType": kind,
        "requestId": request_id,
        "stackTrace": trace,
    }
    print(f"[ERROR] {kind}: {error}\nTraceback (most recent call last):\n{''.join(trace)}")
    return json.dumps(told).encode()
