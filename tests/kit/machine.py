"""A machine with nothing but mu: a user's empty home folder, beside a daemon."""

import json
import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

from stage import Daemon, free_ports_conf

from kit.nursery import daemons

BIN = Path(sys.executable).parent
CLEAN = {name: text for name, text in os.environ.items() if not name.startswith(("AWS_", "MU_"))}
CLEAN |= {"PATH": f"{BIN}:{CLEAN['PATH']}", "AWS_EC2_METADATA_DISABLED": "true"}


class Machine:
    """A user's shell with an empty home folder, beside a daemon."""

    def __init__(self, folder, daemon_env=(), env=(), conf=None):
        self.folder = folder
        (folder / "user").mkdir()
        self.base = CLEAN | {"HOME": str(folder / "user")}
        self.daemon_env, self.conf = dict(daemon_env), conf or free_ports_conf()
        self.daemon = self.start()
        self.env = self.base | {"MU_HOME": str(self.daemon.home)} | dict(env)
        self.env["PATH"] = f"{daemons().shims}:{self.env['PATH']}"

    def start(self):
        with patch.dict(os.environ, self.base | self.daemon_env, clear=True):
            return Daemon(self.folder, {}, self.conf)

    def run(self, script, **env):
        return subprocess.run(
            ["/bin/sh", "-c", script],
            env=self.env | env,
            cwd=self.folder / "user",
            capture_output=True,
            text=True,
            timeout=120,
        )

    def mu(self, *words, **env):
        told = subprocess.run(
            [daemons().shims / "mu", *words],
            env=self.env | env,
            cwd=self.folder / "user",
            capture_output=True,
            text=True,
            timeout=120,
        )
        return told.returncode, told.stdout, told.stderr

    def files(self, name, texts):
        """Make a folder with these files; return it."""
        folder = self.folder / "user" / name
        for file, text in texts.items():
            path = folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return folder

    def s3_server(self):
        """Return the pid of the embedded S3 server and its port."""
        port = json.loads((self.daemon.home / "local" / "s3.json").read_text())["port"]
        (pid,) = self.s3_pids()
        return pid, port

    def s3_pids(self):
        return pids_with(str(self.daemon.home))


def pids_with(word):
    """Return the rclone processes that have this word in their command line."""
    found = []
    for place in Path("/proc").iterdir():
        try:
            command = (place / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if "rclone" in command.partition("\0")[0] and word in command:
            found.append(int(place.name))
    return found


def kib(daemon):
    """Return how much memory a daemon has, in KiB."""
    pages = Path(f"/proc/{daemon.process.pid}/statm").read_text().split()[1]
    return int(pages) * 4
