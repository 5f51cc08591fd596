"""Places: taken, freed, learned, and shared by those who wait."""

import pytest

from mu.places import EXCUSES, FIRST, RETRY, SPARE, Places, RegionPlaces


class Waiting:
    """A launcher in memory: what it wants, by urgency, and what it took."""

    def __init__(self, places, *launches, urgency=FIRST):
        self.places, self.launches, self.urgency = places, list(launches), urgency
        self.took = []
        self.resume()

    def wanted(self):
        return self.urgency if self.launches else None

    def resume(self):
        while self.launches:
            if not self.places.take(self.launches[0], "f", 0.0):
                self.places.wait(self)
                return
            self.took.append(self.launches.pop(0))


def running(places, *launches, at=0.0, function="f"):
    """Take a place for each launch, whose worker connects at once."""
    for launch in launches:
        assert places.take(launch, function, at)
        places.connected(launch, function, at)


def test_without_a_limit_everything_has_a_place():
    places = RegionPlaces()
    assert all(places.take(f"l{n}", "f", 0.0) for n in range(5000))
    assert not places.full


def test_a_place_is_taken_until_it_is_freed_and_once_only():
    places = RegionPlaces()
    places.tell(1)
    assert places.take("a", "f", 0.0)
    assert places.take("a", "f", 0.0)
    assert not places.take("b", "f", 0.0)
    assert str(places) == "1 of 1 in use"
    places.free("a", 0.0)
    places.free("a", 0.0)
    assert places.take("b", "f", 0.0)


def test_retries_go_first_and_spares_last_and_jobs_take_turns():
    places = RegionPlaces()
    places.tell(1)
    assert places.take("busy", "f", 0.0)
    spare = Waiting(places, "s", urgency=SPARE)
    one, two = Waiting(places, "a1", "a2"), Waiting(places, "b1", "b2")
    retry = Waiting(places, "r", urgency=RETRY)
    order = []
    for _ in range(6):
        (taken,) = places._taken
        order.append(taken)
        places.free(taken, 0.0)
    assert order == ["busy", "r", "a1", "b1", "a2", "b2"]
    assert (retry.took, one.took, two.took, spare.took) == (
        ["r"],
        ["a1", "a2"],
        ["b1", "b2"],
        ["s"],
    )


def test_many_places_that_become_free_at_once_are_shared_in_turn():
    places = RegionPlaces()
    places.tell(1)
    assert places.take("busy", "f", 0.0)
    one = Waiting(places, *"abcdefgh")
    two = Waiting(places, *"ijklmnop")
    places.tell(7)
    assert (one.took, two.took) == (list("abc"), list("ijk"))


def test_a_higher_limit_lets_more_in_at_once():
    places = RegionPlaces()
    places.tell(1)
    waiting = Waiting(places, "a", "b", "c")
    assert waiting.took == ["a"]
    places.tell(3)
    assert waiting.took == ["a", "b", "c"]


def test_a_missing_worker_teaches_the_limit_only_while_others_run():
    places = RegionPlaces()
    for launch in ("a", "b", "c"):
        places.take(launch, "f", 0.0)
    assert not places.miss("c", 10.0)
    places.connected("a", "f", 0.0)
    places.connected("b", "f", 0.0)
    assert places.miss("c", 10.0)
    places.free("c", 10.0)
    assert places.limit == 2
    waiting = Waiting(places, "d")
    places.probe(60.0, 120.0)
    assert waiting.took == []
    places.probe(130.0, 120.0)
    assert (places.limit, waiting.took) == (3, ["d"])


def test_workers_that_ended_meanwhile_held_places_too():
    places = RegionPlaces()
    places.take("late", "f", 0.0)
    running(places, "a", "b", at=1.0)
    places.free("a", 100.0)
    places.free("b", 100.0)
    assert places.miss("late", 120.0)
    assert places.limit == 2


def test_a_place_that_was_free_while_the_event_was_queued_is_no_excuse():
    places = RegionPlaces()
    places.take("late", "f", 0.0)
    running(places, "a", at=1.0)
    places.free("a", 2.0)
    assert not places.miss("late", 120.0)


def test_what_ran_before_a_launch_says_nothing_about_its_chance():
    places = RegionPlaces()
    running(places, "a", at=0.0)
    places.free("a", 10.0)
    places.take("late", "f", 20.0)
    assert not places.miss("late", 140.0)
    assert places.limit is None


def test_a_function_of_which_nothing_connects_blames_the_places_only_some_times():
    places = RegionPlaces()
    running(places, *(f"good{n}" for n in range(5)))
    excused = []
    for wave in range(EXCUSES + 2):
        for launch in (f"{wave}a", f"{wave}b"):
            places.hold(launch, "broken", False, 200.0 * wave)
        excused += [places.miss(launch, 200.0 * wave + 150) for launch in (f"{wave}a", f"{wave}b")]
        for launch in (f"{wave}a", f"{wave}b"):
            places.free(launch, 200.0 * wave + 150)
    assert excused == [True, True] * EXCUSES + [False] * 4
    assert places.limit == 5


def test_a_function_whose_workers_come_may_wait_for_ever():
    places = RegionPlaces()
    for wave in range(2 * EXCUSES):
        places.hold(f"{wave}b", "f", False, 200.0 * wave)
        places.connected(f"{wave}a", "f", 200.0 * wave + 1)
        assert places.miss(f"{wave}b", 200.0 * wave + 150)
        places.free(f"{wave}b", 200.0 * wave + 150)


