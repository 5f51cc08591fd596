"""What workers used: sums of what they told, and what users read of it."""

import json
from typing import Any

import pytest
from kit.parts import Port, make_job
from kit.recovery import again, run
from kit.states import Two, hello

from mu.cli.display.usage import advice, memory, usage_line
from mu.jobs.usage import Usage, told_by
from mu.journal.records import CommandUsed, read_record, write_record
from mu.messages import BadMessage, Hello, Use

UNKNOWN = Usage().json()


def test_times_and_bytes_add_up_and_of_sizes_the_largest_counts():
    usage = Usage()
    for cpu_s, peak_mb in ((1.5, 300.0), (0.25, 200.0)):
        usage.add({"commands": 1, "cpu_s": cpu_s, "peak_mb": peak_mb, "memory_mb": 512})
    known = {"commands": 2, "cpu_s": 1.75, "peak_mb": 300.0, "memory_mb": 512}
    assert usage.json() == UNKNOWN | known


def test_what_nobody_told_is_unknown_and_not_zero():
    assert set(UNKNOWN.values()) == {None}
    usage = Usage()
    usage.add({"cpu_s": 0.0})
    assert usage.json() == UNKNOWN | {"cpu_s": 0.0}


@pytest.mark.parametrize(
    "value", ["1", None, True, -1, float("nan"), float("inf"), 10**400, [1], {"a": 1}]
)
def test_what_can_be_no_figure_is_left_out(value):
    use = Use.of(1, {"cpu_s": value, "peak_mb": 5, "other": 6, "commands": 7})
    assert told_by(use) == {"peak_mb": 5}


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"[" * 4000, b'{"cpu_s": 1', b'{"a": "' + b"x" * 4096 + b'"}']
)
def test_what_is_no_object_is_refused(text):
    with pytest.raises(BadMessage, match="a USED must be USED:<command>: and a JSON object"):
        told_by(Use.parse(b"USED:1:" + text))


def test_a_session_refuses_a_use_that_is_no_object():
    job, _, _ = run(Two, USED % 1, b"RE:1:OK:ECHO(1)")
    session = job.actors[0].attempts[0].session
    with pytest.raises(BadMessage):
        session.receive(b"USED:2:[]")
    assert job.describe()["used"] == UNKNOWN | KNOWN


# ---------------------------------------------------------------- of a job


USED = b'USED:%d:{"cpu_s": 1.5, "peak_mb": 300, "in_bytes": 10}'
KNOWN = {"commands": 1, "cpu_s": 1.5, "peak_mb": 300, "in_bytes": 10}


def test_what_a_command_used_is_summed_for_its_actor_and_its_job():
    job, journal, _ = run(Two, USED % 1, b"RE:1:OK:ECHO(1)", USED % 2, b"RE:2:OK:ECHO(2)")
    twice = {"commands": 2, "cpu_s": 3.0, "peak_mb": 300, "in_bytes": 20}
    assert job.describe()["used"] == job.workers()[0]["used"] == UNKNOWN | twice
    journal.sync()
    journal.sync()
    assert (job.state, job.describe()["used"]) == ("done", UNKNOWN | twice)


def test_a_command_counts_once_and_only_until_its_reply():
    job, _, _ = run(Two, USED % 1, USED % 1, b"RE:1:OK:ECHO(1)", USED % 1, USED % 7)
    assert job.describe()["used"] == UNKNOWN | KNOWN


def test_an_original_worker_tells_nothing_and_a_used_of_its_would_be_a_reply():
    job = make_job(Two)
    line = Port(job).join(hello=Hello())
    line.say(b"OK:ECHO(1)")
    assert job.workers()[0]["used"] == job.describe()["used"] == UNKNOWN


