"""Tables of jobs, actors and pipelines that fit into 80 columns."""

import json
from collections.abc import Callable, Collection, Sequence

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mu.cli.arguments import expected
from mu.cli.display.text import (
    COLOURS,
    GROUPS,
    IN_A_LIST,
    ago,
    clean,
    counted,
    cut,
    inputs_of,
    many,
    one_line,
    short_cost,
    shortened,
    span,
    took,
)
from mu.cli.display.usage import cpu, is_known, memory
from mu.client.answers import ActorJson, JobJson, PipelineJson

NARROW, COUNTS = 8, 14
"""The least widths of columns that are cut or wrap, unless their content is narrower."""


def jobs_table(jobs: Sequence[JobJson], now: float) -> RenderableType:
    """Return the errors of failed jobs, and a row for each job in the given order."""
    columns: dict[str, Callable[[JobJson], str | Text]] = {
        "job": lambda job: job["id"],
        "name": lambda job: clean(job.get("name", "")),
        "pipeline": lambda job: clean(job["pipeline"]),
        "state": lambda job: coloured(job["state"]),
        "progress": _progress,
        "age": lambda job: ago(max(1.0, now - job["created"])).removesuffix(" ago"),
        "duration": lambda job: span(took(job, now)),
        "cost": short_cost,
    }
    if not any(job.get("name") for job in jobs):
        del columns["name"]
    rows = [[cell(job) for cell in columns.values()] for job in jobs]
    failed = [job for job in jobs if job["state"] == "failed"]
    errors = [
        Text(f"Job {job['id']} failed: {shortened(job['error'] or '', IN_A_LIST)}", style="red")
        for job in failed[-GROUPS:]
    ]
    if len(failed) > GROUPS:
        earlier = many(len(failed) - GROUPS, "earlier job")
        errors.insert(0, Text(f"{earlier} failed; mu watch JOB shows why."))
    return Group(
        *errors,
        *([Text()] if errors else []),
        table(list(columns), rows, cuts={"name", "pipeline", "progress"}),
    )


def _progress(job: JobJson) -> str:
    """Count inputs; or actors, if each has one."""
    inputs = inputs_of(job)
    if inputs["total"] == job["workers"]:
        return counted(job["counts"])
    handled = f"{inputs['done'] + inputs['failed']}/{inputs['total']}"
    return f"{handled}, {inputs['failed']} failed" if inputs["failed"] else handled


def workers_table(actors: Sequence[ActorJson], now: float) -> RenderableType:
    """Return a row for each actor, failed ones first. Columns without content are left out."""
    columns: dict[str, Callable[[ActorJson], str | Text]] = {
        "actor": lambda actor: str(actor["actor"]),
        "stage": lambda actor: cut(actor.get("stage") or "", 20),
        "state": lambda actor: coloured(actor["state"]),
        "attempt": lambda actor: str(actor["attempt"]),
        "inputs": _inputs,
        "at": lambda actor: cut(_at(actor), 30),
        "waiting for": lambda actor: cut(actor.get("waits_for") or "", 60),
        "heard": lambda actor: ago(now - actor["since"]),
        "cpu": lambda actor: cpu(actor.get("used", {})),
        "memory": lambda actor: memory(actor.get("used", {})),
        "last reply": lambda actor: cut(actor["last_reply"], 80),
    }
    if not any(actor.get("stage") for actor in actors):
        del columns["stage"]
    if not any(is_known(actor.get("used")) for actor in actors):
        del columns["cpu"], columns["memory"]
    if all(_total(actor) == 1 for actor in actors):
        del columns["inputs"]
    if all(actor["attempt"] < 2 for actor in actors):
        del columns["attempt"]
    if not any(map(_at, actors)):
        del columns["at"]
    if not any(actor.get("waits_for") for actor in actors):
        del columns["waiting for"]
    rows = [
        [cell(actor) for cell in columns.values()]
        for actor in sorted(actors, key=lambda actor: actor["state"] != "failed")
    ]
    return table(list(columns), rows, cuts={"inputs", "at", "waiting for", "last reply"})


