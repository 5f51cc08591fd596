"""A worker that really does what it is told, and answers of one that does not, for film."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from mu.testing import FakeWorker

PYTHON = {"MU_PYTHON": f"{sys.executable} -s -S"}
"""Starts without what is installed, in a third of the time."""


def worker_in(folder: Path, bucket: Path) -> FakeWorker:
    """Return a worker with its own folder, whose objects are the files below `bucket`."""
    folder.mkdir()

    def run(command: str) -> str:
        script = command.removeprefix("run:").replace("##TMPDIR##", str(folder))
        ran = subprocess.run(
            ["/bin/sh", "-c", script],
            cwd=folder,
            env=os.environ | PYTHON,
            capture_output=True,
            text=True,
        )
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


def _found(work: str, found: object) -> tuple[str, str]:
    command = f"run:PYTHONPATH=##TMPDIR## ${{MU_PYTHON:-python3}} -m film_program {work} "
    return command, f"OK:RETVAL(0):OUTPUT({json.dumps(found)}):COMMAND(x)"


LOOKED = {
    "base": [1, 25], "chunks": 1, "is": "h264", "seconds": 2.0, "words": ["-map", "0:1"], "light": {},
    "measure": "ssim", "notes": [],
}  # fmt: skip
ENCODED = {"frames": 50, "first": 0, "last": 49, "bytes": 9, "encoding_s": 1.0, "ssim": 1.0}
COPIED = {"frames": 50, "bytes": 9}
FILM_ANSWERS = dict(
    [
        _found("look", LOOKED),
        _found("encode", ENCODED),
        _found("rest", COPIED),
        _found("room", {}),
        _found("join", {"frames": 50, "bytes": 9, "audio_off_s": 0.0}),
    ]
)
"""What film's program prints on a worker, for a film of one chunk."""
FILM_BEFORE = {
    0: LOOKED,
    1: COPIED | {"keys": {"frames": "o/frames", "tags": "o/tags", "rest.mp4": "o/rest.mp4"}},
    2: ENCODED | {"key": "o/00000000.mp4"},
}
"""The results of the actors before its last one."""
