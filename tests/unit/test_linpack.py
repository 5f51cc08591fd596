"""linpack, without a network."""

from mu.events import Answered, Finish
from mu.parameters import Params
from mu.pipelines.linpack import linpack
from mu.testing import effects_of, event, machine, run


def test_both_runs_are_ordered_before_either_ends_and_told_apart():
    driven = machine(linpack.begin, Params(command="", copies=2, output_chars=4))
    effects = effects_of(driven, "OK:HELLO", "OK:SETI(nonblock)")
    assert [effect.command for effect in effects] == ["seti:nonblock:1", "run:", "run:"]
    for at, number, text in [
        (5.0, 2, "OK:RUNNING(x)"),
        (5.0, 3, "OK:RUNNING(x)"),
        (7.0, 3, "OK:RETVAL(0):OUTPUT(second):COMMAND(x)"),
    ]:
        assert driven.receive(event(text, at, number)) == []
    (finish,) = driven.receive(Answered(9.5, "OK:RETVAL(0):OUTPUT(one):COMMAND(x)", 2))
    assert finish == Finish(
        result=[
            {"actor": 0, "seconds": 7.5, "output": "one"},
            {"actor": 0, "seconds": 5.0, "output": "cond"},
        ]
    )


def test_the_result_has_all_runs_and_how_long_they_took():
    job = run(linpack, {"command": "bench"}, {}, workers=2)
    assert [one["actor"] for one in job.result["runs"]] == [0, 0, 1, 1]
    assert set(job.result["seconds"]) == {"fastest", "median", "slowest"}


def test_where_every_run_failed_there_are_none():
    job = run(linpack, {}, {"run:": "OK:RETVAL(1):OUTPUT(oh):COMMAND(x)"})
    assert job.result == {"runs": []}
    assert "oh" in job.actors[0].finish.error
