"""Makes small wheels, so that pip needs no index. TAG in each module names its wheel."""

import zipfile
from pathlib import Path


def make_wheel(
    folder: Path, name: str, version: str = "1.0", tag: str = "py3-none-any", body: str = ""
) -> Path:
    """Write a wheel with one module, in which TAG is the wheel's tag."""
    folder.mkdir(parents=True, exist_ok=True)
    about = f"{name}-{version}.dist-info"
    path = folder / f"{name}-{version}-{tag}.whl"
    pure = "true" if tag.endswith("-any") else "false"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}.py", f"TAG = {tag!r}\n{body}")
        wheel.writestr(
            f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        wheel.writestr(
            f"{about}/WHEEL",
            f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: {pure}\nTag: {tag}\n",
        )
        wheel.writestr(f"{about}/entry_points.txt", f"[console_scripts]\n{name} = {name}:main\n")
        wheel.writestr(f"{about}/RECORD", "")
    return path


def requirements(folder: Path, *lines: str) -> Path:
    """Write a requirements.txt that looks for wheels in `folder` only."""
    path = folder / "requirements.txt"
    path.write_text("\n".join(["--no-index", f"--find-links {folder}", *lines, ""]))
    return path
