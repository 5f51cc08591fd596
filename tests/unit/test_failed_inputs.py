"""Which inputs failed, by reason, and who has which."""

from mu.jobs.failed_inputs import MOST_NAMED, actors_with, by_reason
from mu.pipelines.map import map_pipeline


def rows(*failed):
    return {"keys": [{"key": key, "error": why} if why else {"key": key} for key, why in failed]}


def test_inputs_of_actors_that_are_done_are_grouped_by_why_they_failed():
    results = [
        (0, rows(("a", "exit status 1"), ("b", ""))),
        (3, rows(("c", "exit status 1"), ("d", "no such key"), ("e", "exit status 1"))),
    ]
    assert by_reason(results, map_pipeline.failed_inputs) == [
        {"reason": "exit status 1", "inputs": 3, "actors": [0, 3], "names": ["a", "c", "e"]},
        {"reason": "no such key", "inputs": 1, "actors": [3], "names": ["d"]},
    ]


def test_few_are_named_of_very_many():
    results = [(actor, rows((f"k{actor}", "no"))) for actor in range(100)]
    (told,) = by_reason(results, map_pipeline.failed_inputs)
    assert told["inputs"] == 100
    assert len(told["actors"]) == len(told["names"]) == MOST_NAMED


def test_actors_are_found_by_a_part_of_their_inputs_names():
    given = [(0, {"keys": ["in/A.txt", "b"]}), (1, {"keys": ["in/c.txt"]}), (2, {"keys": []})]
    assert actors_with(given, map_pipeline.inputs, "a.TXT") == [0]
    assert actors_with(given, map_pipeline.inputs, "in/") == [0, 1]
