"""A real Slurm cluster on this machine: munged, slurmctld, and two nodes, each with a slurmd.

With accounting, there are also slurmdbd and MariaDB.
"""

import ctypes
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from stage import free_port

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue")
ACCOUNTING = ("slurmdbd", "mariadbd", "sacct")
FOLDERS = "/usr/local/sbin:/usr/sbin:/sbin"
NODES = ("n1", "n2")
PATIENCE_S = 30.0
CONF = """
ClusterName=mu
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge/socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_min_interval=100000,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=CANCEL
SlurmdParameters=config_overrides
MaxArraySize={array}
MinJobAge={age}
SlurmdTimeout=120
BatchStartTimeout=120
KillWait=1
MessageTimeout=10
ReturnToService=2
{nodes}
PartitionName=work Nodes=ALL Default=YES MaxTime=INFINITE State=UP
PartitionName=urgent Nodes=ALL PriorityTier=9 MaxTime=INFINITE State=UP
PartitionName=closed Nodes=ALL State=DOWN
{accounting}
"""
ACCOUNTING_CONF = """
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={port}
AccountingStoragePass={folder}/munge/socket
"""
SLURMDBD_CONF = """
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={port}
SlurmUser=root
LogFile={folder}/slurmdbd.log
PidFile={folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database}
StorageUser=root
"""
DATABASE = (
    *("mariadbd", "--no-defaults", "--user=root", "--skip-grant-tables"),
    *("--bind-address=127.0.0.1", "--innodb-flush-log-at-trx-commit=0"),
)
_SET_DEATH_SIGNAL = 1


class NoSlurm(Exception):
    """There can be no cluster here; the message says why."""


