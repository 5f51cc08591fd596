"""Runs two real jobs on this machine: 132 frames of Big Buck Bunny become 22 Y4M chunks, and a film.

Starts an S3 server and the daemon with its local engine, uploads the frames, bundles ffmpeg into a
function, starts the job with one curl command, and compares every chunk with the output of a single
ffmpeg. Then encodes the clip itself in chunks, joins them, and plays both beside each other. Stops
everything it started. The exit status is 0 only if every chunk and every frame is right.
"""

import argparse
import contextlib
import json
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from botocore.client import BaseClient
from clip import FRAMES, get_clip
from imageio_ffmpeg import get_ffmpeg_exe
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from stage import Daemon, JobJson, S3Server, StageError, free_ports_conf

from mu.functions.bundle import bundle

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".demo"
CHUNK = 6
WORKERS = FRAMES // CHUNK
BUCKET, VIDEO, FUNCTION = "demo", "bbb", "png2y4m"
COMMAND = "./ffmpeg -v error -y -i ##INFILE## -pix_fmt yuv420p -f yuv4mpegpipe ##OUTFILE##"
ORDER = {
    "pipeline": "png2y4m",
    "workers": WORKERS,
    "params": {"video": VIDEO, "bucket": BUCKET, "frames": CHUNK},
}
FILM_ORDER = {
    "pipeline": "film",
    "workers": 4,
    "function": FUNCTION,  # which has an ffmpeg
    "params": {
        "bucket": BUCKET,
        "prefix": f"{VIDEO}-film/",
        "out_prefix": f"{VIDEO}-films/",
        "codec": "h265",
        "speed": "veryfast",
        "shortest_s": 1,
    },
}
LEAST_LIKENESS = 0.95
"""The lowest SSIM that the film may have, in all of its frames together."""

console = Console()


