"""Checks and repairs the journal in a daemon's home."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from mu.findings import FAIL, OK, WARN, Finding
from mu.home import HomeInUse, lock
from mu.journal.check import check
from mu.journal.database import JournalError
from mu.journal.salvage import Salvaged, repair

NAME = "journal"


def examine_journal(path: Path, mend: bool = False) -> Iterator[Finding]:
    """Yield what is wrong with a journal; with `mend`, repair a damaged file first."""
    try:
        if mend:
            with closing(lock(path.parent)):
                saved = repair(path) if check(path).damage else None
            yield from _repaired(path, saved)
        yield from _checked(path)
    except HomeInUse:
        yield Finding(
            NAME,
            FAIL,
            f"{path} is not repaired while a daemon uses it",
            "stop the daemon, then run this command again",
        )
    except (JournalError, OSError, sqlite3.Error) as error:
        yield Finding(NAME, FAIL, str(error))


def _repaired(path: Path, saved: Salvaged | None) -> Iterator[Finding]:
    if saved is None:
        yield Finding(NAME, OK, f"{path} is not damaged: there is nothing to repair")
        return
    for job, what in saved.forgotten.items():
        yield Finding(NAME, WARN, f"job {job}: {what}")
    if saved.unnamed:
        yield Finding(NAME, WARN, "more is lost, of jobs that the damaged file no longer names")
    yield Finding(
        NAME,
        OK,
        f"repaired: {saved.rows} groups of records were saved; {len(saved.lost)} jobs lost something",
        f"the damaged file is kept as {saved.kept}: delete it when you no longer need it",
    )


def _checked(path: Path) -> Iterator[Finding]:
    checked = check(path)
    for said in checked.damage:
        yield Finding(NAME, FAIL, f"{path} is damaged: {said}")
    if checked.damage:
        yield Finding(
            NAME,
            FAIL,
            "what can still be read of it can be saved in a new file; the damaged one is kept",
            "stop the daemon, then: mu doctor --journal --repair",
        )
        return
    for job, reason in checked.bad.items():
        yield Finding(NAME, WARN, f"job {job} cannot resume or be replayed: {reason}")
    yield Finding(
        NAME,
        OK,
        f"{path}: the file is sound. {checked.running} running and {checked.ended} ended jobs,"
        f" {checked.records} records",
        "to check that the recorded jobs replay: mu replay JOB" if checked.records else "",
    )
