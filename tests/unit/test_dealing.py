"""Who becomes which actor."""

import pytest

from mu.pipelines.dealing import deal, first_come, is_order


def test_first_come_is_first_served():
    assert first_come(4) == [0, 1, 2, 3]


def test_the_deal_goes_round_the_groups():
    assert deal(8, 5) == [0, 5, 1, 6, 2, 7, 3, 4]


@pytest.mark.parametrize("actors", [0, 1, 5, 8, 100])
@pytest.mark.parametrize("distance", [1, 3, 8, 1000])
def test_a_deal_names_each_actor_once(actors, distance):
    assert is_order(deal(actors, distance), actors)


@pytest.mark.parametrize("order", [None, [0, 0], [0], [0, 2], (0, 1)])
def test_what_does_not_name_each_once_is_no_order(order):
    assert not is_order(order, 2)
