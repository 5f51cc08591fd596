"""Refusals in the shape in which the Lambda API tells them."""

import json


class Refused(Exception):
    """The call is refused: `code` is AWS's name for it, with which boto3 raises."""

    def __init__(self, status: int, code: str, message: str, **more: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code
        self._body = {"Type": "User", "Message": message, "message": message, **more}

    @property
    def body(self) -> bytes:
        return json.dumps(self._body).encode()


def no_such(arn: str) -> Refused:
    return Refused(404, "ResourceNotFoundException", f"Function not found: {arn}")


def invalid(message: str) -> Refused:
    return Refused(400, "InvalidParameterValueException", message)


def conflict(message: str) -> Refused:
    return Refused(409, "ResourceConflictException", message)


def too_many() -> Refused:
    reason = "ConcurrentInvocationLimitExceeded"
    return Refused(429, "TooManyRequestsException", "Rate Exceeded.", Reason=reason)
