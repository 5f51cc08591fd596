"""AWS's limits are those of botocore's model of Lambda, where it has them."""

import pytest
from botocore.session import Session

from mu.aws import limits


@pytest.fixture(scope="module")
def model():
    return Session().get_service_model("lambda")


@pytest.fixture(scope="module")
def settings(model):
    """The members of CreateFunction."""
    return model.operation_model("CreateFunction").input_shape.members


def test_the_timeout_is_the_one_of_the_model(settings):
    assert limits.TIMEOUT.least == settings["Timeout"].metadata["min"]
    said = settings["Timeout"].documentation
    assert f"maximum allowed value is {limits.TIMEOUT.most:,} seconds" in said
    assert f"{settings['Timeout'].metadata['max']:,}" in limits.TIMEOUT.note


def test_the_sizes_are_those_of_the_model(settings):
    assert limits.MEMORY.least == settings["MemorySize"].metadata["min"]
    said = settings["EphemeralStorage"].documentation
    assert f"between {limits.TMP.least} and {limits.TMP.most:,} MB" in said


@pytest.mark.parametrize(
    ("limit", "shape"),
    [
        (limits.RETRIES, "MaximumRetryAttempts"),
        (limits.EVENT_AGE, "MaximumEventAgeInSeconds"),
    ],
)
def test_the_limits_of_events_are_those_of_the_model(model, limit, shape):
    assert model.shape_for(shape).metadata == {"min": limit.least, "max": limit.most}


def test_aws_lists_the_runtimes(model):
    listed = model.shape_for("Runtime").enum
    assert {*limits.RUNTIMES, *limits.NEWER} <= {*listed}
    newest = [name for name in listed if name.startswith("python3.") and len(name) == 10]
    assert sorted(newest)[-1] in (*limits.RUNTIMES, *limits.NEWER)


def test_more_than_a_limit_is_a_warning():
    assert limits.TIMEOUT.exceeded(1800) is None
    assert limits.TIMEOUT.exceeded(1801) == (
        "timeout 1,801 s is more than the 1,800 s that AWS allowed in November 2026; AWS decides"
    )
