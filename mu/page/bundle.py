"""Puts the modules and the stylesheet of the page into texts that a report can contain."""

import re
from functools import cache
from importlib.resources import files

_IMPORT = re.compile(r'^import \{([^}]*)\} from "\./(\w+)\.js";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:const|function|class) (\w+))", re.MULTILINE)


@cache
def script() -> str:
    """Return one module that shows a report; its data are in the element with the id `data`.

    It needs neither other modules nor any host.
    """
    done: dict[str, str] = {}
    _add("report", done)
    return "\n".join(done.values())


@cache
def style() -> str:
    """Return the stylesheet of the page."""
    return (files("mu.page") / "static" / "style.css").read_text("utf-8")


def _add(name: str, done: dict[str, str]) -> None:
    """Add a module after those that it imports. Each becomes a function, so that no names clash."""
    text = _read(name)
    for _, other in _IMPORT.findall(text):
        if other not in done:
            _add(other, done)
    exported = ", ".join(_EXPORT.findall(text))
    text = _EXPORT.sub("", _IMPORT.sub(_bound, text))
    done[name] = f"const ${name} = await (async () => {{\n{text}\nreturn {{{exported}}};\n}})();"


def _bound(found: re.Match[str]) -> str:
    return f"const {{{found[1].replace(' as ', ': ')}}} = ${found[2]};\n"


def _read(name: str) -> str:
    """Return a module: that of a report, or else that of the page."""
    folder = files("mu.page")
    offline = folder / "offline" / f"{name}.js"
    return (offline if offline.is_file() else folder / "static" / f"{name}.js").read_text("utf-8")
