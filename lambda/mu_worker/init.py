"""What is known of a sandbox: its memory, and its INIT, which precedes its first event and is billed."""

import os
import time


class Init:
    """Made when the function's modules are imported, at the end of INIT."""

    def __init__(self) -> None:
        self._seconds = process_age_s()

    def take(self) -> float | None:
        """Return INIT's duration in seconds for the sandbox's first event; None: for a later one.

        None also means that the system does not tell it.
        """
        seconds, self._seconds = self._seconds, None
        return seconds


def function_memory_mb() -> int | None:
    """Return the memory of the function in which this runs, in MB; None: it runs in none."""
    told = os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "")
    return int(told) if told.isascii() and told.isdecimal() else None


def process_age_s() -> float | None:
    """Return for how long this process has existed, in seconds; None: the system does not tell."""
    try:
        with open("/proc/self/stat", "rb") as file:
            after_name = file.read().rpartition(b")")[2].split()
        started = int(after_name[19]) / os.sysconf("SC_CLK_TCK")  # see proc_pid_stat(5), field 22
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started)
    except (OSError, ValueError, LookupError):
        return None
