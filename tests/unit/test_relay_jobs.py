"""The relay and jobs: its address, and whose frames it keeps."""

import json
import math

import pytest
from kit.parts import make_job

from mu.jobs.book import JobBook, PastJob
from mu.jobs.relayed import RelayJobs
from mu.jobs.worker_event import worker_event
from mu.journal.records import Ordered, read_record, write_record
from mu.net.certificates import Identity
from mu.states import MachineState


@pytest.mark.parametrize(
    ("switch", "kept"),
    [
        ({}, 0.0),
        ({"relay_keep": 1}, math.inf),
        ({"relay_keep": 0}, 0.0),
        ({"relay_keep": "0"}, 0.0),
    ],
)
def test_a_jobs_event_says_whether_its_frames_are_kept(switch, kept):
    book = JobBook()
    job = make_job(MachineState, event=switch)
    book.add(job)
    jobs = RelayJobs(book)
    assert (jobs.keeps("j1"), jobs.ended("j1")) == (kept, False)
    job.stop("cancelled", "enough")
    job.end("cancelled")
    assert (jobs.keeps("j1"), jobs.ended("j1")) == (0.0, True)


def test_a_pipeline_may_say_so_for_its_jobs():
    book = JobBook()
    job = make_job(MachineState)
    job.spec.pipeline.relay_keep = True
    book.add(job)
    assert RelayJobs(book).keeps("j1") == math.inf
    off = make_job(MachineState, job_id="j2", event={"relay_keep": 0})
    off.spec.pipeline.relay_keep = True
    book.add(off)
    assert RelayJobs(book).keeps("j2") == 0.0


def test_jobs_that_are_not_known_or_past_are_not_kept():
    book = JobBook()
    told = {"id": "old", "pipeline": "hello", "workers": 1, "state": "done", "created": 1.0}
    book.add(PastJob(json.dumps(told), "{}", lambda _: "[]"))
    jobs = RelayJobs(book)
    assert (jobs.keeps("old"), jobs.ended("old")) == (0.0, True)
    assert (jobs.keeps("who"), jobs.ended("who")) == (0.0, False)


def test_pipelines_and_workers_are_told_of_the_relay():
    job = make_job(MachineState)
    assert job.facts.relay == ""
    job.relay = "relay.example:1"
    assert job.facts.relay == "relay.example:1"
    event = worker_event(job, Identity("c", "k"), "ca", "h", 1, 60.0)
    assert event["relay_ext"] == 1


def test_the_relays_address_is_recorded_with_the_order():
    ordered = Ordered(1.0, "u", {}, "", "d", "relay.example:1")
    assert read_record(write_record(ordered)) == ordered
    assert read_record('["ordered",1.0,"u",{},"","d"]').relay == ""
