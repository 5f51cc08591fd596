"""Decides as IAM does: whether identity-based policies allow a request, and who may assume a role.

It has what mu's policies use and what AWS's documentation shows with them. Anything else in a
policy is a BadPolicy rather than a wrong decision.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

ALLOWED, EXPLICIT_DENY, IMPLICIT_DENY = "allowed", "explicitDeny", "implicitDeny"
"""The decisions, as SimulatePrincipalPolicy calls them."""

_VERSIONS = ("2008-10-17", "2012-10-17")
_ELEMENTS = {"Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Condition"}
_TOKEN = re.compile(r"\$\{([^}]*)\}|.", re.DOTALL)
_VARIABLE = re.compile(r"([\w:/.@=+-]+)(?:, *'([^']*)')?")

Values = str | Sequence[str]


class BadPolicy(Exception):
    """The policy is not valid, or uses something that is not known here."""


@dataclass(frozen=True)
class Request:
    """An action on a resource: an ARN, or `*` for an action that has no resources."""

    action: str
    resource: str = "*"
    context: Mapping[str, str] = field(default_factory=dict)
    """The values of condition keys, whose names are not case-sensitive."""

    def value(self, key: str) -> str | None:
        for name, value in self.context.items():
            if name.lower() == key.lower():
                return value
        return None


def decide(policies: Sequence[Mapping[str, Any]], request: Request) -> str:
    """Return the decision of all identity-based policies of a user or role together."""
    effects = {
        statement["Effect"]
        for policy in policies
        for statement in _statements(policy, _ELEMENTS)
        if _applies(statement, policy.get("Version", _VERSIONS[0]), request)
    }
    if "Deny" in effects:
        return EXPLICIT_DENY
    return ALLOWED if "Allow" in effects else IMPLICIT_DENY


def may_assume(policy: Mapping[str, Any], service: str) -> bool:
    """Return whether a role's trust policy lets a service assume the role."""
    effects = set()
    for statement in _statements(policy, {"Sid", "Effect", "Action", "Principal"}):
        services = _listed(statement["Principal"].get("Service", []))
        actions = _listed(statement["Action"])
        if service in services and any(_like(one, "sts:AssumeRole", True) for one in actions):
            effects.add(statement["Effect"])
    return effects == {"Allow"}


# ---------------------------------------------------------------- statements


def _statements(policy: Mapping[str, Any], elements: set[str]) -> Iterator[Mapping[str, Any]]:
    if unknown := set(policy) - {"Version", "Id", "Statement"}:
        raise BadPolicy(f"unknown elements: {unknown}")
    if policy.get("Version", _VERSIONS[0]) not in _VERSIONS:
        raise BadPolicy(f"unknown version {policy['Version']}")
    found = policy["Statement"]
    statements = [found] if isinstance(found, Mapping) else found
    sids = [one["Sid"] for one in statements if "Sid" in one]
    if len(sids) != len(set(sids)) or not all(sid.isalnum() for sid in sids):
        raise BadPolicy(f"a Sid is not unique, or not of letters and digits: {sids}")
    for statement in statements:
        if unknown := set(statement) - elements:
            raise BadPolicy(f"unknown elements: {unknown}")
        if statement["Effect"] not in ("Allow", "Deny"):
            raise BadPolicy(f"unknown effect {statement['Effect']}")
        yield statement


def _applies(statement: Mapping[str, Any], version: str, request: Request) -> bool:
    def same_action(pattern: str) -> bool:
        if pattern != "*" and not re.fullmatch(r"[a-z0-9-]+:[\w*?]+", pattern, re.IGNORECASE):
            raise BadPolicy(f"not an action: {pattern}")
        return _like(pattern, request.action, ignore_case=True)

    def same_resource(pattern: str) -> bool | None:
        return _same_arn(pattern, request.resource, version, request)

    action = _any(statement, "Action", same_action)
    resource = _any(statement, "Resource", same_resource)
    condition = all(
        _holds(operator, key, _listed(values), version, request)
        for operator, tests in statement.get("Condition", {}).items()
        for key, values in tests.items()
    )
    return action and resource and condition


