"""A worker of tests that really does what it is told: it runs commands, and copies files."""

import shutil
import subprocess
from pathlib import Path

from mu.testing import FakeWorker


def worker_in(folder: Path, bucket: Path) -> FakeWorker:
    """Return a worker with its own folder, whose objects are the files below `bucket`."""
    folder.mkdir()

    def run(command: str) -> str:
        script = command.removeprefix("run:").replace("##TMPDIR##", str(folder))
        ran = subprocess.run(["/bin/sh", "-c", script], cwd=folder, capture_output=True, text=True)
        output = ran.stdout + ran.stderr
        return f"OK:RETVAL({ran.returncode}):OUTPUT({output}):COMMAND({script[:50]})"

    def copy(command: str) -> str:
        name, _, rest = command.partition(":")
        key, _, file = rest.partition("\0")
        there, here = bucket / key, Path(file.replace("##TMPDIR##", str(folder)))
        source, target = (there, here) if name == "retrieve" else (here, there)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        return f"OK:{name.upper()}({key})"

    return FakeWorker({"run:": run, "retrieve:": copy, "upload:": copy})
