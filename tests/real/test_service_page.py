"""docs/service.md: its tokens, its backup and its unit."""

import re
import shlex
import shutil
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from kit.cli import inside as mu
from stage import Daemon, free_ports_conf

PAGE = Path(__file__).parents[2] / "docs" / "service.md"


def command(start):
    """Return the page's command that begins so."""
    (found,) = re.findall(rf"^    ({re.escape(start)}.*)$", PAGE.read_text(), re.MULTILINE)
    return found


def test_the_read_token_reads_and_does_nothing_else(daemon):
    token = (daemon.home / "read-token").read_text()
    words = shlex.split(command("mu --url").replace("http://127.0.0.1:13580", daemon.url))
    assert mu(*words[1:], MU_TOKEN=token).exit_code == 0
    for method, path in (("POST", "/jobs"), ("DELETE", "/jobs/1"), ("POST", "/doctor")):
        request = urllib.request.Request(daemon.url + path, b"{}", method=method)
        request.add_header("Authorization", f"Bearer {token}")
        with pytest.raises(urllib.error.HTTPError) as refusal:
            urllib.request.urlopen(request, timeout=120)
        assert refusal.value.code == 403
        says = f"the token in {daemon.home}/read-token may only read; for {method} {path} send"
        assert says in refusal.value.read().decode()


def test_a_backup_of_the_journal_has_the_jobs(daemon, tmp_path):
    if shutil.which("sqlite3") is None:
        pytest.skip("sqlite3 is not installed (Debian: sqlite3)")
    job = daemon.ask("/jobs", {"pipeline": "hello", "workers": 1, "engine": "external"})
    daemon.ask(f"/jobs/{job['id']}", method="DELETE")
    (tmp_path / "home").mkdir()
    line = command("sqlite3").replace("~mu/.mu", str(daemon.home))
    line = line.replace("/var/backups/mu-journal.db", str(tmp_path / "home" / "journal.db"))
    subprocess.run(line, shell=True, check=True)
    restored = Daemon(tmp_path, conf=free_ports_conf(local="enabled = no"))
    try:
        assert restored.ask(f"/jobs/{job['id']}")["state"] == "cancelled"
    finally:
        restored.stop()


def test_systemd_accepts_the_unit(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed (Debian: systemd)")
    words = shlex.split(command("/opt/mu/bin/mu init /etc").replace("/etc", str(tmp_path)))
    assert mu(*words[1:]).exit_code == 0
    conf = tmp_path / "mu.conf"
    conf.write_text(f"[mu]\nhome = {tmp_path}/home\n[worker]\nhaproxy = yes\n")
    words = shlex.split(command("/opt/mu/bin/mu init --haproxy").replace("/etc", str(tmp_path)))
    assert mu(*words[1:]).exit_code == 0
    for name in ("mu.service", "mu-haproxy@.service"):
        assert "\nUser=mu\n" in (tmp_path / name).read_text()
        done = subprocess.run(
            ["systemd-analyze", "verify", tmp_path / name], capture_output=True, text=True
        )
        assert [line for line in done.stderr.splitlines() if name in line] == []