def _any(statement: Mapping[str, Any], element: str, matches: Callable[[str], bool | None]) -> bool:
    """Return whether one of the element's values matches, or for its Not form, none does.

    None, for a policy variable without a value, never makes a statement apply.
    """
    given, negated = element in statement, f"Not{element}" in statement
    if given == negated:
        raise BadPolicy(f"a statement must have either {element} or Not{element}")
    found = [matches(one) for one in _listed(statement[element if given else f"Not{element}"])]
    return any(found) if given else None not in found and not any(found)


def _listed(values: Values) -> Sequence[str]:
    return [values] if isinstance(values, str) else values


# ---------------------------------------------------------------- patterns


def _same_arn(pattern: str, resource: str, version: str, request: Request) -> bool | None:
    if pattern == "*":
        return True
    if not re.match(r"arn:[^:]*:[a-z0-9-]+:", pattern):  # the service has no wildcards
        raise BadPolicy(f"not an ARN: {pattern}")
    tokens = _tokens(pattern, version, request)
    return None if tokens is None else _matches(tokens, resource, within_segments=True)


def _like(pattern: str, text: str, ignore_case: bool = False) -> bool:
    if ignore_case:
        pattern, text = pattern.lower(), text.lower()
    return _matches([(one, one in "*?") for one in pattern], text)


def _tokens(text: str, version: str, request: Request) -> list[tuple[str, bool]] | None:
    """Return parts of a text, each with whether it is a wildcard; None: a variable has no value."""
    found: list[tuple[str, bool]] = []
    for token in _TOKEN.finditer(text):
        name = token[1]
        if name is None or version == _VERSIONS[0]:
            found += [(one, one in "*?") for one in token[0]]
        elif name in ("*", "?", "$"):
            found.append((name, False))
        else:
            variable = _VARIABLE.fullmatch(name)
            if variable is None:
                raise BadPolicy(f"not a variable: {token[0]}")
            value = request.value(variable[1])
            value = variable[2] if value is None else value
            if value is None:
                return None
            found.append((value, False))
    return found


def _matches(tokens: Sequence[tuple[str, bool]], text: str, within_segments: bool = False) -> bool:
    """Within segments, a `*` passes a colon only where it is the last character of its segment."""
    parts = []
    for place, (one, wildcard) in enumerate(tokens):
        last = place + 1 == len(tokens) or tokens[place + 1] == (":", False)
        some = "." if not within_segments or (last and one == "*") else "[^:]"
        parts.append((some + "*" if one == "*" else some) if wildcard else re.escape(one))
    return re.fullmatch("".join(parts), text, re.DOTALL) is not None


# ---------------------------------------------------------------- conditions

_Tokens = list[tuple[str, bool]]


def _plain(tokens: _Tokens) -> str:
    return "".join(one for one, _ in tokens)


def _arn_like(tokens: _Tokens, value: str) -> bool:
    """Compare the six components of an ARN one by one."""
    components: list[_Tokens] = [[]]
    for token in tokens:
        if token == (":", False) and len(components) < 6:
            components.append([])
        else:
            components[-1].append(token)
    found = value.split(":", 5)
    return len(components) == len(found) and all(map(_matches, components, found))


_OPERATORS: Mapping[str, Callable[[_Tokens, str], bool]] = {
    "StringEquals": lambda tokens, value: _plain(tokens) == value,
    "StringEqualsIgnoreCase": lambda tokens, value: _plain(tokens).lower() == value.lower(),
    "StringLike": _matches,
    "ArnEquals": _arn_like,
    "ArnLike": _arn_like,
    "Bool": lambda tokens, value: _plain(tokens).lower() == value.lower(),
}
_NEGATED = {
    "StringNotEquals": "StringEquals",
    "StringNotEqualsIgnoreCase": "StringEqualsIgnoreCase",
    "StringNotLike": "StringLike",
    "ArnNotEquals": "ArnEquals",
    "ArnNotLike": "ArnLike",
}


def _holds(operator: str, key: str, values: Sequence[str], version: str, request: Request) -> bool:
    value = request.value(key)
    if operator == "Null":
        return str(value is None).lower() in values
    name = operator.removesuffix("IfExists")
    test = _OPERATORS.get(_NEGATED.get(name, name))
    if test is None:
        raise BadPolicy(f"unknown operator {operator}")
    if value is None:
        return name in _NEGATED or name != operator
    wanted = [_tokens(one, version, request) for one in values]
    if None in wanted:
        return False
    return any(test(one, value) for one in wanted if one is not None) != (name in _NEGATED)
