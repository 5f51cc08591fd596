"""Writes SVG: elements as text, numbers with one decimal."""

from collections.abc import Iterable
from html import escape


def element(name: str, *inside: str, text: str = "", **attributes: float | str) -> str:
    """Return an element with these attributes; `_` in a name stands for `-`, and `kind` for class.

    >>> element("text", text="a < b", x=1.04, text_anchor="end", kind="axis")
    '<text x="1" text-anchor="end" class="axis">a &lt; b</text>'
    """
    given = "".join(
        f' {"class" if key == "kind" else key.replace("_", "-")}="{escape(number(value))}"'
        for key, value in attributes.items()
    )
    content = escape(text, quote=False) + "".join(inside)
    return f"<{name}{given}>{content}</{name}>" if content else f"<{name}{given}/>"


def number(value: float | str) -> str:
    """Return a coordinate with at most one decimal; a text as it is.

    >>> number(3.14159), number(2.04), number("none")
    ('3.1', '2', 'none')
    """
    return value if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")


def bars(spans: Iterable[tuple[float, float, float, float]]) -> str:
    """Return the path of many rectangles (x, y, width, height), which is smaller than elements."""
    return "".join(
        f"M{number(x)} {number(y)}h{number(width)}v{number(height)}h{number(-width)}z"
        for x, y, width, height in spans
    )


def polygon(points: Iterable[tuple[float, float]]) -> str:
    """Return the path of an area between these points."""
    return "M" + "L".join(f"{number(x)} {number(y)}" for x, y in points) + "z"


def picture(width: float, height: float, style: str, *inside: str) -> str:
    """Return a whole drawing, which scales to the width of its page."""
    return element(
        "svg",
        element("style", style),
        *inside,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {number(width)} {number(height)}",
        width=width,
        height=height,
        role="img",
    )