def _total(actor: ActorJson) -> int:
    return actor["inputs"]["total"] if "inputs" in actor else 1


def _inputs(actor: ActorJson) -> str:
    """Return `3/10`, or `3/10, 1 failed`."""
    inputs = actor.get("inputs")
    if inputs is None:
        return ""
    failed = f", {inputs['failed']} failed" if inputs["failed"] else ""
    return f"{inputs['done'] + inputs['failed']}/{inputs['total']}{failed}"


def _at(actor: ActorJson) -> str:
    """Return the label of the machine's state, or that of its state before if it ended with an error."""
    label = actor["label"]
    if label in ("TerminalState", actor["state"]):  # it says no more than the state
        return ""
    if not label.startswith("ErrorState"):
        return label
    before, found, _ = (actor["error"] or "").partition(f": {label.removeprefix('ErrorState ')}")
    return before if found else ""


def pipelines_table(pipelines: Sequence[PipelineJson]) -> RenderableType:
    """Return the errors of broken plugins, and a row for each pipeline."""
    rows = [
        (clean(known["name"]), clean(known["description"]))
        for known in pipelines
        if "error" not in known
    ]
    broken = [
        Text(
            f"Plugin {clean(one['name'])} ({clean(one['owner'])}) cannot be used:"
            f" {shortened(one['error'])}",
            style="red",
        )
        for one in pipelines
        if "error" in one
    ]
    known = table(("pipeline", "description"), rows, wraps={"description"})
    said = [*broken, *(warning for one in pipelines for warning in _warnings(one))]
    return Group(*said, *([Text()] if said else []), known)


def _warnings(pipeline: PipelineJson) -> list[Text]:
    """Return a line for each warning about a pipeline."""
    return [
        Text(f"Pipeline {clean(pipeline['name'])}: {shortened(said)}", style="yellow")
        for said in pipeline.get("warnings", [])
    ]


def pipeline_page(pipeline: PipelineJson) -> RenderableType:
    """Return one pipeline with its parameters and an example."""
    names = ("parameter", "default", "type", "description")
    parameters = pipeline["parameters"]
    rows = [
        (
            clean(one["name"]),
            Text("required", style="bold") if one["required"] else _default(one["default"]),
            expected(one),
            clean(one["help"]),
        )
        for one in parameters
    ]
    needed = [f"-p {one['name']}=..." for one in parameters if one["required"]]
    example = " ".join(["mu launch", pipeline["name"], "-n 5", *needed, "--watch"])
    return Group(
        *_warnings(pipeline),
        Text(f"{pipeline['name']}: {clean(pipeline['description'])}"),
        Text(),
        table(names, rows, cuts={"default"}, wraps={"type", "description"})
        if rows
        else Text("It has no parameters."),
        Text(),
        Text(f"Example: {example}"),
    )


def _default(value: object) -> str:
    return clean(value if isinstance(value, str) and value else json.dumps(value))


def coloured(state: str) -> Text:
    return Text(state, style=COLOURS.get(state, ""))


def table(
    names: Sequence[str],
    rows: Sequence[Sequence[str | Text]],
    cuts: Collection[str] = (),
    wraps: Collection[str] = (),
) -> Table:
    """Return a table. If it is too wide, columns in `cuts` are cut and those in `wraps` wrap."""
    made = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for place, name in enumerate(names):
        widest = max([len(name), *(cell_len(str(row[place])) for row in rows)])
        shrinks = name in cuts or name in wraps
        least = max(len(name), COUNTS if name == "progress" else NARROW)
        made.add_column(
            name,
            no_wrap=not shrinks,  # rich narrows only columns that may wrap
            min_width=min(widest, least) if shrinks else widest,
        )
    for row in rows:
        cells = zip(names, row, strict=True)
        made.add_row(*(one_line(str(cell)) if name in cuts else cell for name, cell in cells))
    return made
