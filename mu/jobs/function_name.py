"""Names of Lambda functions, as AWS's API accepts them."""

import re
from dataclasses import dataclass

_FORM = re.compile(
    r"(?P<place>(?:arn:aws[a-z-]*:lambda:(?=[a-z0-9-]+:[0-9]{12}:function:))?"
    r"(?:(?P<region>[a-z0-9-]{1,64}):)?[0-9]{12}:(?:function:)?"
    r"|(?:function:)?)"
    r"(?P<name>[A-Za-z0-9_.-]+)"
    r"(?P<qualifier>(?::(?:\$LATEST(?:\.PUBLISHED)?|[A-Za-z0-9_-]+))?)"
)
LONGEST = 256
"""As in AWS's model of Invoke, in November 2026."""


@dataclass(frozen=True, slots=True)
class FunctionName:
    """The parts of a name such as NAME, NAME:ALIAS, ACCOUNT:NAME, or an ARN."""

    place: str
    """Everything before the name."""
    region: str
    """The region of an ARN or REGION:ACCOUNT:NAME; empty: the name has none."""
    name: str
    qualifier: str
    """The version or alias, with its colon; empty: none."""

    @classmethod
    def parse(cls, text: str) -> "FunctionName":
        """Raises ValueError."""
        form = _FORM.fullmatch(text) if len(text) <= LONGEST else None
        if form is None:
            raise ValueError(f"must be a function's name or ARN, got {text!r:.200}")
        return cls(form["place"], form["region"] or "", form["name"], form["qualifier"])

    def copy(self, number: int) -> str:
        """Return the name of a copy of the function, with the same version or alias."""
        return f"{self.place}{self.name}-{number}{self.qualifier}"