def test_what_was_used_is_the_same_after_a_restart_wherever_the_records_end():
    job, journal, _ = run(Two, USED % 1, b"RE:1:OK:ECHO(1)")
    (place,) = [place for place, one in enumerate(journal.records) if isinstance(one, CommandUsed)]
    for kept in range(1, len(journal.records) + 1):
        found, port = again(job, journal.records[:kept], Two)
        replied = kept > place + 1
        line = port.join(hello=hello(received=[b"echo:1", b"echo:2"][: 1 + replied], sent=1))
        found.ledger.sync()
        if not replied:
            line.say(USED % 1)
            line.say(b"RE:1:OK:ECHO(1)")
        assert found.describe()["used"] == UNKNOWN | KNOWN, kept


def test_at_its_end_a_worker_may_still_tell_what_it_used():
    job, _, _ = run(Two, workers=2)
    port = Port(job, heartbeat_s=1000, silence_s=1000)
    line = port.join(hello=hello("bb"))
    job.ledger.sync()
    line.say(b"RE:1:OK:ECHO(1)")
    line.say(b"RE:2:OK:ECHO(2)")
    job.ledger.sync()
    assert line.heard[-1] == b"quit:"
    for tmp_mb in (b"12.5", b"99"):
        line.say(b'USED:0:{"tmp_mb": %b}' % tmp_mb)
    assert job.workers()[1]["used"] == job.describe()["used"] == UNKNOWN | {"tmp_mb": 12.5}


# ---------------------------------------------------------------- in words


def job_with(**used: object) -> Any:
    return {"function": "f", "used": UNKNOWN | used}


def test_users_read_sums_and_what_is_unknown():
    assert usage_line(job_with()) == "Used: unknown, because its workers did not tell."
    del (old := job_with())["used"]
    assert usage_line(old) == usage_line(job_with())
    assert usage_line(job_with(commands=1, cpu_s=2.0, memory_mb=1536)) == (
        "Used: CPU 2.0 s, memory unknown of 1,536 MB, /tmp unknown."
    )
    everything = {"cpu_s": 30.0, "busy_s": 60.0, "peak_mb": 1498.2, "memory_mb": 1536}
    everything |= {"tmp_mb": 12, "in_bytes": 2.5e9, "out_bytes": 999, "transfer_s": 61}
    assert usage_line(job_with(**everything)) == (
        "Used: CPU 30 s (50% of a CPU), memory 1,498 of 1,536 MB, /tmp 12 MB, 2.5 GB from S3,"
        " 999 bytes to S3 in 1 min 1 s."
    )
    assert memory({"peak_mb": 7.0}) == "7 MB"


IDLE = {"cpu_s": 6.0, "busy_s": 60.0, "idle_s": 50.0, "peak_mb": 200.0, "memory_mb": 1769}


@pytest.mark.parametrize(
    ("but", "suggested"),
    [
        ({}, "256 MB"),
        ({"peak_mb": 20.0, "cpu_s": 1.0}, "128 MB"),
        ({"cpu_s": 24.0}, "896 MB"),  # its CPU needs more than its memory
        ({"cpu_s": 40.0}, ""),
        ({"peak_mb": 1500.0}, ""),
        ({"idle_s": 1.0}, ""),  # others used the CPU
        *(({name: None}, "") for name in IDLE),
        ({"busy_s": 0.5, "idle_s": 0.4, "cpu_s": 0.1}, ""),
    ],
)
def test_less_memory_is_suggested_only_where_both_memory_and_cpu_are_hardly_used(but, suggested):
    told = advice(job_with(**IDLE | but))
    assert told.startswith(f"With {suggested} instead of 1,769, function 'f' would") is bool(
        suggested
    )
    assert bool(told) is bool(suggested)


@pytest.mark.parametrize("told", [{}, {"cpu_s": 1e-07, "in_bytes": 10**15, "peak_mb": 1234.5}])
def test_the_record_of_what_a_command_used_is_json(told):
    record = CommandUsed(1795500000.123456, 7, 1, 3, told)
    line = write_record(record)
    assert json.loads(line) == ["commandused", 1795500000.123456, 7, 1, 3, told]
    assert " " not in line
    assert read_record(line) == record
