"""What a function was made from, so that pip need not run again while that is the same.

Each function's last recipe is kept in the user's cache folder, with the digest of the zip that it gave. If
the function still has that zip, it is up to date. That says nothing about newer versions of packages
that the requirements would allow.
"""

import hashlib
import json
import os
import platform
import re
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mu.functions.contents import BundleError
from mu.functions.requirements import Requirements

_PLAIN = re.compile(r"(?!.*\.(?:whl|zip|tar|gz|tgz|bz2|xz)\b)[A-Za-z0-9][^@/\\$]*")
"""A requirement that names a package and its version; not another file, an option, a URL or a path."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """The content of a zip, as far as it is known before pip runs."""

    file: Path
    """Where the function's last recipe is kept."""
    digest: str
    """Empty: the requirements depend on what is not seen here, such as another file."""

    @classmethod
    def of(cls, function: str, bundle: str, required: Requirements, arch: str | None) -> "Recipe":
        """`bundle` is the digest of the zip without the requirements. Raises BundleError."""
        try:
            text = required.file.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise BundleError(f"cannot read {required.file}: {error}") from None
        lines = [line for one in text.splitlines() if (line := one.partition("#")[0].strip())]
        digest = ""
        if all(map(_PLAIN.fullmatch, lines)):
            settings = sorted(one for one in os.environ.items() if one[0].startswith("PIP_"))
            python = required.python(arch), sys.version, platform.machine()
            parts = json.dumps([bundle, lines, python, settings])
            digest = hashlib.sha256(parts.encode()).hexdigest()
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return cls(Path(cache, "mu", "recipes", function), digest)

    def known(self) -> str | None:
        """Return the digest of the zip that the same recipe gave the last time, in base64."""
        try:
            digest, zipped = self.file.read_text(encoding="ascii").split()
        except (OSError, ValueError):
            return None
        return zipped if digest == self.digest else None

    def keep(self, zipped: str) -> None:
        """Keep the digest of the zip that it gave. Without a cache folder, nothing is kept."""
        if not self.digest:
            return
        with suppress(OSError):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            partial = self.file.with_name(f"{self.file.name}.{os.getpid()}")
            partial.write_text(f"{self.digest} {zipped}\n", encoding="ascii")
            partial.replace(self.file)