class DemoError(Exception):
    """The demo did not work; the message says why."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", action="store_true", help="keep everything running until Ctrl-C")
    keep = parser.parse_args().keep
    begun = time.monotonic()
    try:
        with contextlib.ExitStack() as stack:
            run(stack, keep)
    except (DemoError, StageError, subprocess.CalledProcessError) as error:
        console.print(f"[red]The demo failed:[/] {error}", highlight=False)
        return 1
    except KeyboardInterrupt:
        console.print("\nStopped.")
        return 130
    console.print(f"Everything was stopped. It took {time.monotonic() - begun:.1f} s in all.")
    return 0


def run(stack: contextlib.ExitStack, keep: bool) -> None:
    FOLDER.mkdir(exist_ok=True)
    ffmpeg = Path(get_ffmpeg_exe())
    with step("Cut the clip into frames"):
        frames = cut_frames(ffmpeg, get_clip(FOLDER))
    with step("Start an S3 server and the daemon with its local engine"):
        s3 = S3Server(FOLDER / "s3", FOLDER / "s3.log")
        stack.callback(s3.stop)
        daemon = Daemon(FOLDER, s3.env, free_ports_conf(mu="on_stop = cancel"))
        stack.callback(daemon.stop)
    with step(f"Upload {len(frames)} frames to s3://{BUCKET}/{VIDEO}-png16/"):
        upload(s3.client(), frames)
    with step("Bundle ffmpeg and create the function through the Lambda API"):
        made = bundle(FOLDER / "png2y4m.zip", executables={"ffmpeg": ffmpeg}, command=COMMAND)
        functions = daemon.lambda_client()
        try:
            daemon.create_function(FUNCTION, made.path, MemorySize=1536, Timeout=180)
        except functions.exceptions.ResourceConflictException:  # from an earlier run
            functions.update_function_code(FunctionName=FUNCTION, ZipFile=made.path.read_bytes())
    job = launch_and_watch(daemon, ORDER)
    with step("Make the same chunks with one ffmpeg and compare"):
        compared = compare(s3.client(), ffmpeg, frames)
    report(job, compared, made.zipped)
    s3.client().upload_file(str(get_clip(FOLDER)), BUCKET, f"{VIDEO}-film/clip.mp4")
    encoded = launch_and_watch(daemon, FILM_ORDER)
    with step("Play the film beside the clip with one ffmpeg and compare"):
        likeness = play(s3.client(), ffmpeg, encoded)
    report_film(encoded, likeness)
    if keep:
        console.print(
            "Everything is still running: repeat the curl command, or press Ctrl-C to stop."
        )
        while True:
            time.sleep(3600)


@contextlib.contextmanager
def step(what: str) -> Iterator[None]:
    begun = time.monotonic()
    with console.status(what):
        yield
    console.print(f"[green]✓[/] {what} [dim]{time.monotonic() - begun:.1f} s[/]", highlight=False)


def cut_frames(ffmpeg: Path, clip: Path) -> list[Path]:
    folder = FOLDER / "frames"
    if len(list(folder.glob("*.png"))) != FRAMES:
        folder.mkdir(exist_ok=True)
        cut = [str(ffmpeg), "-v", "error", "-y", "-i", str(clip), str(folder / "%08d.png")]
        subprocess.run(cut, check=True)
    frames = sorted(folder.glob("*.png"))
    if len(frames) != FRAMES:
        raise DemoError(f"expected {FRAMES} frames from ffmpeg, got {len(frames)}")
    return frames


def upload(client: BaseClient, frames: list[Path]) -> None:
    with contextlib.suppress(client.exceptions.BucketAlreadyExists):  # from an earlier run
        client.create_bucket(Bucket=BUCKET)
    for frame in frames:
        client.put_object(Bucket=BUCKET, Key=f"{VIDEO}-png16/{frame.name}", Body=frame.read_bytes())
    for chunk in range(WORKERS):  # from an earlier run
        client.delete_object(Bucket=BUCKET, Key=chunk_key(chunk))


def launch_and_watch(daemon: Daemon, order: Mapping[str, object]) -> JobJson:
    token = (daemon.home / "token").relative_to(ROOT)
    shown = (
        f'curl -H "Authorization: Bearer $(cat {token})" {daemon.url}/jobs \\\n'
        f"     -d {shlex.quote(json.dumps(order))}"
    )
    console.print(f"\n[bold]{shown}[/]\n", highlight=False, soft_wrap=True)
    ordered = subprocess.run(
        ["/bin/sh", "-c", shown], cwd=ROOT, capture_output=True, text=True, check=True
    )
    job: JobJson = json.loads(ordered.stdout)
    if "error" in job and job.get("id") is None:
        raise DemoError(f"the order was refused: {ordered.stdout}")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        bar = progress.add_task("launching", total=None)
        while not job["finished"]:
            time.sleep(0.1)
            job = daemon.ask(f"/jobs/{job['id']}")
            counts = job["counts"]
            progress.update(
                bar,
                description=f"{job['state']}: {counts['waiting']} waiting, {counts['running']} running",
                completed=counts["done"] + counts["failed"],
                total=sum(counts.values()),
            )
    if job["state"] != "done":
        raise DemoError(f"job {job['id']} is {job['state']}: {job['error']}")
    console.print(f"[green]✓[/] Job {job['id']} is done", highlight=False)
    return job


def chunk_key(chunk: int) -> str:
    return f"{VIDEO}-y4m_{CHUNK:02d}/{chunk:08d}.y4m"


def compare(client: BaseClient, ffmpeg: Path, frames: list[Path]) -> int:
    """Return the number of bytes compared. Raises DemoError at the first chunk that differs."""
    whole = FOLDER / "whole.y4m"
    pattern = frames[0].with_name("%08d.png")
    known = {"./ffmpeg": ffmpeg, "##INFILE##": pattern, "##OUTFILE##": whole}
    words = [str(known.get(word, word)) for word in shlex.split(COMMAND)]
    subprocess.run(words, check=True)
    made = whole.read_bytes()
    whole.unlink()
    header_end = made.index(b"\n") + 1
    header, body = made[:header_end], made[header_end:]
    size = len(body) // FRAMES  # all frames have the same size
    compared = 0
    for chunk in range(WORKERS):
        expected = header + body[chunk * CHUNK * size : (chunk + 1) * CHUNK * size]
        uploaded = client.get_object(Bucket=BUCKET, Key=chunk_key(chunk))["Body"].read()
        if uploaded != expected:
            raise DemoError(
                f"s3://{BUCKET}/{chunk_key(chunk)} differs from the output of one ffmpeg:"
                f" expected {len(expected)} bytes, got {len(uploaded)}"
            )
        compared += len(uploaded)
    return compared


def play(client: BaseClient, ffmpeg: Path, job: JobJson) -> float:
    """Return how like the clip the job's film is, as the SSIM of all frames. Raises DemoError."""
    (key,) = job["result"]["keys"]
    made = FOLDER / "film.mp4"
    client.download_file(BUCKET, key, str(made))
    whole = ["-fps_mode", "passthrough", "-f", "null", "-"]
    both = ["-i", str(get_clip(FOLDER)), "-lavfi", "[0:v][1:v]ssim"]
    found = []
    for more, pattern in (([], r"frame= *(\d+)"), (both, r"SSIM .*All:([0-9.]+)")):
        played = subprocess.run(
            [str(ffmpeg), "-nostdin", "-i", str(made), *more, *whole],
            capture_output=True,
            text=True,
            check=True,
        )
        found.append(re.findall(pattern, played.stderr)[-1])
    frames, likeness = int(found[0]), float(found[1])
    if frames != FRAMES or likeness < LEAST_LIKENESS:
        raise DemoError(f"the film has {frames} frames of {FRAMES}, and an SSIM of {likeness:.3f}")
    return likeness


def report(job: JobJson, compared: int, zipped: int) -> None:
    created = job["created"]
    table = Table("", "seconds after the order", title="\nThe job", title_justify="left")
    table.add_row("all launches answered", f"{job['launched'] - created:.2f}")
    table.add_row("first worker's hello", f"{job['first_hello'] - created:.2f}")
    table.add_row("last worker's hello", f"{job['last_hello'] - created:.2f}")
    table.add_row("done", f"{job['finished'] - created:.2f}")
    console.print(table)
    console.print(
        f"{WORKERS} workers converted {FRAMES} frames into {WORKERS} chunks ({compared / 1e6:.1f} MB),"
        f" identical to the output of one ffmpeg. The function's zip is {zipped / 1e6:.1f} MB.\n"
        f"Chunks: {FOLDER.relative_to(ROOT)}/s3/{BUCKET}/{VIDEO}-y4m_{CHUNK:02d}/"
        f"   Log of the daemon: {FOLDER.relative_to(ROOT)}/daemon.log",
        highlight=False,
        soft_wrap=True,
    )


def report_film(job: JobJson, likeness: float) -> None:
    made = job["result"]
    console.print(
        f"{made['chunks']} workers encoded the clip, and one joined it, in"
        f" {job['finished'] - job['created']:.1f} s: {made['frames']} frames with their sound,"
        f" {made['saved']} smaller, SSIM {likeness:.3f}.\n"
        f"Film: {(FOLDER / 'film.mp4').relative_to(ROOT)}\n",
        highlight=False,
        soft_wrap=True,
    )


if __name__ == "__main__":
    sys.exit(main())
