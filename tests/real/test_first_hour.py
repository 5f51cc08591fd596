"""demo/first-hour.sh runs to its end. It takes Python packages from an index, so it is a soak test."""

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "demo" / "first-hour.sh"


@pytest.mark.soak
def test_a_strangers_first_hour():
    done = subprocess.run([SCRIPT], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith(": 60 thumbnails, 50 slugs.\n")
