"""What the daemon counts."""

from mu.totals import KINDS, Durations, Totals


def test_a_time_counts_in_every_bucket_that_is_not_below_it():
    durations = Durations((0.1, 1.0))
    for seconds in (0.05, 0.1, 0.5, 7.0):
        durations.add(seconds)
    assert list(durations.cumulated()) == [(0.1, 2), (1.0, 3), (float("inf"), 4)]
    assert durations.total_s == 7.65


def test_commands_are_counted_by_a_fixed_set_of_kinds():
    totals = Totals()
    totals.answered("run:sleep 1", "OK:RETVAL(0)", 1.0)
    totals.answered("run:false", "FAIL(it is gone)", 0.5)
    totals.answered("anything at all: 1", "FAIL(no such command)", 0.25)
    totals.answered("quit", "OK", 0.25)
    counted = {kind: last for kind, one in totals.commands.items() if (last := count(one))}
    assert counted == {"run": 2, "other": 2}
    assert dict(totals.failed_commands) == {"run": 1, "other": 1}
    assert set(totals.commands) == set(KINDS)


def count(durations):
    return list(durations.cumulated())[-1][1]
