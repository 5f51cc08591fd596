"""Makes the pictures of the README from a real run: the page, and a drawing of the job's timeline.

    make demo KEEP=1                            # leave it running
    .venv/bin/python docs/make_pictures.py JOB  # in a second terminal; that of png2y4m

It needs the packages for tests (playwright) and Chromium.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "docs" / "pictures"
SIZE = {"width": 1100, "height": 900}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("job", help="the job's id")
    parser.add_argument("--home", default=ROOT / ".demo" / "home", help="of the running daemon")
    given = parser.parse_args()

    def mu(*arguments: str) -> str:
        command = [sys.executable, "-m", "mu.cli", "--home", str(given.home), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    PICTURES.mkdir(exist_ok=True)
    mu("plot", given.job, "-o", str(PICTURES / "timeline.svg"))
    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path=shutil.which("chromium"))
        tab = browser.new_page(viewport=SIZE)
        tab.goto(mu("open", "--print", "--read-only", given.job))
        tab.wait_for_selector("canvas")
        tab.wait_for_timeout(1500)  # the last frame of the drawing
        tab.screenshot(path=PICTURES / "page.png")
        browser.close()


if __name__ == "__main__":
    main()
