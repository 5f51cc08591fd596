"""GET /jobs/ID/log: what a job's commands printed, as plain text."""

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any

from twisted.web.server import Request

from mu.in_thread import InThread
from mu.jobs.actors import Actor
from mu.jobs.book import PastJob
from mu.jobs.job import Job
from mu.net.requests import Refusal, argument, one_of, whole_number
from mu.net.web import PacedResponse
from mu.output.transcript import Transcript, View

NAMED = 5
"""How many inputs a refusal names."""

ReadLog = Callable[[str, int], Coroutine[Any, Any, Transcript | None]]
"""Returns the log of a job's actor; None: there is none. Raises OSError and ValueError."""


class LogRequests:
    """Answers requests for the logs of jobs."""

    def __init__(self, read_log: ReadLog, in_thread: InThread) -> None:
        self._read_log = read_log
        self._in_thread = in_thread

    async def answer(self, request: Request, job: Job | PastJob) -> bytes:
        """Answer a request for the log of one actor, or of all with headings. Raises Refusal."""
        actor, key = argument(request, "actor"), argument(request, "key")
        attempt = argument(request, "attempt")
        view = View(
            attempt=None if attempt is None else whole_number(attempt, "attempt"),
            source=key,
            names=key is None and one_of(request, "names", ("0", "1")) == "1",
            times=one_of(request, "times", ("0", "1")) == "1",
        )
        if key is None:
            sizes = _input_counts(job)
        else:
            key, sizes = await self._with_input(job, key)
            view = replace(view, source=key)
        if actor is not None:
            chosen = whole_number(actor, "actor")
            if chosen not in _input_counts(job):
                raise Refusal(404, f"job {job.id} has no actor {actor:.200}", "actor")
            if chosen not in sizes:
                raise Refusal(404, f"actor {actor:.200} has no input {key!r:.200}", "key")
            sizes = {chosen: sizes[chosen]}
            view = replace(view, after=whole_number(argument(request, "after") or "0", "after"))
        request.setHeader("Content-Type", "text/plain; charset=utf-8")
        request.setHeader("X-Content-Type-Options", "nosniff")
        if actor is None and (key is None or len(sizes) != 1):
            return await self._write_logs(request, job, sizes, view)
        (chosen,) = sizes
        log = await self._log_of(job, chosen)
        request.setHeader("Mu-Log-Begin", str(log.begin(view.after)))
        request.setHeader("Mu-Log-End", str(log.end))
        return await self._text(log, replace(view, names=view.names and sizes[chosen] > 1))

    async def _text(self, log: Transcript, view: View) -> bytes:
        """Return what is shown of a log; of a long one, that takes time."""
        text: bytes = await self._in_thread(log.shown, view)
        return text

    async def _write_logs(
        self, request: Request, job: Job | PastJob, sizes: Mapping[int, int], view: View
    ) -> bytes:
        """Write the logs of these actors, one after the other: together they may be large."""
        for actor in list(sizes)[:1]:
            await self._log_of(job, actor)  # if there is none, refuse before a byte is written
        response = PacedResponse(request)
        try:
            for actor, size in sizes.items():
                log = await self._log_of(job, actor)
                text = await self._text(log, replace(view, names=view.names and size > 1))
                if not await response.write(b"== actor %d ==\n%b\n" % (actor, text)):
                    break
        except Refusal as refused:
            await response.write(b"mu: %b\n" % str(refused).encode())
        finally:
            response.end()
        return b""

    async def _with_input(self, job: Job | PastJob, key: str) -> tuple[str, dict[int, int]]:
        """Return the input with this name or part, and its actors with their numbers of inputs.

        Raises Refusal.
        """
        if isinstance(job, Job):
            key, actors = having(job, key)
            return key, {actor.number: actor.size for actor in actors}
        sizes = _input_counts(job)  # the inputs of a job of an earlier daemon are not known
        found = [actor for actor in sizes if (await self._log_of(job, actor)).has(key)]
        if not found:
            raise Refusal(404, f"job {job.id} has no output of an input {key!r:.200}", "key")
        return key, {actor: sizes[actor] for actor in found}

    async def _log_of(self, job: Job | PastJob, actor: int) -> Transcript:
        try:
            log = await self._read_log(job.id, actor)
        except (OSError, ValueError) as error:
            raise Refusal(500, f"the log of job {job.id} cannot be read: {error}") from None
        if log is None and job.ended:
            raise Refusal(
                404,
                f"no log of job {job.id} is kept: those of newer jobs have taken its place, or it ended"
                " under a version of mu that kept none (see [logs] in mu.conf)",
            )
        return log or Transcript([])


def inputs_gone(job: PastJob) -> Refusal:
    """Return the refusal of a question about the inputs of a job of an earlier daemon."""
    return Refusal(
        404, f"job {job.id} ended before the daemon's last start: its inputs are gone", "key"
    )


def having(job: Job | PastJob, part: str) -> tuple[str, list[Actor]]:
    """Return the input of this name, or the only one with this part of it, and the actors that have it.

    Raises Refusal if there is none, or several.
    """
    if not isinstance(job, Job):
        raise inputs_gone(job)
    found = job.having(part)
    if not found:
        raise Refusal(404, f"job {job.id} has no input {part!r:.200}", "key")
    if len(found) > 1:
        names = ", ".join(f"{name:.200}" for name in list(found)[:NAMED])
        more = ", ..." if len(found) > NAMED else ""
        raise Refusal(
            404, f"job {job.id} has {len(found)} inputs with {part!r:.200}: {names}{more}", "key"
        )
    return next(iter(found.items()))


def _input_counts(job: Job | PastJob) -> dict[int, int]:
    """Return how many inputs each actor has."""
    if isinstance(job, Job):
        return {actor.number: actor.size for actor in job.actors}
    return {row["actor"]: row["inputs"]["total"] for row in job.workers()}
