"""A film in S3 whose frames are text, and the job that joins them."""

import os
import signal
import time
from pathlib import Path
from typing import Any

from stage import S3Server

JOIN = """#!/bin/sh
# join PATTERN OUT: the frames of a chunk in one file; some frames are trouble.
echo "joining $1"
for frame in $(dirname "$1")/*.png; do
    case "$(cat $frame)" in
        *slow*) exec sleep 987 ;;
        nap*) sleep 1 ;;
        *loud*) head -c 100000000 /dev/zero | tr '\\0' x ;;
        *full*) head -c 700000000 /dev/zero > "$2" || exit 28 ;;
        *bad*) echo "cannot join $frame" >&2; exit 3 ;;
    esac
    cat "$frame" >> "$2"
done
"""
COMMAND = "./join ##INFILE## ##OUTFILE##"


class Files(S3Server):
    """An S3 server with the bucket `things`, for tests that read and write its files directly.

    It looks at its folder each time, which keeps it a little busy: for a module, not for a session.
    """

    def __init__(self, folder: Path, log: Path) -> None:
        (folder / "things").mkdir(parents=True)
        super().__init__(folder, log, "--dir-cache-time", "1ms")

    @property
    def event(self) -> dict[str, Any]:
        """What an event needs so that its worker uses the bucket `things`."""
        return {"bucket": "things", "env": self.env}


def put_film(s3: Any, name: str, frames: list[str]) -> None:
    client = s3.client()
    for number, text in enumerate(frames, 1):
        client.put_object(Bucket="films", Key=f"{name}-png16/{number:08d}.png", Body=text.encode())


def order(name: str, workers: int, frames: int = 2, **more: Any) -> dict[str, Any]:
    params = {"video": name, "bucket": "films", "frames": frames}
    return {"pipeline": "png2y4m", "workers": workers, "params": params, "retries": 0, **more}


def chunk(s3: Any, name: str, number: int, frames: int = 2) -> str:
    key = f"{name}-y4m_{frames:02d}/{number:08d}.y4m"
    return s3.client().get_object(Bucket="films", Key=key)["Body"].read().decode()


def processes(word: str) -> list[int]:
    """Return the processes with that word in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if word.encode() in line:
                found.append(int(entry.name))
    return found


def worker_of(pid: int) -> int:
    """Return the Python process above that one: the worker that runs it."""
    while b"python" not in Path(f"/proc/{pid}/cmdline").read_bytes():
        status = Path(f"/proc/{pid}/status").read_text()
        pid = int(status.split("PPid:")[1].split()[0])
    return pid


def wait_until(true: Any, seconds: float = 60.0, what: str = "") -> Any:
    """Return what `true` returns once that is true; `what` says what was waited for."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = true()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"{what or 'it'} is not so after {seconds:g} s")


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
