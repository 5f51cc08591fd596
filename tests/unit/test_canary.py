"""Which launches go ahead before any worker of a function has connected."""

from mu.jobs.canary import Canary

IDS = [f"l{number}" for number in range(30)]


def holding(steps=(1, 8), launches=IDS, regions=("east",)):
    canary = Canary(steps, regions)
    return canary, canary.admit("east", launches)


def after(canary, late, placeless=()):
    """Return what goes ahead once these are late."""
    canary.miss("east", late, placeless)
    return canary.release("east")


def test_one_goes_ahead_and_all_others_follow_once_it_connects():
    canary, ahead = holding()
    assert (ahead, canary.waits) == (["l0"], True)
    assert canary.prove("east") == IDS[1:]
    assert (canary.waits, list(canary.unproven)) == (False, [])
    assert canary.admit("east", ["more"]) == ["more"]


def test_if_it_does_not_connect_eight_follow_and_then_all():
    canary, ahead = holding()
    assert after(canary, ahead) == IDS[1:9]
    assert after(canary, IDS[1:8]) == []  # one may still connect
    assert canary.failed("east") == 8
    assert after(canary, IDS[8:9]) == IDS[9:]
    assert canary.failed("east") == 9


def test_one_that_found_no_place_says_nothing_and_another_goes_instead():
    canary, _ = holding()
    assert after(canary, ["l0"], ["l0"]) == ["l1"]
    assert canary.failed("east") == 0


def test_a_launch_counts_once_however_often_it_is_called_late():
    canary, _ = holding()
    assert len(after(canary, ["l0"])) == 8
    assert after(canary, ["l0"]) == []
    assert canary.failed("east") == 1


def test_more_launches_wait_behind_those_that_are_held_back():
    canary, _ = holding()
    assert canary.admit("east", ["more"]) == []
    assert canary.prove("east") == [*IDS[1:], "more"]


def test_a_region_that_is_known_launches_all_and_each_other_has_a_canary_of_its_own():
    canary = Canary((1,), ("west", "north"))
    assert canary.admit("east", ["a", "b"]) == ["a", "b"]
    assert canary.admit("west", ["c", "d"]) == ["c"]
    assert canary.admit("north", ["e", "f"]) == ["e"]
    assert canary.prove("west") == ["d"]
    assert canary.waits


def test_without_steps_nothing_is_held_back():
    canary, ahead = holding(steps=())
    assert (ahead, canary.waits, list(canary.unproven)) == (IDS, False, [])
