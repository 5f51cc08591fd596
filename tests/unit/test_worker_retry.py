from math import inf

from mu_worker.retry import FIRST_PAUSE_S, LONGEST_PAUSE_S, STEADY_S, Retry


def pauses(retry: Retry, count: int, now: float = 0) -> list[float]:
    return [retry.lost(now) - now for _ in range(count)]


def test_the_pauses_grow_up_to_a_limit():
    retry = Retry(60, chance=lambda: 0.5)
    assert pauses(retry, 7) == [0.1, 0.2, 0.4, 0.8, 1.6, LONGEST_PAUSE_S, LONGEST_PAUSE_S]


def test_a_pause_is_from_half_to_one_and_a_half_of_itself():
    assert Retry(60, chance=lambda: 0).lost(7) == 7 + 0.5 * FIRST_PAUSE_S
    assert Retry(60, chance=lambda: 1).lost(7) == 7 + 1.5 * FIRST_PAUSE_S


def test_an_absence_lasts_from_its_first_loss_however_often_it_is_tried():
    retry = Retry(60, chance=lambda: 0.5)
    assert retry.until == inf
    retry.lost(100)
    retry.lost(130)
    assert retry.until == 160


def test_an_answer_ends_an_absence_and_the_next_one_is_counted_anew():
    retry = Retry(60, chance=lambda: 0.5)
    retry.lost(100)
    retry.found(110)
    assert retry.until == inf
    retry.lost(120)
    assert retry.until == 180


def test_the_pauses_begin_small_again_only_after_a_connection_that_held():
    retry = Retry(60, chance=lambda: 0.5)
    pauses(retry, 3)
    retry.found(0)
    assert pauses(retry, 1) == [0.8]
    retry.found(-STEADY_S)
    assert pauses(retry, 1) == [FIRST_PAUSE_S]
