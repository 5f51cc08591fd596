"""How the workers of pipelines copy several files at the same time."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import islice

from mu.states import ScriptWorker

AT_ONCE = 8
"""A worker copies that many files at a time; further ones would wait in it."""


async def retrieve_all(worker: ScriptWorker, files: Mapping[str, str]) -> None:
    """Retrieve each file from its key. A worker of the original mu gets one after the other."""
    await _copy(worker, worker.retrieve, [(key, file) for file, key in files.items()])


async def upload_all(worker: ScriptWorker, files: Mapping[str, str]) -> None:
    """Upload each file to its key. A worker of the original mu does one after the other."""
    await _copy(worker, worker.upload, [(key, file) for file, key in files.items()])


async def _copy(
    worker: ScriptWorker,
    copy: Callable[[str, str], Awaitable[None]],
    pairs: Sequence[tuple[str, str]],
) -> None:
    if not worker.numbered:
        for pair in pairs:
            await copy(*pair)
        return
    await worker.seti("nonblock", 1)
    waiting = iter(pairs)
    while batch := list(islice(waiting, AT_ONCE)):
        await worker.together(*(copy(*pair) for pair in batch))
    await worker.seti("nonblock", 0)
