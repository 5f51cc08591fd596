"""Both pipelines without a network."""

import pytest
from mu_example import script, states

from mu.testing import run

PARAMS = {"bucket": "books", "texts": ["a.txt", "b.txt"]}
COUNTED = {"run:": "OK:RETVAL(0):OUTPUT(1200\n):COMMAND(wc)"}


@pytest.mark.parametrize("pipeline", [states.pipeline, script.pipeline])
def test_words_are_added_up(pipeline):
    job = run(pipeline, PARAMS, COUNTED)
    assert [actor.finish.result for actor in job.actors] == [1200, 1200]
    assert job.result == {"words": 2400}


@pytest.mark.parametrize("pipeline", [states.pipeline, script.pipeline])
def test_a_text_that_is_missing_fails_its_actor_only(pipeline):
    job = run(pipeline, PARAMS, COUNTED | {"retrieve:b.txt": "FAIL(no such key)"})
    assert job.actors[0].finish.error is None
    assert "no such key" in job.actors[1].finish.error
    assert job.result == {"words": 1200}


def test_both_give_the_same_commands():
    first, second = (run(one, PARAMS, COUNTED) for one in (states.pipeline, script.pipeline))
    assert [a.commands for a in first.actors] == [a.commands for a in second.actors]
