"""The queue of actors: retries first, all in the plan's order."""

from mu.jobs.actors import Actor
from mu.jobs.queue import ActorQueue
from mu.places import FIRST, RETRY, SPARE


def queue(*order):
    actors = {number: Actor(None, number, {}, 0.0) for number in order}
    return ActorQueue(order, actors.values()), actors


def numbers(waiting, count=9):
    return [actor.number for actor in waiting.next(count)]


def test_actors_come_in_the_plans_order():
    waiting, actors = queue(2, 0, 1)
    assert numbers(waiting) == [2, 0, 1]
    assert numbers(waiting, 2) == [2, 0]
    waiting.remove(actors[2])
    waiting.remove(actors[2])
    assert (waiting.first.number, len(waiting)) == (0, 2)


def test_retries_go_before_the_others_and_keep_the_plans_order_among_themselves():
    waiting, actors = queue(*range(6))
    for number in (0, 1, 2, 3):
        waiting.remove(actors[number])
    for number in (3, 0, 2, 0):
        waiting.retry(actors[number])
    assert numbers(waiting) == [0, 2, 3, 4, 5]
    assert numbers(waiting, 2) == [0, 2]
    waiting.remove(actors[2])
    assert numbers(waiting) == [0, 3, 4, 5]


def test_the_next_worker_is_for_a_retry_an_actor_or_a_spare():
    waiting, actors = queue(0, 1)
    waiting.remove(actors[1])
    waiting.retry(actors[1])
    assert [waiting.urgency(index) for index in range(3)] == [RETRY, FIRST, SPARE]
    assert ActorQueue().urgency(0) == SPARE