class Cluster:
    """Two nodes of `cpus` CPUs, of which each task takes one. `env` is for Slurm's commands."""

    def __init__(self, folder: Path, cpus: int = 8, accounting: bool = False) -> None:
        self.folder = folder
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._path = f"{os.environ['PATH']}:{FOLDERS}"
        needed = PROGRAMS + (ACCOUNTING if accounting else ())
        missing = [name for name in needed if shutil.which(name, path=self._path) is None]
        if missing:
            packages = "slurm-wlm munge" + " slurmdbd mariadb-server-core" * accounting
            raise NoSlurm(f"{', '.join(missing)} not found: apt-get install {packages}")
        if os.getuid() != 0:
            raise NoSlurm("only root can run Slurm's daemons here")
        host = socket.gethostname().partition(".")[0]
        port, accounts_port, *ports = (free_port() for _ in range(4))
        nodes = [
            f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} RealMemory=64000 State=UNKNOWN"
            for name, port in zip(NODES, ports, strict=True)
        ]
        kept = ACCOUNTING_CONF.format(folder=folder, port=accounts_port) if accounting else ""
        conf = CONF.format(
            host=host,
            port=port,
            folder=folder,
            array=101,
            age=300,
            nodes="\n".join(nodes),
            accounting=kept,
        )
        self.env = {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": self._path}
        try:
            for name in ("state", "munge", *(f"spool-{node}" for node in NODES)):
                (folder / name).mkdir(mode=0o700)
            (folder / "slurm.conf").write_text(conf)
            self._start_munge()
            if accounting:
                self._start_accounting(accounts_port)
            self._start("slurmctld", "slurmctld", "-D")
            for node in NODES:
                self.start_node(node)
            self.await_(lambda: self.states() == dict.fromkeys(NODES, "idle"), "idle nodes")
        except BaseException:
            self.stop()
            raise

    # ------------------------------------------------ nodes and commands

    def start_node(self, node: str) -> None:
        self._start(node, "slurmd", "-D", "-N", node)

    def kill_node(self, node: str) -> None:
        """Kill a node's slurmd and everything that runs there, as if its machine had failed."""
        self._processes.pop(node).kill()
        for pid in self._of_cluster():
            with suppress(OSError):
                environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
                words = Path(f"/proc/{pid}/cmdline").read_bytes()
                if f"SLURMD_NODENAME={node}".encode() in environ or b"slurmstepd" in words:
                    os.kill(pid, signal.SIGKILL)

    def pid(self, name: str) -> int:
        """Return the pid of slurmctld, munged, or of a node's slurmd."""
        return self._processes[name].pid

    def states(self) -> dict[str, str]:
        """Return the states of the nodes, by their names."""
        told = self.run("sinfo", "--Node", "--noheader", "--format=%N %t", "--partition=work")
        return dict(line.split() for line in told.splitlines())

    def run(self, *words: str) -> str:
        """Return what one of Slurm's commands prints; empty if it fails."""
        ran = subprocess.run(words, env={**os.environ, **self.env}, capture_output=True, text=True)
        return ran.stdout if ran.returncode == 0 else ""

    def await_(self, ready: Callable[[], object], what: str) -> None:
        until = time.monotonic() + PATIENCE_S
        while not ready():
            assert time.monotonic() < until, f"no {what} within {PATIENCE_S:g} s: {self._logs()}"
            time.sleep(0.1)

    # ------------------------------------------------ starting and stopping

    def _start_munge(self) -> None:
        home = self.folder / "munge"
        key = home / "key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        os.chmod(home, 0o711)
        words = ["--key-file", key, "--socket", home / "socket", "--pid-file", home / "pid"]
        words += ["--log-file", home / "log", "--seed-file", home / "seed", "--force"]
        self._start("munged", "munged", "--foreground", *map(str, words))
        self.await_((home / "socket").exists, "socket of munged")

    def _start_accounting(self, port: int) -> None:
        home, database = self.folder / "database", free_port()
        home.mkdir()
        conf = self.folder / "slurmdbd.conf"
        conf.write_text(SLURMDBD_CONF.format(folder=self.folder, port=port, database=database))
        conf.chmod(0o600)
        more = [f"--datadir={home}", f"--socket={home}/socket", f"--port={database}"]
        self._start("mariadbd", *DATABASE, *more)
        self.await_((home / "socket").exists, "socket of mariadbd")
        self._start("slurmdbd", "slurmdbd", "-D")
        self.await_(lambda: self.run("sacctmgr", "--noheader", "list", "user"), "slurmdbd")

    def forget(self) -> None:
        """Have slurmctld forget all jobs that it knows."""
        self._processes.pop("slurmctld").kill()
        self._start("slurmctld", "slurmctld", "-D", "-c")
        self.await_(self.states, "slurmctld")

    def _start(self, name: str, *command: str) -> None:
        with (self.folder / f"{name}.out").open("ab") as output:
            self._processes[name] = subprocess.Popen(
                command,
                env={**os.environ, **self.env},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=_die_with_parent,
            )

    def stop(self) -> None:
        """End all daemons, and what still runs on the nodes."""
        for name in ("slurmctld", *NODES, "slurmdbd", "mariadbd", "munged"):
            self._end(name)
        for pid in self._of_cluster():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _end(self, name: str) -> None:
        process = self._processes.pop(name, None)
        if process is not None:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _of_cluster(self) -> Iterator[int]:
        """Yield the processes whose environment names this cluster, but for its daemons."""
        known = {process.pid for process in self._processes.values()} | {os.getpid()}
        mark = f"SLURM_CONF={self.env['SLURM_CONF']}".encode()
        for path in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                words = (path.parent / "cmdline").read_bytes()
                ours = b"slurmstepd" in words or b"SLURM_JOB_ID=" in path.read_bytes()
                pid = int(path.parent.name)
                if ours and pid not in known and mark in path.read_bytes().split(b"\0"):
                    yield pid

    def _logs(self) -> str:
        paths = [*self.folder.glob("*.log"), *self.folder.glob("*.out")]
        return "\n".join(f"{path.name}: {path.read_text()[-1500:]}" for path in paths)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
