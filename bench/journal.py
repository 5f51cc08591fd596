"""What happened, on disk: the journal beside a bare append-only file, in the same run.

Both get the same records from a reactor's turns, commit in the same groups in a thread of their own,
and nobody writes on while more than UNSYNCED wait for the disk. The bare file is one write and one
fdatasync for each group, with the job's id before each record, and nothing else: no checksums, no
pruning, no order of a job's records but by reading all.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import react

from mu.journal.writer import Journal

RECORD = '["happened",%d,1,"0123456789abcdef",["answered",1795500000.1234567,"OK:ECHO(hello)",%d]]'
RECORD_BYTES = 100
A_TURN = 200
"""Records that a turn of the reactor brings."""
UNSYNCED = 5000


class BareFile(Journal):
    """The journal's groups and thread, with a file of lines for a database."""

    def _commit(self) -> None:
        self._timer, self._timer_is_prompt = None, False
        pending, self._pending = self._pending, {}
        self._committing = self.written
        self._work.put(cast(Any, pending))

    def _commit_all(self) -> None:
        file = os.open(f"{self._path}.lines", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        while (pending := cast(Any, self._work.get())) is not None:
            group = [f"{job} {line}\n" for job, lines in pending.items() for line in lines]
            os.write(file, "".join(group).encode("ascii"))
            os.fdatasync(file)
            self._reactor.callFromThread(self._committed)
        os.close(file)


class Load:
    """Writes records in turns until all are on disk."""

    def __init__(self, journal: Journal, records: int, jobs: int) -> None:
        self._journal = journal
        self._left = records
        names = [f"{n:012x}" for n in range(jobs)]
        lines = [(RECORD % (n, n)).ljust(RECORD_BYTES) for n in range(A_TURN)]
        self._turns = [
            [(names[(turn + n) % jobs], line) for n, line in enumerate(lines)]
            for turn in range(0, max(jobs, A_TURN), A_TURN)
        ]
        self._turn = 0
        self.commits = 0
        self.done: Deferred[None] = Deferred()

    def go(self) -> None:
        if self._left <= 0:
            self._journal.on_disk(self.done.callback, None)
            return
        if self._journal.written - self._journal.synced < UNSYNCED:
            write = self._journal.write
            for job, line in self._turns[self._turn]:
                write(job, line)
            self._turn = (self._turn + 1) % len(self._turns)
            self._left -= A_TURN
            self._journal.on_disk(lambda: None)  # somebody waits for it, as in every busy turn
        reactor.callLater(0, self.go)


async def measure(kind: type[Journal], records: int, jobs: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="mu-bench-") as folder:
        journal = kind(Path(folder) / "journal.db", reactor, 0.1, print)
        load = Load(journal, records, jobs)
        begun, used = time.monotonic(), time.process_time()
        load.go()
        await load.done
        seconds, used = time.monotonic() - begun, time.process_time() - used
        await journal.close()
        size = sum(file.stat().st_size for file in Path(folder).iterdir())
    return {"records_s": records / seconds, "us": 1e6 * used / records, "bytes": size / records}


async def main(_: Any) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    kinds: dict[str, type[Journal]] = {"journal": Journal, "bare": BareFile}
    told: dict[int, dict[str, dict[str, float]]] = {}
    for jobs in 1, 1000:
        runs = [
            {name: await measure(kind, options.records, jobs) for name, kind in kinds.items()}
            for _ in range(options.repeat)
        ]
        told[jobs] = {
            name: {
                figure: statistics.median(run[name][figure] for run in runs)
                for figure in runs[0][name]
            }
            for name in kinds
        }
    if options.json:
        print(json.dumps(told))
        return
    for jobs, pair in told.items():
        ours, bare = pair["journal"], pair["bare"]
        print(
            f"journal, {jobs} jobs: {ours['records_s']:,.0f} records/s, {ours['us']:.2f} us CPU and"
            f" {ours['bytes']:.0f} bytes each; a bare file {bare['records_s']:,.0f}, {bare['us']:.2f}"
            f" and {bare['bytes']:.0f}: ratios {ours['records_s'] / bare['records_s']:.2f}"
            f" and {ours['us'] / bare['us']:.2f}"
        )


if __name__ == "__main__":
    react(lambda reactor: Deferred.fromCoroutine(main(reactor)))
