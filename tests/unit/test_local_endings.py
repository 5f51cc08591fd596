"""The local engine tells that a launch has ended once none of its workers is running."""

import json
from pathlib import Path

from mu.engines.local.endings import Endings
from mu.engines.local.pool import InvocationResult

EVENT = json.dumps({"mode": 1, "launch": "one"})
OTHER = json.dumps({"mode": 1, "launch": "two"})
DONE = InvocationResult(b"{}", False, Path())


class Response:
    def __init__(self):
        self.told = []

    def write(self, data):
        self.told += [json.loads(line)["ended"] for line in data.splitlines()]


def test_a_launch_that_was_made_twice_ends_with_its_last_worker():
    endings, response = Endings(), Response()
    endings.attach(response)
    for event in (EVENT, EVENT, OTHER):
        endings.began(event)
    endings.add(EVENT, DONE)
    assert response.told == []
    endings.add(OTHER, DONE)
    endings.add(EVENT, DONE)
    assert response.told == ["two", "one"]


def test_a_daemon_that_attaches_later_hears_what_has_ended():
    endings, response = Endings(), Response()
    endings.began(EVENT)
    endings.add(EVENT, DONE)
    endings.attach(response)
    assert response.told == ["one"]


def test_payloads_that_are_no_workers_are_nobodys_end():
    endings, response = Endings(), Response()
    endings.attach(response)
    for event in ("[]", "5", "not JSON", '{"launch": 5}', "{}"):
        endings.began(event)
        endings.add(event, DONE)
    assert response.told == []
