"""What the encoders' pipelines are to do, as one machine does it, one step after the other."""

import os
import subprocess
from pathlib import Path

STAND_IN = Path(__file__).with_name("stand_in.py")


V = (
    "vpxenc --ivf -q --codec=vp8 --good --cpu-used=0 --end-usage=cq --min-q=0 --max-q=63"
    " --cq-level=30 --buf-initial-sz=10000 --buf-optimal-sz=20000 --buf-sz=40000"
    " --undershoot-pct=100 --passes=2 --auto-alt-ref=1 --threads=1 --token-parts=0 --tune=ssim"
    " --target-bitrate=4294967295"
)


XC_ENC = "xc-enc -w 0.75 -i y4m -O final.state -o output.ivf -r"


def chunk(number: int, overlap: bool = False) -> bytes:
    """Return a Y4M chunk of 2x2 pixels: its header has its number, its frames have theirs."""
    frames = [f"FRAME\n{6 * number + place:06d}" for place in range(-1 if overlap else 0, 6)]
    return "".join([f"YUV4MPEG2 W2 H2 F25:1 Xchunk={number}\n", *frames]).encode()


class Machine:
    """One machine that does what the recipe says, in a folder for each chunk."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder, self.programs = folder, programs

    def __call__(self, chunk: int, *lines: str) -> None:
        for line in lines:
            path = f"{self.programs}:{os.environ['PATH']}"
            subprocess.run(
                line, shell=True, check=True, cwd=self.home(chunk), env={"PATH": path},
                stdin=subprocess.DEVNULL, capture_output=True,
            )  # fmt: skip

    def home(self, chunk: int) -> Path:
        return self.folder / f"chunk{chunk}"

    def put(self, chunk: int, content: bytes) -> None:
        self.home(chunk).mkdir(parents=True)
        (self.home(chunk) / "input.y4m").write_bytes(content)

    def read(self, chunk: int, name: str) -> bytes:
        return (self.home(chunk) / name).read_bytes()


def recipe(machine: Machine, chunks: list[int], distance: int) -> None:
    """What xcenc is to do, pass by pass."""
    places = [(at % distance, number) for at, number in enumerate(chunks)]
    for _, n in places:
        machine(n, f"{V} -o output.ivf input.y4m", "xc-dump output.ivf final.state")
        machine(n, "cp output.ivf prev.ivf", "cp output.ivf first.ivf", "cp final.state zero.state")
    for k, n in places:
        if k >= 1:
            machine(n, f"cp ../chunk{n - 1}/zero.state 0.state", "cp final.state prev.state")
            machine(n, f"{XC_ENC} -I 0.state -p prev.ivf input.y4m", "cp output.ivf prev.ivf")
    for k, n in places:
        if k >= 2:
            machine(n, f"cp ../chunk{n - 1}/final.state N.state", "cp final.state prev.state")
            machine(n, f"{XC_ENC} -I N.state -p prev.ivf -S 0.state input.y4m")


def recipe7(machine: Machine, chunks: list[int], distance: int) -> None:
    for at, n in enumerate(chunks):
        machine(n, f"{V} -o prev.ivf input.y4m")
        if at % distance == 0:
            machine(n, "xc-terminate-chunk prev.ivf output.ivf final.state")
        else:
            encode = XC_ENC.replace("xc-enc", "xc-enc -e")
            machine(n, f"{encode} -I ../chunk{n - 1}/final.state -p prev.ivf input.y4m")
