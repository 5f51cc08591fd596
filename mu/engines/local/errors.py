"""The errors of the Lambda API, in AWS's format and wording."""

import json
import math
import time

from mu.aws.answers import TABLE

_CAPITALISED = {"ResourceNotFoundException", "ServiceException"}
"""The errors whose message key is `Message`; the others have `message`."""


class LambdaError(Exception):
    """An error response of the API; `code` is AWS's name for it, and boto3's exception."""

    def __init__(self, status: int, code: str, message: str, **more: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code
        self.headers = {"x-amzn-ErrorType": code}
        key = "Message" if code in _CAPITALISED else "message"
        self._body = {**more, "Type": "User" if status < 500 else "Service", key: message}

    @property
    def body(self) -> bytes:
        return json.dumps(self._body).encode()


class GatewayError(LambdaError):
    """The response of a proxy before an unreachable API: an HTML page instead of JSON."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(status, "", reason)
        self.headers = {"Content-Type": "text/html"}

    @property
    def body(self) -> bytes:
        return f"<html><body><b>Http/1.1 {self}</b></body></html>".encode()


def no_such(arn: str) -> LambdaError:
    return LambdaError(404, "ResourceNotFoundException", f"Function not found: {arn}")


def invalid(message: str) -> LambdaError:
    return LambdaError(400, "InvalidParameterValueException", message)


def unfit(name: str, value: object, rule: str) -> LambdaError:
    """A field that breaks a constraint of AWS's model; `rule` completes "Member must"."""
    shown = "null" if value is None else str(value)
    text = f"Value '{shown[:200]}' at '{name}' failed to satisfy constraint: Member must {rule}"
    return LambdaError(400, "ValidationException", f"1 validation error detected: {text}")


def no_json(why: object) -> LambdaError:
    message = f"Could not parse request body into json: {why}"
    return LambdaError(400, "InvalidRequestContentException", message)


def conflict(message: str) -> LambdaError:
    return LambdaError(409, "ResourceConflictException", message)


def too_large(limit: int) -> LambdaError:
    message = f"Request must be smaller than {limit} bytes"
    return LambdaError(413, "RequestEntityTooLargeException", message)


def access_denied(region: str) -> LambdaError:
    who = "User: arn:aws:iam::000000000000:user/mu is not authorized to perform: lambda:*"
    why = "with an explicit deny in a service control policy"
    return LambdaError(403, "AccessDeniedException", f"{who} in {region} {why}")


def expired_token() -> LambdaError:
    message = "The security token included in the request is expired"
    return LambdaError(403, "ExpiredTokenException", message)


def too_many(reason: str) -> LambdaError:
    """Too many invocations are running. AWS does not say when to retry."""
    return LambdaError(429, "TooManyRequestsException", "Rate Exceeded.", Reason=reason)


def too_often(wait_s: float) -> LambdaError:
    """The caller exceeds its request rate, and is told when to retry."""
    reason = "CallerRateLimitExceeded"
    error = LambdaError(429, "TooManyRequestsException", "Rate exceeded", Reason=reason)
    error.headers["Retry-After"] = str(math.ceil(wait_s))
    return error


def of_table(code: str) -> LambdaError:
    """The error of this code in mu.aws.answers, with the usual status."""
    return LambdaError(TABLE[code].status, code, f"Injected by the local engine: {code}")


def not_ready(function: str, first: bool) -> LambdaError:
    """What AWS answers for a function that nobody called for weeks, until it is ready."""
    if first:
        why = "its code artifact user is still being provisioned"
        code = "CodeArtifactUserPendingException"
        return LambdaError(409, code, f"The function {function} could not be invoked because {why}")
    message = "The operation cannot be performed at this time. The function is currently in the"
    message += " following state: Pending"
    return LambdaError(409, "ResourceConflictException", message)


def clock_skewed(now: float, ahead: int) -> LambdaError:
    """What AWS answers if the caller's clock is `ahead` seconds ahead of its own."""

    def at(moment: float) -> str:
        return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(moment))

    there = now - ahead
    if ahead < 0:
        message = f"Signature expired: {at(now)} is now earlier than {at(there - 300)}"
        message += f" ({at(there)} - 5 min.)"
    else:
        message = f"Signature not yet current: {at(now)} is still later than {at(there + 300)}"
        message += f" ({at(there)} + 5 min.)"
    return LambdaError(403, "InvalidSignatureException", message)
