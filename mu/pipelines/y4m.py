"""Y4M files in shell commands: counting, cutting and joining frames with head, tail and wc.

No Python needs to start, and a worker of the original mu can do it. Only 8-bit 4:2:0 is known, which
is all that VP8 has.
"""

from mu.pipelines.templates import quoted

_READ = r"""mu_y4m() {
header=
IFS= read -r header <"$1"
case $header in YUV4MPEG2\ *) ;; *) echo "$1 is not a Y4M file"; exit 1;; esac
width=0 height=0
for word in $header; do case $word in
W*) width=${word#W};; H*) height=${word#H};;
C420|C420jpeg|C420mpeg2|C420paldv) ;; C*) echo "$1 must have frames of C420, got $word"; exit 1;;
esac; done
start=$((${#header} + 1))
size=$((6 + width * height + 2 * ((width + 1) / 2) * ((height + 1) / 2)))
bytes=$(($(wc -c <"$1") - start))
frames=$((bytes / size))
[ $((bytes % size)) = 0 ] || { echo "$1 ends in the middle of a frame"; exit 1; }
}
"""
"""A shell function that sets `header`, `start` (its bytes), `size` (of a frame, in bytes) and `frames`."""


def check_frames(file: str, key: str, least: int, most: int) -> str:
    """Return the command that fails, saying so, unless the file has least to most frames."""
    wanted = f"{most}" if least == most else f"{least} to {most}"
    return (
        f"{_READ}key={quoted(key)}\nmu_y4m {file}\n"
        f'[ "$frames" -ge {least} ] && [ "$frames" -le {most} ] ||'
        f' {{ echo "$key must have {wanted} frames, got $frames"; exit 1; }}'
    )


def half(file: str, number: int, frames: int) -> str:
    """Return the command that leaves only the first (0) or the second (1) `frames` of the file."""
    return (
        f"{_READ}mu_y4m {file}\n"
        f'[ "$frames" -gt {number * frames} ] ||'
        f' {{ echo "{file} must have over {number * frames} frames, got $frames"; exit 1; }}\n'
        f"{{ head -c $start {file}; tail -c +$((start + 1 + {number * frames} * size)) {file}"
        f" | head -c $(({frames} * size)); }} >{file}.half && mv {file}.half {file}"
    )


def joined(first: str, second: str, out: str) -> str:
    """Return the command that writes the frames of two files with the same header into one."""
    return (
        f"{_READ}mu_y4m {first}\nfirst=$header\nmu_y4m {second}\n"
        '[ "$header" = "$first" ] || { echo "the chunks differ: $first and $header"; exit 1; }\n'
        f"{{ cat {first}; tail -c +$((start + 1)) {second}; }} >{out}"
    )


def with_frame_before(before: str, file: str, out: str) -> str:
    """Return the command that writes the last frame of one file and all of another into one."""
    return (
        f"{_READ}mu_y4m {before}\nbefore=$header\n"
        f'[ "$frames" -gt 0 ] || {{ echo "{before} has no frames"; exit 1; }}\nmu_y4m {file}\n'
        '[ "$header" = "$before" ] || { echo "the chunks differ: $before and $header"; exit 1; }\n'
        f"{{ head -c $start {file}; tail -c $size {before}; tail -c +$((start + 1)) {file}; }} >{out}"
    )
