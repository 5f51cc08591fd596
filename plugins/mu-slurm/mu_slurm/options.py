"""The options of [slurm] in mu.conf, and which of them an order may set."""

import re
import shlex

from mu.parameters import FieldError, Parameter, Params

OPTIONS = (
    Parameter("folder", str, "a folder of the shared file system, for events and logs", ""),
    Parameter(
        "functions", str, "where bundles are, NAME.zip or NAME/ (empty: functions in folder)", ""
    ),
    Parameter("python", str, "the Python of the nodes, 3.11 or newer", "python3"),
    Parameter("work", str, "where workers make their folders on a node (empty: its TMPDIR)", ""),
    Parameter("sbcast", bool, "whether each task copies its zip to the node with sbcast", False),
    Parameter("partition", str, "the partition (empty: the cluster's default)", ""),
    Parameter("account", str, "the account to charge (empty: the user's default)", ""),
    Parameter("time_s", float, "how long a worker may run, in seconds", 3600.0, 1),
    Parameter("memory_mb", int, "the memory of a worker, in MB (0: the cluster's default)", 0, 0),
    Parameter("cpus", int, "the CPUs of a worker", 1, 1),
    Parameter("licenses", str, "the licences that a worker takes, as sbatch has them", ""),
    Parameter("sbatch", str, "more options of sbatch: --qos=long --constraint=avx2", ""),
    Parameter(
        "node_hour_usd", float, "the price of a node for an hour (0: costs are unknown)", 0.0, 0
    ),
    Parameter("workers_per_node", int, "how many workers share a node, and its price", 1, 1),
    Parameter("poll_s", float, "how often to ask for the states of tasks, in seconds", 10.0, 1),
    Parameter("command_s", float, "how long a command of Slurm may take, in seconds", 60.0, 1),
)

ORDER_OPTIONS = ("partition", "account", "time_s", "memory_mb", "cpus", "licenses", "sbatch")

OURS = (
    *("array", "chdir", "error", "export", "input", "job-name", "no-requeue", "open-mode"),
    *("output", "parsable", "requeue", "test-only", "wait", "wrap"),
)
"""Options of sbatch that the engine sets itself."""
_OPTION = re.compile(r"--(?P<name>[a-z][a-z-]*)(=.*)?")


def check(options: Params) -> None:
    """Raise FieldError for options that cannot be right."""
    for name, value in dict(options).items():
        if isinstance(value, str) and not value.isprintable():
            raise FieldError(name, f"{name} must be one line of printable text, got {value!r:.200}")
    for name in ("folder", "functions", "work"):
        value = dict.get(options, name, "")
        if value and not value.startswith("/"):
            raise FieldError(name, f"{name} must be an absolute path, got {value!r:.200}")
    if "sbatch" in options:
        more_options(options["sbatch"])


def more_options(text: str) -> list[str]:
    """Return the words of the option `sbatch`. Raises FieldError."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise FieldError("sbatch", f"sbatch: {error}, got {text!r:.200}") from None
    for word in words:
        form = _OPTION.fullmatch(word)
        if form is None:
            raise FieldError(
                "sbatch", f"sbatch must be options such as --qos=long, got {word!r:.200}"
            )
        # sbatch accepts any beginning of a name that is not ambiguous.
        if any(name.startswith(form["name"]) for name in OURS):
            raise FieldError("sbatch", f"sbatch must not have --{form['name']}, which mu sets")
    return words


def sbatch_words(options: Params) -> list[str]:
    """Return the words for sbatch that the options stand for."""
    minutes, seconds = divmod(int(options.time_s) + 60, 60)  # the worker's own limit comes first
    words = [f"--time={minutes}:{seconds:02d}", "--ntasks=1", f"--cpus-per-task={options.cpus}"]
    if options.memory_mb:
        words.append(f"--mem={options.memory_mb}M")
    named = ("partition", "account", "licenses")
    words += [f"--{name}={options[name]}" for name in named if options[name]]
    return words + more_options(options.sbatch)
