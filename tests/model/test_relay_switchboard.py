"""The relay's rules under random schedules with faults."""

import pytest
from kit.model.relay_world import RelayWorld

SEEDS = [range(100), pytest.param(range(100, 1000), marks=pytest.mark.soak, id="soak")]
PAIR = {1: (2, True, 4), 2: (1, True, 3)}
CHAIN = {1: (2, True, 3), 2: (3, True, 3), 3: (4, True, 3), 4: (1, True, 0)}
MERGED = {1: (2, True, 3), 3: (2, True, 3), 2: (9, True, 0)}


def everything(world, number):
    return {
        (sender, n)
        for sender, (partner, _, frames) in world.plan.items()
        if partner == number
        for n in range(1, frames + 1)
    }


@pytest.mark.parametrize("plan", [PAIR, CHAIN, MERGED], ids=["pair", "chain", "merged"])
@pytest.mark.parametrize("seeds", SEEDS)
def test_extended_peers_lose_nothing_whatever_happens(plan, seeds):
    for seed in seeds:
        world = RelayWorld(seed, plan)
        try:
            world.run(10 + seed % 240)
            world.settle()
            for number, attempts in world.workers.items():
                newest = attempts[-1]
                assert newest.acked == newest.frames, f"{newest} knows of {newest.acked}"
                assert set(newest.received) == everything(world, number), f"R3 {newest}"
                for one in attempts:  # each attempt gets the same frames in the same order
                    assert newest.received[: len(one.received)] == one.received
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error}") from error


PLAIN = {1: (2, False, 6), 2: (1, False, 6)}
TO_PLAIN = {1: (2, True, 5), 2: (9, False, 0)}
FROM_PLAIN = {1: (2, False, 5), 2: (9, True, 0)}
SEVERAL = {1: (2, False, 5), 3: (2, False, 5), 4: (2, True, 4), 2: (1, False, 4)}
MIXED = {"plain": PLAIN, "to-plain": TO_PLAIN, "from-plain": FROM_PLAIN, "several": SEVERAL}


@pytest.mark.parametrize("plan", MIXED.values(), ids=MIXED)
@pytest.mark.parametrize("memory", [2**20, 2**26])
@pytest.mark.parametrize("seeds", SEEDS)
def test_original_peers_get_all_in_order_but_what_a_broken_connection_had(plan, memory, seeds):
    for seed in seeds:
        world = RelayWorld(seed, plan, memory=memory)
        try:
            world.run(10 + seed % 240)
            world.settle()
            for number, attempts in world.workers.items():
                had = {label for worker in attempts for label in worker.received}
                assert everything(world, number) - world.lost <= had
                if not attempts[-1].extended:
                    continue
                acked = attempts[-1].acked
                assert acked == attempts[-1].made
            assert world.most_memory <= memory * 2
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error}") from error


@pytest.mark.parametrize("plan", MIXED.values(), ids=MIXED)
def test_without_faults_original_peers_get_everything_once_in_order(plan):
    for seed in range(30):
        world = RelayWorld(seed, plan)
        world.run(10_000, faults=False)
        for number, attempts in world.workers.items():
            assert len(attempts[0].received) == len(everything(world, number)), f"seed {seed}"
            assert set(attempts[0].received) == everything(world, number)
        assert world.board.mailboxes.memory == 0
        assert (world.board.mailboxes.total == 0) == (plan is not FROM_PLAIN)
