"""How a job shows itself in a notebook."""

from html import escape

from mu.client.answers import JobJson

COLOURS = {"done": "#2e7d32", "failed": "#c62828", "cancelled": "#757575"}
SHOWN_ERROR = 500


def card(job: JobJson, page: str) -> str:
    """Return HTML with the job's progress, why it failed, and a link to its page."""
    state, counts = job["state"], job["counts"]
    inputs = job.get("inputs") or {"total": 0, "done": 0, "failed": 0}
    total = inputs["total"] or job["workers"]
    done = inputs["done"] if inputs["total"] else counts.get("done", 0)
    failed = inputs["failed"] if inputs["total"] else counts.get("failed", 0)
    bars = "".join(
        f'<div style="width:{100 * part / max(total, 1):.1f}%;background:{COLOURS[kind]}"></div>'
        for kind, part in (("done", done), ("failed", failed))
    )
    words = [f"{done} of {total} done", f"{failed} failed" if failed else ""]
    words += [f"{counts[one]} workers {one}" for one in ("running",) if counts.get(one)]
    error = f"<pre>{escape(job['error'][:SHOWN_ERROR])}</pre>" if job["error"] else ""
    return (
        f'<div><b>{escape(job["pipeline"])}</b> job <a href="{escape(page)}">{escape(job["id"])}</a>:'
        f' <b style="color:{COLOURS.get(state, "inherit")}">{escape(state)}</b>'
        f'<div style="display:flex;height:8px;max-width:30em;background:#8884;margin:4px 0">{bars}</div>'
        f"{', '.join(filter(None, words))}{error}</div>"
    )
