"""The parts of mu-slurm that need no cluster: tests/real/test_slurm.py has the others."""

import json

import pytest
from mu_slurm.batches import read_batches, write_batch
from mu_slurm.options import OPTIONS, check, sbatch_words
from mu_slurm.tasks import failure_of, read_past_tasks, read_tasks

from mu.invocations import Invocation, Refused, Throttled, Unreached
from mu.parameters import FieldError, Params, read_fields

SQUEUE = """7|0|RUNNING|None|0|0|mu-a|
7|1|PENDING|Priority|0|0|mu-a|
7|2|NODE_FAIL|NodeDown|0|0|mu-a|
7|3|FAILED|NonZeroExitCode|31744|1|mu-a|
7|4|COMPLETED|None|0|0|mu-a|
7|5|FAILED|JobLaunchFailure|9|0|mu-a|
8|N/A|RUNNING|None|0|0|not an array|
"""
SACCT = """1_0|FAILED|None|124:0|mu-a
1_0.batch|FAILED||124:0|batch
1_1|FAILED|None|0:9|mu-a
1_2|CANCELLED by 0|None|0:0|mu-a
1_3|COMPLETED|None|0:0|mu-a
1_4|OUT_OF_MEMORY|None|0:125|mu-a
1_5|TIMEOUT|None|0:0|mu-a
1_6|RUNNING|None|0:0|mu-a
1_[7-9]|PENDING|None|0:0|mu-a
7_0|NODE_FAIL|None|0:0|mu-b
9|COMPLETED|None|0:0|not an array
"""


def test_tasks_are_read_and_their_ends_are_told_in_words():
    tasks = list(read_tasks(SQUEUE))
    assert [(task.job, task.index, task.restarts) for task in tasks] == [
        (7, 0, 0),
        (7, 1, 0),
        (7, 2, 0),
        (7, 3, 1),
        (7, 4, 0),
        (7, 5, 0),
    ]
    assert [task.queued for task in tasks] == [False, True, False, False, False, False]
    assert [task.why_ended for task in tasks if task.ended] == [
        "ended: Slurm's task 7_2 is NODE_FAIL (NodeDown)",
        "ended: Slurm's task 7_3 is FAILED (NonZeroExitCode, exit status 124)",
        "ended",
        "ended: Slurm's task 7_5 is FAILED (JobLaunchFailure, exit status 137)",
    ]


def test_accounting_tells_how_tasks_ended_that_the_queue_has_forgotten():
    tasks = list(read_past_tasks(SACCT))
    assert [(task.name, task.job, task.index) for task in tasks] == [
        *(("mu-a", 1, index) for index in range(6)),
        ("mu-b", 7, 0),
    ]
    assert [task.why_ended for task in tasks] == [
        "ended: Slurm's task 1_0 is FAILED (exit status 124)",
        "ended: Slurm's task 1_1 is FAILED (exit status 137)",
        "ended: Slurm's task 1_2 is CANCELLED",
        "ended",
        "ended: Slurm's task 1_4 is OUT_OF_MEMORY",
        "ended: Slurm's task 1_5 is TIMEOUT",
        "ended: Slurm's task 7_0 is NODE_FAIL",
    ]


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("sbatch: error: QOSMaxSubmitJobPerUserLimit", Throttled),
        ("Batch job submission failed: Resource temporarily unavailable", Throttled),
        ("Unable to contact slurm controller (connect failure)", Unreached),
        ("Socket timed out on send/recv operation", Unreached),
        ("sbatch did not answer within 60 s", Unreached),
        ("sbatch: error: invalid partition specified: nope", Refused),
    ],
)
def test_what_sbatch_says_decides_whether_a_retry_is_worthwhile(said, kind):
    assert isinstance(failure_of(said), kind)


def options(**given: object) -> Params:
    return read_fields(OPTIONS, given)


def test_options_become_words_for_sbatch():
    given = options(time_s=90.0, memory_mb=512, partition="long", sbatch="--qos='a b' --exclusive")
    assert sbatch_words(given) == [
        *("--time=2:30", "--ntasks=1", "--cpus-per-task=1", "--mem=512M", "--partition=long"),
        *("--qos=a b", "--exclusive"),
    ]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"folder": "shared"}, "folder must be an absolute path, got 'shared'"),
        ({"sbatch": "--job-name=x"}, "sbatch must not have --job-name, which mu sets"),
        ({"sbatch": "--arr=0"}, "sbatch must not have --arr, which mu sets"),
        ({"sbatch": "-p long"}, "sbatch must be options such as --qos=long, got '-p'"),
        ({"sbatch": "--qos='"}, "sbatch: No closing quotation"),
        ({"account": "a\nb"}, "account must be one line of printable text"),
    ],
)
def test_options_that_cannot_be_right_are_refused(given, says):
    with pytest.raises(FieldError) as refused:
        check(options(**given))
    assert says in str(refused.value)


def test_a_batch_is_found_again_and_its_event_is_shared_but_for_what_differs(tmp_path):
    payloads = [{"launch": f"l{n}", "srvkey": "secret", "env": {"N": str(n)}} for n in range(2)]
    made = [Invocation(one["launch"], "f", "r", json.dumps(one).encode(), "j1") for one in payloads]
    batch = write_batch(tmp_path, made)
    assert json.loads(batch.event.read_text()) == {"srvkey": "secret"}
    lines = [json.loads(line) for line in batch.keys.read_text().splitlines()]
    assert lines == [{"launch": "l0", "env": {"N": "0"}}, {"launch": "l1", "env": {"N": "1"}}]
    (tmp_path / "mu-unfinished").mkdir()
    (found,) = read_batches(tmp_path)
    assert (found.name, found.job, found.launches) == (batch.name, "j1", ("l0", "l1"))
    assert [path.name for path in tmp_path.iterdir()] == [batch.name]
    found.remove()
    assert list(tmp_path.iterdir()) == []
