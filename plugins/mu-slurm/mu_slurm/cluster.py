"""What the engine does with a cluster. Everything here may block: it is called in threads."""

import compileall
import os
import shlex
import shutil
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from mu.invocations import Answer, Invocation
from mu.parameters import Params
from mu_slurm.batches import Batch, read_batches, unpack, write_batch
from mu_slurm.commands import Commands
from mu_slurm.options import sbatch_words
from mu_slurm.tasks import FORMAT, PAST_FORMAT, Task, failure_of, read_past_tasks, read_tasks

LOG_BYTES = 2**20
"""The size at which a function's log is begun anew; the one before is kept."""
SHORTEST_ARRAY = 1001
"""Slurm's default of MaxArraySize, if the cluster does not tell."""
CLOCKS_APART_S = 3600
"""How far the clocks of this machine and of the cluster may differ."""


class SlurmError(Exception):
    """Slurm has not done what it was asked to; `answer` is what that means for launches."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(getattr(answer, "reason", ""))
        self.answer = answer


class Cluster:
    """A cluster, by its commands, and the folder on its shared file system.

    `daemon` names the daemon's own folder in that: others may use the same one.
    """

    def __init__(self, options: Params, daemon: str = "doctor") -> None:
        self.options = options
        self.own = Path(options.folder) / daemon
        self.commands = Commands(options.command_s)
        self._settings: dict[str, str] = {}

    @property
    def folder(self) -> Path:
        return Path(self.options.folder)

    @property
    def functions(self) -> Path:
        return Path(self.options.functions or self.folder / "functions")

    def bundle_of(self, function: str) -> Path | None:
        """Return the zip or the folder of a function; None: there is none."""
        if function in (".", "..") or "/" in function:
            return None
        both = (self.functions / f"{function}.zip", self.functions / function)
        return next((path for path in both if path.exists()), None)

    def _installed(self, function: str) -> Path:
        """Return where tasks find a bundle: a zip is unpacked once for all, unless by sbcast."""
        bundle = self.bundle_of(function)
        assert bundle is not None
        if bundle.is_dir() or self.options.sbcast:
            return bundle
        about = bundle.stat()
        place = self.own / "bundles" / f"{function}-{about.st_mtime_ns:x}-{about.st_size:x}"
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(dir=place.parent))
            unpack(bundle, partial)
            for name in ("mu_worker", "mu"):  # so that not each task does
                compileall.compile_dir(partial / name, quiet=2)
            try:
                partial.rename(place)
            except OSError:  # another launch was faster
                shutil.rmtree(partial, ignore_errors=True)
        return place

    # ------------------------------------------------ arrays

    def largest_array(self) -> int:
        """Return how many tasks an array may have: MaxArraySize."""
        found = self._config().get("MaxArraySize", "")
        return int(found) if found.isdecimal() else SHORTEST_ARRAY

    def has_accounting(self) -> bool:
        """Return whether sacct knows what became of tasks that squeue has forgotten."""
        kind = self._config().get("AccountingStorageType", "")
        return kind.rpartition("/")[2] not in ("", "none", "(null)")

    def _config(self) -> dict[str, str]:
        """Return the cluster's settings; empty: Slurm does not tell now."""
        if not self._settings:
            config = self.commands.run(("scontrol", "show", "config"))
            self._settings = _settings(config.out) if config.good else {}
        return self._settings

    def write(self, invocations: Sequence[Invocation]) -> Batch:
        """Write the files of a batch. Raises OSError."""
        return write_batch(self.own / "batches", invocations)

    def submit(self, batch: Batch, options: Params) -> int:
        """Submit a batch's array, and return its id. Raises SlurmError, OSError."""
        log = self._log_of(batch.function)
        words = [
            *("sbatch", "--parsable", f"--array=0-{len(batch.launches) - 1}"),
            *(f"--job-name={batch.name}", "--no-requeue", "--export=NIL", "--chdir=/"),
            *(f"--output={log}", "--open-mode=append", *sbatch_words(options)),
        ]
        ran = self.commands.run(words, self._script(batch, options))
        told = ran.out.strip().partition(";")[0]  # ID, or ID;CLUSTER
        if not ran.good or not told.isdecimal():
            raise SlurmError(failure_of(ran.err))
        return int(told)

    def _script(self, batch: Batch, options: Params) -> str:
        """Return what each task of the array runs. Raises OSError."""
        place = self._installed(batch.function)
        bundle, copy = shlex.quote(str(place)), ""
        if place.suffix == ".zip":
            copy = (
                'copy="$(mktemp -d)" || exit\n'
                "trap 'rm -rf \"$copy\"' EXIT\n"
                f'sbcast {bundle} "$copy/bundle.zip" || exit\n'
            )
            bundle = '"$copy/bundle.zip"'
        words = [
            *(options.python, "-m", "mu_worker", "--event", str(batch.event)),
            *("--launches", str(batch.keys), "--timeout", f"{options.time_s:g}"),
        ]
        words += ["--memory", str(options.memory_mb)] if options.memory_mb else []
        words += ["--work", options.work] if options.work else []
        return (
            "#!/bin/sh\n"
            f"# Workers of mu's job {batch.job}.\n"
            f"{copy}"
            f"export PYTHONPATH={bundle}\n"
            f'{shlex.join(words)} --bundle {bundle} --index "$SLURM_ARRAY_TASK_ID" >/dev/null\n'
        )

    def tasks(self, name: str = "") -> list[Task]:
        """Return the tasks that Slurm knows, of all arrays of this user or of one. Raises SlurmError."""
        words = ["squeue", "--me", "--array", "--states=all", "--noheader", f"--Format={FORMAT}"]
        ran = self.commands.run([*words, f"--name={name}"] if name else words)
        if not ran.good:
            raise SlurmError(failure_of(ran.err))
        return list(read_tasks(ran.out))

    def tasks_of(self, places: Mapping[str, Collection[int]]) -> list[Task]:
        """Return the tasks that Slurm knows; of these places also what squeue has forgotten.

        Places are indices by the names of arrays. Where there is accounting, it tells how forgotten
        tasks ended. Raises SlurmError.
        """
        tasks = self.tasks()
        known = {(task.name, task.index) for task in tasks}
        forgotten = [
            name
            for name, indices in places.items()
            if any((name, index) not in known for index in indices)
        ]
        if forgotten and self.has_accounting():
            tasks += (one for one in self._past(forgotten) if (one.name, one.index) not in known)
        return tasks

    def _past(self, names: Sequence[str]) -> list[Task]:
        """Return the tasks of these arrays that have ended; none if accounting does not answer."""
        written_at = time.time()
        for name in names:
            with suppress(OSError):  # it has just been forgotten
                written_at = min(written_at, (self.own / "batches" / name).stat().st_mtime)
        seconds = int(time.time() - written_at) + CLOCKS_APART_S
        words = ["sacct", "--allocations", "--noheader", "--parsable2", f"--format={PAST_FORMAT}"]
        words += [f"--user={os.getuid()}", f"--starttime=now-{seconds}seconds"]
        ran = self.commands.run([*words, f"--name={','.join(names)}"])
        return list(read_past_tasks(ran.out)) if ran.good else []

    def cancel(self, arrays: Sequence[int], *how: str) -> None:
        """Cancel tasks of these arrays. Raises SlurmError."""
        if not arrays:
            return
        ran = self.commands.run(("scancel", *how, *map(str, arrays)))
        if not ran.good and "Invalid job id" not in ran.err:  # it has ended, and is forgotten
            raise SlurmError(failure_of(ran.err))

    # ------------------------------------------------ files

    def make_folders(self) -> None:
        """Make the folders that users put something into. Raises OSError."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self.options.functions:
            self.functions.mkdir(exist_ok=True)

    def left_over(self) -> list[Batch]:
        """Return the batches of an earlier daemon; if there are none, nobody needs its bundles."""
        with suppress(OSError):  # mu doctor tells
            self.make_folders()
        batches = list(read_batches(self.own / "batches"))
        if not batches:
            shutil.rmtree(self.own / "bundles", ignore_errors=True)
        return batches

    def last_words(self, function: str, since: float) -> str:
        """Return the last line of a function's log, if something was written since then."""
        path = self.folder / "logs" / f"{function}.log"
        try:
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - 4096))
                lines = file.read().decode("utf-8", "replace").split("\n")
            if path.stat().st_mtime >= since and (said := [line for line in lines if line.strip()]):
                return f"its log says: {said[-1].strip():.500}"
        except OSError:
            pass
        return f"see {path}"

    def _log_of(self, function: str) -> Path:
        log = self.folder / "logs" / f"{function}.log"
        log.parent.mkdir(mode=0o700, exist_ok=True)
        with suppress(FileNotFoundError):
            if log.stat().st_size > LOG_BYTES:
                log.replace(log.with_suffix(".log.old"))
        return log


def _settings(text: str) -> dict[str, str]:
    """Return the settings in the output of scontrol show config."""
    pairs = (line.partition("=") for line in text.splitlines())
    return {name.strip(): value.strip() for name, equals, value in pairs if equals}
