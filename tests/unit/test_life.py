"""The table of a job's life."""

import pytest

from mu.jobs.life import ACTIVE, OVER, SHOWN, TRANSITIONS, JobState, Step, follow

STEPS = [
    (state, step, after) for state, steps in TRANSITIONS.items() for step, after in steps.items()
]


def reachable(state):
    """Return the state and all that may follow it."""
    found, left = {state}, [state]
    while left:
        after = set(TRANSITIONS[left.pop()].values()) - found
        found |= after
        left += after
    return found


def test_each_state_and_each_step_has_its_place():
    assert TRANSITIONS.keys() == set(JobState)
    assert {step for _, step, _ in STEPS} == set(Step)
    assert reachable(JobState.ORDERED) == set(JobState)


@pytest.mark.parametrize("state", JobState)
def test_every_job_can_end_in_each_way_until_it_has(state):
    assert reachable(state) >= OVER if state not in OVER else not TRANSITIONS[state]


@pytest.mark.parametrize("state", [one for one in JobState if one in ACTIVE])
def test_a_job_that_is_active_can_be_stopped_and_does_not_become_active_again(state):
    stopping = follow(state, Step.STOPPED)
    assert not reachable(stopping) & ACTIVE


@pytest.mark.parametrize(("state", "step", "after"), STEPS)
def test_no_state_comes_again(state, step, after):
    assert follow(state, step) is after
    assert state not in reachable(after)


@pytest.mark.parametrize(("state", "step", "after"), STEPS)
def test_what_users_see_goes_only_from_launching_to_running_to_the_end(state, step, after):
    order = ["launching", "running", "done"]
    seen = [SHOWN.get(one, "") for one in (state, after)]
    ranks = [order.index(one if one in order else "done") for one in seen if one]
    assert ranks == sorted(ranks)


@pytest.mark.parametrize("state", JobState)
def test_a_step_that_the_table_lacks_is_refused_with_a_sentence(state):
    for step in set(Step) - TRANSITIONS[state].keys():
        with pytest.raises(ValueError, match=f"{state.value}.*{step.name}"):
            follow(state, step)
