"""AWS Lambda's limits, as of November 2026: one table, from which docs/limits.md is made.

AWS raises its limits from time to time. So where one is only exceeded, mu warns and lets AWS decide.
"""

from dataclasses import dataclass

QUOTAS = "https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html"
SCALING = "https://docs.aws.amazon.com/lambda/latest/dg/lambda-concurrency.html"
ASYNC = "https://docs.aws.amazon.com/lambda/latest/dg/invocation-async.html"
MODEL = "botocore 1.44.8, model of Lambda"
AS_OF = "November 2026"
"""When the limits were looked up."""


@dataclass(frozen=True, slots=True)
class Limit:
    """What AWS allows of something; `least` and `most` are in `unit`."""

    name: str
    most: int
    unit: str
    source: str
    note: str = ""
    least: int = 0

    def exceeded(self, value: int) -> str | None:
        """Return a warning if the value is above the limit."""
        if value <= self.most:
            return None
        return (
            f"{self.name} {value:,} {self.unit} is more than the {self.most:,} {self.unit} that AWS"
            f" allowed in {AS_OF}; AWS decides"
        )


NEW_ACCOUNT_CONCURRENCY, NEW_ACCOUNT_MEMORY = 10, 3_008
"""What new accounts often have: executions at once in a region, and MB for each of them. The quotas page
says only that both are reduced; users report these numbers. No call returns the memory quota."""
MANAGED_TIMEOUT_S = 5_400
"""The longest timeout of a function on Managed Instances."""
BOTO3 = (1, 36)
"""The oldest boto3 that the worker can use: earlier ones lack the option for S3's new checksums."""

CONCURRENCY = Limit(
    "concurrent executions",
    1_000,
    "for each region and account",
    QUOTAS,
    f"New accounts start with less, often {NEW_ACCOUNT_CONCURRENCY}, and with less memory for each"
    " function. AWS raises both by itself with use; to ask for more: Service Quotas, quota L-B99A9384.",
)
GROWTH = Limit(
    "growth",
    1_000,
    "executions of one function in 10 s",
    SCALING,
    "Use `--copies N` with `mu deploy` and `mu launch` to start more at once.",
)
TIMEOUT = Limit(
    "timeout",
    1_800,
    "s",
    f"{MODEL}, from 19 November 2026",
    f"Before, 900 s. On Managed Instances, {MANAGED_TIMEOUT_S:,} s.",
    1,
)
INIT = Limit(
    "INIT",
    10,
    "s",
    "https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html",
    "The start of a sandbox before its first event; billed since August 2025. If it takes longer, it is"
    " repeated with the first event.",
)
MEMORY = Limit(
    "memory",
    10_240,
    "MB",
    QUOTAS,
    f"1,769 MB gives a whole CPU. New accounts have less, often {NEW_ACCOUNT_MEMORY:,} MB.",
    128,
)
TMP = Limit("/tmp", 10_240, "MB", QUOTAS, "Above 512 MB it costs extra.", 512)
EVENT = Limit(
    "event",
    2**20,
    "bytes",
    ASYNC,
    "Of an asynchronous invocation, as mu's are. Before October 2025, 256 KB.",
)
PAYLOAD = Limit(
    "payload", 6 * 2**20, "bytes", QUOTAS, "Of a synchronous invocation, which mu does not use."
)
ZIP = Limit(
    "zip",
    50 * 2**20,
    "bytes",
    QUOTAS,
    "Sent directly. Larger zips go through S3: `mu deploy --bucket`.",
)
UNZIPPED = Limit("unzipped code", 250 * 2**20, "bytes", QUOTAS, "With layers.")
STORAGE = Limit(
    "code storage",
    300,
    "GB for each region and account",
    QUOTAS,
    "All functions and their versions. Before, 75 GB.",
)
ENVIRONMENT = Limit("environment variables", 4_096, "bytes", QUOTAS, "Of a function, in all.")
NAME = Limit("function name", 64, "characters", MODEL, "Letters, digits, - and _.", 1)
EVENT_AGE = Limit("maximum event age", 21_600, "s", MODEL, "mu deploy sets 60 s.", 60)
RETRIES = Limit(
    "retries by AWS", 2, "for each event", MODEL, "mu deploy sets 0: mu retries itself."
)
PROCESSES = Limit("processes and threads", 1_024, "for each worker", QUOTAS)
FILES = Limit("open files", 1_024, "for each worker", QUOTAS)

LIMITS = (
    CONCURRENCY,
    GROWTH,
    TIMEOUT,
    INIT,
    MEMORY,
    TMP,
    EVENT,
    PAYLOAD,
    ZIP,
    UNZIPPED,
    STORAGE,
    ENVIRONMENT,
    NAME,
    EVENT_AGE,
    RETRIES,
    PROCESSES,
    FILES,
)

RUNTIMES = ("python3.12", "python3.13", "python3.14")
"""Those that mu's worker is tested on. The model lists python3.15 as well; mu lets AWS decide."""
NEWER = ("python3.15",)
"""Runtimes that AWS lists and mu is not yet tested on."""


def page() -> str:
    """Return docs/limits.md."""
    rows = [
        "# AWS's limits",
        "",
        f"The limits of AWS Lambda that matter to mu, as of {AS_OF}. This page is generated from",
        "`mu/aws/limits.py` by `python tests/unit/test_docs.py`.",
        "",
        "AWS raises its limits from time to time. So if a setting is above one of them, `mu deploy` and `mu",
        "bundle` warn, and AWS decides. `mu doctor --workers N` compares the account's own quota with N workers.",
        "",
        "| what | limit | notes | source |",
        "|---|---|---|---|",
    ]
    for one in LIMITS:
        span = f"{one.least:,} to {_number(one.most)}" if one.least else _number(one.most)
        unit = one.unit
        if unit == "bytes" and one.most >= 2**20:
            span, unit = f"{one.most // 2**20:,}", "MiB"
        source = f"<{one.source}>" if one.source.startswith("https:") else one.source
        rows.append(f"| {one.name} | {span} {unit} | {one.note} | {source} |")
    rows += [
        "",
        f"Runtimes: mu's worker is tested on {', '.join(RUNTIMES)}. AWS lists {', '.join(NEWER)} too:",
        f"`mu deploy --runtime {NEWER[0]}` works where AWS accepts it, and `mu doctor` says that it is not",
        "tested.",
        "",
        "How mu treats each of AWS's errors is in one table, in `mu/aws/answers.py`.",
    ]
    return "\n".join(rows) + "\n"


def _number(value: int) -> str:
    return f"{value:,}"
