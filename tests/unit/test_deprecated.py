"""Old import paths still work."""

import importlib

import pytest

import mu.dealing
import mu.machine
import mu.states
from mu.pipelines import dealing
from mu.states import context


@pytest.mark.parametrize(
    ("module", "name", "new"),
    [
        (mu.dealing, "deal", dealing.deal),
        (mu.dealing, "first_come", dealing.first_come),
        (mu.machine, "Runaway", context.Runaway),
        (mu.machine, "JobFacts", context.JobFacts),
        (mu.machine, "Worker", context.Context),
        (mu.states, "Worker", context.Context),
    ],
)
def test_an_old_name_is_the_new_one_with_a_warning_that_says_where_it_is(module, name, new):
    with pytest.deprecated_call(
        match=rf"{module.__name__}.{name} is deprecated: import \w+ from mu"
    ):
        assert getattr(module, name) is new


def test_a_name_that_never_was_is_an_error():
    with pytest.raises(AttributeError, match="module 'mu.dealing' has no attribute 'nothing'"):
        importlib.import_module("mu.dealing").nothing  # noqa: B018
