"""Parts of a function's name in the forms that AWS takes.

These are NAME, function:NAME, ACCOUNT:NAME, REGION:ACCOUNT:NAME and ARNs, all of them also with
`:VERSION` or `:ALIAS`.
"""

import re

_FORM = re.compile(r"(?:(?:.*:)?function:|(?:[a-z0-9-]+:)?[0-9]{12}:|)([^:]+)")


def unqualified(function: str) -> str:
    """Return a function's name without its version or alias."""
    form = _FORM.match(function)
    return form[0] if form else function


def plain_name(function: str) -> str:
    """Return the NAME alone."""
    form = _FORM.match(function)
    return form[1] if form else function
