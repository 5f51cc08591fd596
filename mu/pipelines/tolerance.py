"""How many inputs of a job may fail: a number or a percentage."""

import re

from mu.parameters import FieldError, Parameter

_FORM = re.compile(r"([0-9]{1,9})|([0-9]{1,3}(?:\.[0-9]{1,6})?)%", re.ASCII)


class Tolerance(Parameter):
    """A parameter that is a number of inputs, such as 3, or a percentage, such as "2.5%"."""

    def read(self, given: object, field: str) -> object:
        text = str(given) if type(given) is int else given
        form = _FORM.fullmatch(text) if isinstance(text, str) else None
        if form is None or float(form[2] or 0) > 100:
            raise FieldError(
                field,
                f"{field} must be a number of at least 0, or a percentage such as '5%',"
                f" got {given!r:.200}",
            )
        return text


def tolerates(tolerance: str, failed: int, of: int) -> bool:
    """Return whether a job may be done although `failed` of its `of` inputs failed.

    >>> tolerates("2", 2, 50), tolerates("5%", 2, 50), tolerates("5%", 3, 50)
    (True, True, False)
    """
    if tolerance.endswith("%"):
        return failed * 100 <= float(tolerance[:-1]) * of
    return failed <= int(tolerance)