def learned(most):
    """Return places, unlimited in fact, that learned a limit at 120 s."""
    places = RegionPlaces()
    places.take("lost", "f", 0.0)
    running(places, *(f"l{n}" for n in range(most)))
    assert places.miss("lost", 120.0)
    places.free("lost", 120.0)
    return places


def test_a_limit_learned_too_low_is_soon_left_behind():
    places = learned(3)
    places.probe(240.0, 120.0)
    now, number = 240.0, 3
    while places.limit < 1000:
        now += 1
        while places.limit < 1000 and places.take(f"l{number}", "f", now):
            places.connected(f"l{number}", "f", now)
            number += 1
    assert now < 260


def test_workers_with_short_lives_raise_a_learned_limit_too():
    places = learned(4)
    for number in range(4):
        places.free(f"l{number}", 130.0)
    places.probe(240.0, 120.0)
    for number in range(100):
        running(places, f"m{number}", at=250.0)
        places.free(f"m{number}", 250.0)
    assert places.limit > 20


def test_a_probe_that_finds_no_place_costs_one_launch_at_a_time_and_no_retry():
    places = learned(3)
    lost, began = 0, None
    for second in range(4000):
        now = 120.0 + second
        if began is None:
            began = now if places.take(f"x{lost}", "f", now) else None
        elif now - began >= 120.0:
            assert places.miss(f"x{lost}", now)
            places.free(f"x{lost}", now)
            lost, began = lost + 1, None
        places.probe(now, 120.0)
        assert places.limit <= 4
    assert lost > 2 * EXCUSES


def test_what_the_engine_says_counts_again_once_as_many_ran():
    places = learned(2)
    places.tell(4)
    assert places.limit == 2
    places.probe(240.0, 120.0)
    running(places, "a", at=241.0)
    assert places.limit == 4
    assert str(places) == "3 of 4 in use"


def test_a_worker_that_comes_late_has_a_place_all_the_same():
    places = RegionPlaces()
    places.tell(2)
    places.take("late", "f", 0.0)
    places.free("late", 120.0)
    places.connected("late", "f", 130.0)
    places.connected("late", "f", 131.0)
    assert places.in_use == 1
    places.free("late", 140.0)
    assert places.in_use == 0


def test_what_ran_before_a_restart_keeps_its_place_even_above_the_limit():
    places = RegionPlaces()
    places.tell(1)
    places.hold("a", "f", True, 0.0)
    places.hold("b", "f", False, 0.0)
    assert (places.in_use, places.full) == (2, True)


def test_a_launch_can_move_to_other_places():
    shared, own = RegionPlaces(), RegionPlaces()
    running(shared, "a")
    shared.take("b", "f", 0.0)
    for launch in ("a", "b", "unknown"):
        shared.move(launch, own, 1.0)
    assert (shared.in_use, own.in_use) == (0, 2)
    own.take("c", "f", 1.0)
    assert own.miss("c", 2.0)
    assert own.limit == 1


def test_a_function_grows_no_faster_than_its_engine_lets_it():
    places = RegionPlaces()
    assert {places.wait_s("f", 0.0) for _ in range(5000)} == {0.0}
    places.growth = 10
    assert [places.wait_s("f", 0.0) for _ in range(10)] == [0.0] * 10
    assert places.wait_s("f", 0.0) == pytest.approx(1.0)
    assert places.wait_s("g", 0.0) == 0.0
    assert places.wait_s("f", 1.0) == 0.0
    assert places.wait_s("f", 1.0) > 0.0


def test_a_waiter_that_is_paused_does_not_hold_up_the_offer():
    class Paused(Waiting):
        def resume(self):
            self.places.wait(self)

    places = RegionPlaces()
    places.tell(1)
    places.take("busy", "f", 0.0)
    Paused(places, "a", urgency=RETRY)
    places.free("busy", 0.0)
    assert not places.full


def test_each_engine_region_and_function_with_a_reserve_has_places_of_its_own():
    places = Places()
    east = places.of("lambda", "east")
    assert places.of("lambda", "east") is east
    for other in (("lambda", "west"), ("local", "east"), ("lambda", "east", "f")):
        assert places.of(*other) is not east


def test_a_late_worker_had_no_place_if_others_run_and_no_more_places_are_reported():
    places = RegionPlaces()
    places.take("late", "f", 0)
    assert not places.none_was_free("late")
    places.take("runs", "f", 0)
    places.connected("runs", "f", 0)
    assert places.none_was_free("late")
    places.tell(10)
    assert not places.none_was_free("late")
    places.tell(1)
    assert places.none_was_free("late")


def test_a_late_worker_of_a_function_that_is_no_longer_excused_may_have_run():
    places = RegionPlaces()
    places.take("runs", "good", 0)
    places.connected("runs", "good", 0)
    for wave in range(EXCUSES + 1):
        late = f"late{wave}"
        places.hold(late, "broken", False, 100 * wave)
        at = 100 * wave + 99
        found_none = places.none_was_free(late)
        assert found_none == (wave < EXCUSES)
        assert places.miss(late, at) == found_none
        places.free(late, at)
