"""film: how much longer a job takes than the encoding of its chunks alone.

The demo's clip is looped; there are as many chunks as cores. Pure is the time that the slowest
chunk's encoder ran, as its worker measured it. The rest is overhead: starting workers, looking at the
film, listing and comparing frames, copying, and joining.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "demo"))

from clip import get_clip
from imageio_ffmpeg import get_ffmpeg_exe
from stage import Daemon, JobJson, S3Server

from mu.functions.bundle import bundle

BUCKET = "bench"
CORES = len(os.sched_getaffinity(0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--loops", type=int, default=12, help="how many times the clip is looped")
    parser.add_argument("--speed", default="slower", help="the preset of h264")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder, ffmpeg = Path(name), get_ffmpeg_exe()
        clip = get_clip(Path(__file__).resolve().parent.parent / ".demo")
        film = folder / "film.mp4"
        loop = ["-stream_loop", str(given.loops - 1), "-i", str(clip), "-c", "copy", str(film)]
        subprocess.run([ffmpeg, "-v", "error", "-nostdin", *loop], check=True)
        s3 = S3Server(folder / "s3", folder / "s3.log")
        stack.callback(s3.stop)
        daemon = Daemon(folder, s3.env)
        stack.callback(daemon.stop)
        s3.client().create_bucket(Bucket=BUCKET)
        s3.client().upload_file(str(film), BUCKET, "in/film.mp4")
        made = bundle(folder / "film.zip", executables={"ffmpeg": Path(ffmpeg)})
        daemon.create_function("film", made.path, MemorySize=3538, Timeout=900)
        params = {"bucket": BUCKET, "prefix": "in/", "out_prefix": "out/", "speed": given.speed}
        order = {"pipeline": "film", "workers": CORES, "params": params | {"chunk_mb": 0}}
        job = daemon.wait(daemon.ask("/jobs", order)["id"], 3600)
        if job["state"] != "done":
            sys.exit(f"job {job['id']} is {job['state']}: {job['error']}")
        report(daemon, job)


def report(daemon: Daemon, job: JobJson) -> None:
    took, result = job["finished"] - job["created"], job["result"]
    workers = daemon.ask(f"/jobs/{job['id']}/workers")
    chunks = [one["result"] for one in workers if one["stage"] == "encode"]
    pure = max(one["encoding_s"] for one in chunks)
    print(
        f"{result['frames']} frames in {len(chunks)} chunks on {CORES} cores: {took:.1f} s; the"
        f" slowest encoder ran {pure:.1f} s, overhead {took - pure:.1f} s ="
        f" {100 * (took - pure) / pure:.1f} % of it"
    )
    beside = max(one["seconds"] - one["encoding_s"] for one in chunks)
    print(f"of that, beside the encoder on its worker: {beside:.1f} s")


if __name__ == "__main__":
    main()
