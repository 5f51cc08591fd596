"""What pipelines share whose actors retrieve some objects, run commands, and upload one."""

from collections.abc import Sequence

from mu.parameters import Parameter
from mu.pipelines.texts import readable
from mu.pipelines.transfers import retrieve_all
from mu.plugins import Outcome
from mu.states import ActorFailed, Ran, ScriptWorker

BUCKET = Parameter("bucket", str, "the S3 bucket of the video", "excamera-us-east-1")
OFFSET = Parameter("offset", int, "the number of chunks to skip at the start", 0, minimum=0)
TAIL = 500
"""How many characters of the end of a failed command's output are in its error."""


def at(name: str) -> str:
    """Return a file in the worker's own folder."""
    return f"##TMPDIR##/{name}"


async def fetch(worker: ScriptWorker, hash_s3keys: bool = False) -> None:
    """Retrieve the actor's `files`, a key for each name in the worker's own folder."""
    await worker.seti("nonblock", 0)
    await worker.set("bucket", worker.job.params.bucket)
    if hash_s3keys:
        await worker.seti("hash_s3keys", 1)
    await worker.run("rm -rf ##TMPDIR##; mkdir -p ##TMPDIR##", quiet=True)
    await retrieve_all(worker, {at(name): key for name, key in worker.files.items()})


async def step(worker: ScriptWorker, command: str) -> Ran:
    """Run a command. Raises ActorFailed with the end of its output if its exit status is not 0."""
    ran = await worker.run(command, check=False)
    if ran.status:
        output = readable(ran.output[-TAIL:]).strip()
        raise ActorFailed(f"{worker.out_key}: exit status {ran.status}: {output}")
    return ran


async def store(worker: ScriptWorker, name: str) -> dict[str, str]:
    """Upload the file to the actor's `out_key`; return the actor's result."""
    await worker.upload(worker.out_key, at(name))
    return {"key": worker.out_key}


def made(outcomes: Sequence[Outcome]) -> dict[str, list[str]]:
    """Return the job's result: the keys that were written."""
    return {"keys": [outcome.result["key"] for outcome in outcomes if not outcome.error]}
