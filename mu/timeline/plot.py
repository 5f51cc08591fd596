"""Draws a timeline: how many actors did what, a row for each actor, and how long things took."""

from collections.abc import Callable, Sequence

from mu.timeline.attempts import AWAY, IDLE, WAIT
from mu.timeline.course import BLOCKED, CANCELLED, DONE, FAILED, LAUNCHING, STARTING, WAITING
from mu.timeline.figures import (
    PHASES,
    WORKING,
    cold_starts,
    concurrency,
    histogram,
    in_seconds,
    quantile,
    run_times,
    ticks,
)
from mu.timeline.shape import ActorCourseJson, TimelineJson
from mu.timeline.svg import bars, element, number, picture, polygon

WIDTH, LEFT, RIGHT = 1200.0, 60.0, 16.0
INNER = WIDTH - LEFT - RIGHT
AREA, CHART = 130.0, 120.0
"""The heights of the chart of all actors, and of a histogram."""
ROWS, TALLEST = 1000.0, 16.0
"""The most pixels of all rows together, and of one row."""
MOST_ROWS = 1000
SAMPLES = 570
THINNEST = 0.25
"""The narrowest segment that is drawn, in pixels."""
COMMANDS = "other commands"

COLOURS = {
    BLOCKED: "#f1f3f5",
    WAITING: "#dfe3e8",
    LAUNCHING: "#f3dfa2",
    STARTING: "#e69f00",
    IDLE: "#aab4c0",
    "retrieve": "#56b4e9",
    "run": "#0072b2",
    "upload": "#009e73",
    "connect": "#8a63b8",
    COMMANDS: "#6b7785",
    WAIT: "#f0e442",
    AWAY: "#cc79a7",
    DONE: "#7fc8a9",
    FAILED: "#d13b1f",
    CANCELLED: "#9c8f80",
    WORKING: "#0072b2",
}
"""Distinct also for people who cannot tell all colours apart (Okabe and Ito's palette)."""

STYLE = """
svg{font:12px system-ui,sans-serif;background:#fff}
text{fill:#27313c}text.title{font-size:17px;font-weight:600}text.head{font-weight:600}
.quiet{fill:#66717e}.axis{stroke:#c4ccd4;fill:none}.grid{stroke:#e4e8ec;fill:none}
@media(prefers-color-scheme:dark){svg{background:#14181d}text{fill:#e3e8ed}.quiet{fill:#98a3af}
.axis{stroke:#4a545f}.grid{stroke:#2a323b}}
""".replace("\n", "")


def plot(timeline: TimelineJson, title: str = "") -> str:
    """Return a drawing of a timeline with all commands, as SVG. `title` is its first line."""
    length = timeline["seconds"] or 1.0
    parts, top = [], 16.0
    if title:
        parts.append(element("text", text=title, x=LEFT, y=26, kind="title"))
        top = 50.0
    parts.append(_legend(timeline, top))
    top += 34
    parts.append(_area(timeline, top, length))
    top += AREA + 44
    rows, height = _rows(timeline["actors"], top, length)
    parts.append(rows)
    top += height + 54
    half = (INNER - 48) / 2
    parts.append(_histogram("Cold starts", cold_starts(timeline), LEFT, top, half))
    what, seconds = run_times(timeline)
    parts.append(_histogram(what.capitalize(), seconds, LEFT + half + 48, top, half))
    return picture(WIDTH, top + CHART + 40, STYLE, *parts)


# ---------------------------------------------------------------- parts


def _legend(timeline: TimelineJson, top: float) -> str:
    """Return the colours of what the actors did, in the order of a row."""
    known = {_shown(state) for actor in timeline["actors"] for _, state in actor["states"]}
    x, parts = LEFT, []
    for name in (name for name in COLOURS if name in known):
        parts.append(element("rect", x=x, y=top - 9, width=11, height=11, fill=COLOURS[name]))
        parts.append(element("text", text=name, x=x + 16, y=top))
        x += 16 + 7 * len(name) + 20
    return "".join(parts)


def _shown(state: str) -> str:
    return state if state in COLOURS else COMMANDS


def _area(timeline: TimelineJson, top: float, length: float) -> str:
    """Return a chart of how many actors were done, working, connected, starting and waiting."""
    counts = concurrency(timeline, SAMPLES)
    most = max(1, len(timeline["actors"]))
    step = INNER / (SAMPLES - 1)
    below = [0] * SAMPLES
    parts = [element("text", text="Actors", x=LEFT, y=top - 6, kind="head")]
    for phase in (phase for phase in PHASES if phase in counts):
        above = [low + count for low, count in zip(below, counts[phase], strict=True)]
        edge = [(LEFT + n * step, top + AREA * (1 - high / most)) for n, high in enumerate(above)]
        back = [(LEFT + n * step, top + AREA * (1 - low / most)) for n, low in enumerate(below)]
        area = element("title", text=phase)
        parts.append(element("path", area, d=polygon(edge + back[::-1]), fill=COLOURS[phase]))
        below = above
    parts.append(_numbers(most, LEFT, top, AREA))
    parts.append(_times(length, LEFT, top + AREA, INNER))
    return "".join(parts)


