"""Refusals in the shape in which the Lambda API tells them."""

import json
import math

_CAPITALISED = {"ResourceNotFoundException", "ServiceException"}


class Refused(Exception):
    """The call is refused: `code` is AWS's name for it, with which boto3 raises."""

    def __init__(self, status: int, code: str, message: str, **more: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code
        self.headers = {"x-amzn-ErrorType": code}
        word = "Message" if code in _CAPITALISED else "message"
        self._body = {**more, "Type": "User" if status < 500 else "Service", word: message}

    @property
    def body(self) -> bytes:
        return json.dumps(self._body).encode()


class Unavailable(Refused):
    """What stands before the API cannot reach it, and says so in a page, not in JSON."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(status, "", words)
        self.headers = {"Content-Type": "text/html"}

    @property
    def body(self) -> bytes:
        return f"<html><body><b>Http/1.1 {self}</b></body></html>".encode()


def no_such(arn: str) -> Refused:
    return Refused(404, "ResourceNotFoundException", f"Function not found: {arn}")


def invalid(message: str) -> Refused:
    return Refused(400, "InvalidParameterValueException", message)


def unfit(name: str, value: object, rule: str) -> Refused:
    """A field that breaks a rule of AWS's model; `rule`: what the member must do."""
    shown = "null" if value is None else str(value)
    text = f"Value '{shown[:200]}' at '{name}' failed to satisfy constraint: Member must {rule}"
    return Refused(400, "ValidationException", f"1 validation error detected: {text}")


def no_json(why: object) -> Refused:
    message = f"Could not parse request body into json: {why}"
    return Refused(400, "InvalidRequestContentException", message)


def conflict(message: str) -> Refused:
    return Refused(409, "ResourceConflictException", message)


def too_large(limit: int) -> Refused:
    message = f"Request must be smaller than {limit} bytes"
    return Refused(413, "RequestEntityTooLargeException", message)


def access_denied(region: str) -> Refused:
    who = "User: arn:aws:iam::000000000000:user/mu is not authorized to perform: lambda:*"
    why = "with an explicit deny in a service control policy"
    return Refused(403, "AccessDeniedException", f"{who} in {region} {why}")


def expired_token() -> Refused:
    message = "The security token included in the request is expired"
    return Refused(403, "ExpiredTokenException", message)


def too_many(reason: str) -> Refused:
    """So many run already; AWS does not say how long that will be so."""
    return Refused(429, "TooManyRequestsException", "Rate Exceeded.", Reason=reason)


def too_often(wait_s: float) -> Refused:
    """The caller asks too often; he is told when to ask again."""
    reason = "CallerRateLimitExceeded"
    refused = Refused(429, "TooManyRequestsException", "Rate exceeded", Reason=reason)
    refused.headers["Retry-After"] = str(math.ceil(wait_s))
    return refused
