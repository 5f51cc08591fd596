"""Places: taken, freed, learned, and shared by those who wait."""

import pytest

from mu.places import FIRST, RETRY, SPARE, Places, RegionPlaces


class Waiting:
    """A launcher in memory: what it wants, by urgency, and what it took."""

    def __init__(self, places, *launches, urgency=FIRST):
        self.places, self.launches, self.urgency = places, list(launches), urgency
        self.took = []
        self.resume("r")

    def wanted(self, region):
        return self.urgency if self.launches else None

    def resume(self, region):
        while self.launches:
            if not self.places.take(self.launches[0]):
                self.places.wait(self)
                return
            self.took.append(self.launches.pop(0))


def test_without_a_limit_everything_has_a_place():
    places = RegionPlaces("r")
    assert all(places.take(f"l{n}") for n in range(5000))
    assert not places.full


def test_a_place_is_taken_until_it_is_freed_and_once_only():
    places = RegionPlaces("r")
    places.tell(1)
    assert places.take("a")
    assert places.take("a")
    assert not places.take("b")
    assert str(places) == "1 of 1 in use"
    places.free("a")
    places.free("a")
    assert places.take("b")


def test_retries_go_first_and_spares_last_and_jobs_take_turns():
    places = RegionPlaces("r")
    places.tell(1)
    assert places.take("busy")
    spare = Waiting(places, "s", urgency=SPARE)
    one, two = Waiting(places, "a1", "a2"), Waiting(places, "b1", "b2")
    retry = Waiting(places, "r", urgency=RETRY)
    order = []
    for _ in range(6):
        (taken,) = places._taken
        order.append(taken)
        places.free(taken)
    assert order == ["busy", "r", "a1", "b1", "a2", "b2"]
    assert (retry.took, one.took, two.took, spare.took) == (
        ["r"],
        ["a1", "a2"],
        ["b1", "b2"],
        ["s"],
    )


def test_a_higher_limit_lets_more_in_at_once():
    places = RegionPlaces("r")
    places.tell(1)
    waiting = Waiting(places, "a", "b", "c")
    assert waiting.took == ["a"]
    places.tell(3)
    assert waiting.took == ["a", "b", "c"]


def test_a_missing_worker_teaches_the_limit_only_while_others_run():
    places = RegionPlaces("r")
    for launch in ("a", "b", "c"):
        places.take(launch)
    assert not places.miss("c", 10.0)
    places.connected("a")
    places.connected("b")
    assert places.miss("c", 10.0)
    places.free("c")
    assert places.limit == 2
    waiting = Waiting(places, "d")
    places.probe(60.0, 120.0)
    assert waiting.took == []
    places.probe(130.0, 120.0)
    assert (places.limit, waiting.took) == (3, ["d"])


def test_what_ran_before_a_restart_keeps_its_place_even_above_the_limit():
    places = RegionPlaces("r")
    places.tell(1)
    places.hold("a", connected=True)
    places.hold("b", connected=False)
    assert (places.in_use, places.full) == (2, True)


def test_a_function_grows_no_faster_than_its_engine_lets_it():
    places = RegionPlaces("r")
    assert {places.wait_s("f", 0.0) for _ in range(5000)} == {0.0}
    places.growth = 10
    assert [places.wait_s("f", 0.0) for _ in range(10)] == [0.0] * 10
    assert places.wait_s("f", 0.0) == pytest.approx(1.0)
    assert places.wait_s("g", 0.0) == 0.0
    assert places.wait_s("f", 1.0) == 0.0
    assert places.wait_s("f", 1.0) > 0.0


def test_a_waiter_that_is_paused_does_not_hold_up_the_offer():
    class Paused(Waiting):
        def resume(self, region):
            self.places.wait(self)

    places = RegionPlaces("r")
    places.tell(1)
    places.take("busy")
    Paused(places, "a", urgency=RETRY)
    places.free("busy")
    assert not places.full


def test_each_engine_and_region_has_places_of_its_own():
    places = Places()
    assert places.of("lambda", "east") is places.of("lambda", "east")
    assert places.of("lambda", "east") is not places.of("lambda", "west")
    assert places.of("lambda", "east") is not places.of("local", "east")


def test_a_late_worker_had_no_place_if_others_run_and_no_more_places_are_reported():
    places = RegionPlaces("r")
    places.take("late")
    assert not places.none_was_free()
    places.take("runs")
    places.connected("runs")
    assert places.none_was_free()
    places.tell(10)
    assert not places.none_was_free()
    places.tell(1)
    assert places.none_was_free()