def _rows(actors: Sequence[ActorCourseJson], top: float, length: float) -> tuple[str, float]:
    """Return a row for each actor, or for a part of very many; and the height of all."""
    shown = _chosen(actors)
    each = min(TALLEST, ROWS / max(1, len(shown)))
    gap = 0.15 * each if each >= 3 else 0.0
    spans: dict[str, list[tuple[float, float, float, float]]] = {}
    for place, actor in enumerate(shown):
        y = top + place * each
        states = actor["states"]
        ends = [at for at, _ in states[1:]] + [length]
        for (at, state), end in zip(states, ends, strict=True):
            width = (end - at) / length * INNER
            if state == DONE or width < THINNEST:
                continue
            x = LEFT + at / length * INNER
            spans.setdefault(_shown(state), []).append((x, y, width, each - gap))
    heading = "1 actor" if len(actors) == 1 else f"{len(actors):,} actors"
    if len(shown) < len(actors):
        heading += f"; {len(shown):,} are shown: of neighbours, the failed or slowest one"
    parts = [element("text", text=heading, x=LEFT, y=top - 8, kind="head")]
    for state, found in spans.items():
        parts.append(
            element("path", element("title", text=state), d=bars(found), fill=COLOURS[state])
        )
    every = max(1, round(ticks(len(shown), 20)[1])) if len(shown) > 20 else 1
    for place in range(0, len(shown), every):
        y = top + (place + 0.5) * each + 4
        name = str(shown[place]["actor"])
        parts.append(element("text", text=name, x=LEFT - 8, y=y, text_anchor="end", kind="quiet"))
    height = each * len(shown)
    parts.append(_times(length, LEFT, top + height, INNER))
    return "".join(parts), height


def _chosen(actors: Sequence[ActorCourseJson]) -> Sequence[ActorCourseJson]:
    """Return all actors, or one of each few neighbours: one that failed, or else the slowest."""
    if len(actors) <= MOST_ROWS:
        return actors
    few = -(-len(actors) // MOST_ROWS)
    groups = [actors[place : place + few] for place in range(0, len(actors), few)]
    return [max(group, key=_weight) for group in groups]


def _weight(actor: ActorCourseJson) -> tuple[bool, float]:
    at, state = actor["states"][-1]
    return state == FAILED, at


def _histogram(what: str, seconds: Sequence[float], x: float, top: float, width: float) -> str:
    """Return a chart of how long something took."""
    if not seconds:
        return element("text", text=f"{what}: none yet", x=x, y=top - 6, kind="head")
    middle, most = quantile(seconds, 0.5), max(seconds)
    heading = (
        f"{what}: {len(seconds):,}, median {in_seconds(middle)}, 95 % within"
        f" {in_seconds(quantile(seconds, 0.95))}, longest {in_seconds(most)}"
    )
    found = histogram(seconds)
    tallest = max(found.counts)
    each = width / len(found.counts)
    spans = [
        (
            x + n * each,
            top + CHART * (1 - count / tallest),
            max(each - 1, 0.5),
            CHART * count / tallest,
        )
        for n, count in enumerate(found.counts)
        if count
    ]
    total = found.width * len(found.counts)
    label: Callable[[float], str] = lambda at: in_seconds(found.first + at)  # noqa: E731
    return "".join(
        (
            element("text", text=heading, x=x, y=top - 6, kind="head"),
            element("path", d=bars(spans), fill=COLOURS[WORKING]),
            _numbers(tallest, x, top, CHART),
            _times(total, x, top + CHART, width, label),
        )
    )


# ---------------------------------------------------------------- axes


def _times(
    length: float, x: float, y: float, width: float, label: Callable[[float], str] = in_seconds
) -> str:
    """Return an axis of times below a chart."""
    parts = [element("path", d=f"M{number(x)} {number(y)}h{number(width)}", kind="axis")]
    for at in ticks(length, max(2, int(width / 90))):
        place = x + at / length * width
        parts.append(element("path", d=f"M{number(place)} {number(y)}v5", kind="axis"))
        parts.append(
            element("text", text=label(at), x=place, y=y + 18, text_anchor="middle", kind="quiet")
        )
    return "".join(parts)


def _numbers(most: int, x: float, top: float, height: float) -> str:
    """Return an axis of whole numbers beside a chart."""
    parts = []
    for at in (at for at in ticks(most, 5) if at == int(at)):
        y = top + height * (1 - at / most)
        parts.append(
            element("text", text=f"{int(at):,}", x=x - 8, y=y + 4, text_anchor="end", kind="quiet")
        )
    return "".join(parts)
