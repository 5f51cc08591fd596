"""Many bad days, for `make soak`: 200 schedules, some 25 minutes on two cores."""

import pytest
from kit.survival import Stage, survive

pytestmark = pytest.mark.soak


@pytest.fixture(scope="module")
def stage(tmp_path_factory, s3, joiner):
    stage = Stage(tmp_path_factory.mktemp("days"), s3, joiner, hold_s=1.5)
    yield stage
    stage.close()


@pytest.mark.parametrize("seed", range(1000, 1200))
def test_twenty_workers_survive_a_bad_day(stage, seed):
    survive(stage, seed, workers=20, life_s=2)
