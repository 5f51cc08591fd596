"""The simulation of many workers: queues, windows and places; and docs/scale.md shows what it says."""

from dataclasses import replace
from pathlib import Path

import pytest
from scale import Costs, Load, Simulation, capacity_table, rehearse, scenarios, simulate, table

PAGE = Path(__file__).parents[2] / "docs" / "scale.md"
COSTS = Costs.read()


def test_the_page_has_the_tables_of_the_simulation():
    page = PAGE.read_text()
    rows = {name: simulate(COSTS, load) for name, load in scenarios(1000).items()}
    assert table(rows) in page, "from python bench/scale.py --workers 1000"
    assert capacity_table(COSTS) in page, "from python bench/scale.py"
    for name in scenarios(1000):
        assert page.count(f"| {name} |") == 2, "and the table of 100,000 workers"


def test_every_cost_says_where_it_is_from():
    told = Costs.rows()
    assert all(row["from"] for row in told.values())


def run(**load):
    simulation = Simulation(COSTS, Load(**load))
    simulation.run()
    return simulation


def test_no_region_runs_more_workers_than_it_has_places():
    crowded = run(workers=300, regions=2, places=50, work_s=10)
    assert crowded.most_connected <= 100
    assert crowded.done_s > 3 * 10 * 0.5  # three waves


def test_a_function_starts_no_more_than_its_growth_in_ten_seconds():
    slow = run(workers=250, regions=1, functions=1, growth=100)
    assert slow.launched_s == pytest.approx(20, abs=1)
    assert run(workers=250, regions=1, functions=3, growth=100).launched_s < 5


def test_the_daemons_core_delays_hellos_and_haproxy_takes_most_of_that_away():
    alone = run(workers=2000)
    fronted = run(workers=2000, haproxies=2)
    assert fronted.daemon.busy_s < alone.daemon.busy_s
    assert max(fronted.hello_s) < max(alone.hello_s)


def test_the_work_of_a_core_is_what_the_costs_say():
    told = rehearse(COSTS, workers=50, rounds=4)
    each_ms = COSTS.accept_ms + COSTS.hello_ms + 4 * COSTS.command_us / 1e3
    assert told["cpu_s"] == pytest.approx(50 * each_ms / 1e3)


def test_with_the_same_seed_a_run_is_the_same():
    load = Load(workers=100)
    assert simulate(COSTS, load) == simulate(COSTS, load)
    assert simulate(replace(COSTS, start_s=5), load)["done_s"] > simulate(COSTS, load)["done_s"]
