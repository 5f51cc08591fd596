"""Record a journal with running jobs, and a function's zip, with the mu that is checked out.

Run it in a checkout of the version to record, after `make lint` has set up its .venv:

    PYTHONPATH=demo:tests/kit .venv/bin/python tests/real/data/record.py FOLDER

It writes journal-VERSION.sql and function-VERSION.zip. See README.md in this folder.
"""

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from stage import Daemon, S3Server, free_ports_conf

import mu

JOIN = """#!/bin/sh
# join PATTERN OUT: the frames of a chunk in one file; a slow frame takes long.
for frame in $(dirname "$1")/*.png; do
    grep -q slow $frame && exec sleep 987
    cat "$frame" >> "$2"
done
"""
WORK = "#!/bin/sh\necho worked\n"


def make_zip(folder: Path, work: str) -> Path:
    folder.mkdir()
    for name, text in {"join": JOIN, "work": work}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    out = folder / "function.zip"
    words = ["bundle", str(folder / "join"), "--post", "##INFILE## ##OUTFILE##"]
    words += ["--with", str(folder / "work"), "--out", str(out)]
    subprocess.run([Path(sys.executable).with_name("mu"), *words], check=True)
    return out


def stop_all(folder: Path) -> None:
    """Kill the processes whose working directory or command line is in the folder."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            place = os.readlink(entry / "cwd").encode() + (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in place and int(entry.name) != os.getpid():
            os.kill(int(entry.name), signal.SIGKILL)


def wait_until(true, seconds=30.0):
    until = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < until
        time.sleep(0.02)
    return found


def record(folder: Path, out: Path) -> None:
    s3 = S3Server(folder / "s3", folder / "s3.log")
    client = s3.client()
    client.create_bucket(Bucket="films")
    for number in range(1, 9):
        text = "slow" if number in (5, 7) else f"{number}"
        client.put_object(Bucket="films", Key=f"kept-png16/{number:08d}.png", Body=text.encode())
    conf = free_ports_conf(local="faults = throttle=0.6 seed=5", worker="reconnect_s = 5")
    daemon = Daemon(folder, s3.env, conf)
    kept = make_zip(folder / "kept", WORK)
    recorded = make_zip(folder / "recorded", "#!/bin/sh\nexec sleep 987\n")
    for name in ("hello", "png2y4m", "linpack"):
        daemon.create_function(name, recorded)

    def counts(job):
        return daemon.ask(f"/jobs/{job['id']}")["counts"]

    done = daemon.ask("/jobs", {"pipeline": "hello", "workers": 2})
    daemon.wait(done["id"])
    params = {"video": "none", "bucket": "films", "frames": 2}
    failed = daemon.ask(
        "/jobs", {"pipeline": "png2y4m", "workers": 1, "retries": 0, "params": params}
    )
    daemon.wait(failed["id"])
    params = {"video": "kept", "bucket": "films", "frames": 2}
    ordered = {"pipeline": "png2y4m", "workers": 4, "spares": 1, "params": params}
    states = daemon.ask("/jobs", ordered)
    wait_until(lambda: counts(states) == {"waiting": 0, "running": 2, "done": 2, "failed": 0})
    # The worker of a slow frame dies, and its actor gets another attempt.
    sleeping = wait_until(
        lambda: [
            int(path.name)
            for path in Path("/proc").glob("[0-9]*")
            if path.joinpath("cmdline").read_bytes() == b"sleep\x00987\x00"
        ]
    )
    parent = sleeping[0]
    while b"python" not in Path(f"/proc/{parent}/cmdline").read_bytes():
        status = Path(f"/proc/{parent}/status").read_text()
        parent = int(status.split("PPid:")[1].split()[0])
    os.kill(parent, signal.SIGKILL)
    wait_until(
        lambda: {2} & {actor["attempt"] for actor in daemon.ask(f"/jobs/{states['id']}/workers")}
    )
    wait_until(lambda: counts(states)["running"] == 2)
    script = daemon.ask(
        "/jobs", {"pipeline": "linpack", "workers": 2, "params": {"command": "./work"}}
    )
    wait_until(lambda: counts(script)["running"] == 2)
    time.sleep(0.5)
    launching = daemon.ask("/jobs", {"pipeline": "hello", "workers": 8})
    wait_until(lambda: daemon.ask(f"/jobs/{launching['id']}")["launches"].get("throttled", 0) >= 3)
    daemon.process.kill()
    s3.stop()
    (out / f"journal-{mu.__version__}.sql").write_text(dump(daemon.home / "journal.db"))
    (out / f"function-{mu.__version__}.zip").write_bytes(kept.read_bytes())


def dump(path: Path) -> str:
    """Return the database as SQL that can be read: what sqlite3 dumps has blobs in hexadecimal."""
    database = sqlite3.connect(path)
    lines = [
        f"pragma {name} = {database.execute(f'pragma {name}').fetchone()[0]};"
        for name in ("auto_vacuum", "user_version", "application_id")
    ]
    for line in database.iterdump():
        before, mark, rest = line.partition(",X'")
        if mark:
            text, _, end = rest.partition("'")
            quoted = bytes.fromhex(text).decode("ascii").replace("'", "''")
            line = f"{before},cast('{quoted}' as blob){end}"
        lines.append(line)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        try:
            record(Path(name), Path(sys.argv[1]).absolute())
        finally:
            stop_all(Path(name))
