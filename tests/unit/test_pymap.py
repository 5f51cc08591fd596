"""pymap without a network; what a client sends for it, and what it makes of the answers."""

import hashlib
import io
import json
import os
import pickle
import sys

import pytest

from mu.blob_line import BlobLine
from mu.blobs import BlobError, Blobs
from mu.client import ClientError, ItemError
from mu.client.html import card
from mu.client.mapping import InOrder, Work
from mu.client.pickles import own_modules, pickled_items, value_of
from mu.messages import BadMessage
from mu.parameters import FieldError, Params, read_fields
from mu.pipelines import blobs as pipeline_blobs
from mu.pipelines.pymap import pymap
from mu.plugins import JobFailed, Outcome
from mu.states import JobFacts
from mu.testing import FakeWorker, run
from mu.wire import Framer, frame

CODE, MORE = "c" * 64, "d" * 64


@pytest.fixture
def blobs(tmp_path, monkeypatch):
    kept = Blobs(tmp_path / "blobs", 1000, 2500)
    monkeypatch.setattr(pipeline_blobs, "_shelf", lambda: kept)
    return kept


def params(workers=2, **given):
    return Params(read_fields(pymap.parameters, given, "params"), workers=workers)


def answered(answer):
    return {"run:cat": f"OK:RETVAL(0):OUTPUT({json.dumps(answer)}):COMMAND(cat)"}


# ---------------------------------------------------------------- the pipeline


def test_items_are_divided_among_the_workers_or_in_chunks(blobs):
    given = {"call": "math:sqrt", "items": [1, 22, 333, 4444, 55555]}
    plan = pymap.plan(params(2, **given))
    assert [(one["first"], one["items"]) for one in plan] == [(0, 3), (3, 2)]
    with blobs.open(plan[1]["blob"]) as blob:
        blob.seek(plan[1]["at"])
        assert list(Framer().feed(blob.read(plan[1]["bytes"]))) == [b"4444", b"55555"]
    chunked = pymap.plan(params(2, chunk=2, **given))
    assert [one["items"] for one in chunked] == [2, 2, 1]


def test_a_plan_reads_the_frames_of_a_blob_and_not_the_pickles(blobs):
    digest = blobs.add(frame(b"no pickle") + frame(b""))
    plan = pymap.plan(params(5, code=CODE, arguments=digest))
    assert [one["items"] for one in plan] == [1, 1]
    wrong = blobs.add(b"no frames")
    with pytest.raises(ValueError, match="no frame of an item at byte 0"):
        pymap.plan(params(code=CODE, arguments=wrong))


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({}, "call"),
        ({"call": "a:b", "items": [1], "code": CODE}, "call"),
        ({"call": "nocolon", "items": [1]}, "call"),
        ({"call": "a:b"}, "items"),
        ({"call": "a:b", "items": [1], "arguments": MORE}, "items"),
        ({"code": CODE}, "arguments"),
        ({"code": "short", "arguments": MORE}, "code"),
        ({"call": "a:b", "items": [1], "python": "2"}, "python"),
        ({"call": "a:b", "items": [1], "bucket": "no bucket"}, "bucket"),
        ({"call": "a:b", "items": [1], "prefix": "/"}, "prefix"),
    ],
)
def test_a_wrong_order_is_refused_with_the_field(given, field):
    with pytest.raises(FieldError) as refused:
        pymap.check(params(**given))
    assert refused.value.field == f"params.{field}"


def test_an_actor_fetches_its_part_runs_the_program_and_brings_the_rows(blobs):
    answer = {"failed": 1, "bytes": 40, "rows": [{"value": 2.0}, {"error": "ValueError: no"}]}
    given = {"call": "math:sqrt", "items": [4, -1], "tolerate": 1}
    job = run(pymap, given, answered(answer))
    (actor,) = job.actors
    digest = hashlib.sha256(frame(b"4") + frame(b"-1")).hexdigest()
    assert actor.commands[0] == f"get_blob:{digest}:0:29\0##TMPDIR##/pymap/items"
    assert "-m mu_worker.calls ##TMPDIR##/pymap" in actor.commands[3]
    assert actor.finish.result == {"first": 0, "items": 2, **answer}
    assert job.result["failures"] == ["item 1: ValueError: no"]


def test_large_results_go_to_the_bucket_or_become_a_blob(blobs):
    large = answered({"failed": 0, "bytes": 10**6})
    given = {"call": "a:b", "items": [1]}
    (actor,) = run(pymap, given, large).actors
    assert actor.finish.result["blob"] == "0" * 64
    (actor,) = run(pymap, given | {"bucket": "b"}, large).actors
    assert actor.finish.result["key"].endswith("/00000000.json")


def test_a_program_that_refuses_is_not_run_again(blobs):
    refused = {"run:exec": "OK:RETVAL(64):OUTPUT(wrong Python):COMMAND(x)"}
    (actor,) = run(pymap, {"call": "a:b", "items": [1]}, refused).actors
    assert actor.finish.final
    assert "wrong Python" in actor.finish.error


def test_a_job_with_more_failures_than_it_tolerates_fails_and_a_rerun_repeats_their_chunks():
    ended = [
        Outcome(None, {"first": 0, "items": 2, "failed": 0, "rows": []}, 0, {"items": 2}),
        Outcome(None, {"first": 2, "items": 2, "failed": 1, "blob": "x"}, 1, {"items": 2}),
        Outcome("lost", None, 2, {"items": 2}),
    ]
    facts = JobFacts("id", params(call="a:b", items=[1], tolerate=2))
    with pytest.raises(JobFailed, match="3 of 6 items; 1 failed: .*; 2 unknown: lost"):
        pymap.finish(facts, ended)
    assert pymap.finish(JobFacts("id", params(tolerate="50%")), ended)["unknown"] == 2
    assert pymap.rerun(params(), ended) == {1: {"items": 2}, 2: {"items": 2}}


# ---------------------------------------------------------------- blobs


def test_the_blobs_used_least_recently_make_room(blobs, tmp_path):
    first, second = blobs.add(b"a" * 900), blobs.add(b"b" * 900)
    for age, digest in ((20, second), (10, first)):
        os.utime(tmp_path / "blobs" / digest, (age, age))
    third = blobs.add(b"c" * 900)
    assert [blobs.size(one) for one in (first, second, third)] == [None, 900, 900]


def test_what_a_client_puts_is_on_disk_before_it_has_its_name(blobs, tmp_path, monkeypatch):
    digest = hashlib.sha256(b"text").hexdigest()
    seen = []
    monkeypatch.setattr(
        "os.fsync", lambda file: seen.append((os.fstat(file).st_size, blobs.size(digest)))
    )
    blobs.put(digest, io.BytesIO(b"text"))
    assert (seen, blobs.size(digest)) == ([(4, None)], 4)


def test_a_blob_is_not_larger_than_allowed_and_leaves_nothing_behind(blobs, tmp_path):
    with pytest.raises(BlobError, match=r"at most 1000 bytes \(\[blobs\] max_bytes\)"):
        blobs.put("0" * 64, io.BytesIO(bytes(1001)))
    with pytest.raises(BlobError, match="the content's SHA-256 is"):
        blobs.put("0" * 64, io.BytesIO(b"x"))
    assert list((tmp_path / "blobs").iterdir()) == []
    with pytest.raises(BlobError, match="64 hex digits, got '../token'"):
        blobs.open("../token")


def test_a_line_sends_parts_only_as_fast_as_they_are_read(blobs):
    sent, reading = [], [False]
    line = BlobLine(blobs, sent.append, lambda: reading[0])
    digest = blobs.add(b"0123456789")
    line.receive(f"BLOB:GET:{digest}:2:5".encode())
    assert sent == [frame(b"BLOB:5")]
    with pytest.raises(BadMessage, match="expected a request for a blob"):
        line.receive(b"BLOB:GET:x:0:1")
    reading[0] = True
    line.send()
    line.receive(f"BLOB:GET:{digest}:10:-".encode())
    line.receive(f"BLOB:GET:{digest}:9:2".encode())
    line.receive(f"BLOB:GET:{'0' * 64}:0:-".encode())
    assert sent[1:3] == [frame(b"23456"), frame(b"BLOB:0")]
    assert b"has 10 bytes, not 2 from 9 on" in sent[3]
    assert b"FAIL(there is no blob 000" in sent[4]


def test_a_line_takes_what_a_worker_leaves_and_goes_on_after_an_error(blobs):
    sent = []
    line = BlobLine(blobs, sent.append, lambda: True)
    digest = hashlib.sha256(b"abcd").hexdigest()
    for name in (digest, "e" * 64):
        for payload in (f"BLOB:PUT:{name}".encode(), b"ab", b"cd", b""):
            line.receive(payload)
    assert sent[0] == frame(b"BLOB:4")
    assert b"FAIL(the content's SHA-256 is " in sent[1]
    assert blobs.open(digest).read() == b"abcd"
    line.receive(f"BLOB:PUT:{'f' * 64}".encode())
    line.receive(b"half")
    line.close()
    assert blobs.size("f" * 64) is None


# ---------------------------------------------------------------- the client


def test_own_modules_are_those_that_are_neither_installed_nor_mus():
    names = {module.__name__ for module in own_modules()}
    assert __name__ in names or any("test_pymap" in name for name in names)
    assert not names & {"json", "pytest", "twisted", "mu.wire", "cloudpickle"}


def test_items_are_frames_of_pickles_of_one_argument_each():
    content, count = pickled_items(iter([1, {"a": {2}}]))
    assert count == 2
    assert [pickle.loads(one) for one in Framer().feed(content)] == [
        ((1,), {}),
        (({"a": {2}},), {}),
    ]
    with pytest.raises(ClientError, match="item 0 cannot be sent: TypeError"):
        pickled_items([sys._getframe()])


def test_the_values_of_chunks_come_in_order_and_those_of_a_lost_actor_are_errors():
    work = Work.of(abs, range(5), workers=2, chunk=0, tries=1, bucket="", return_exceptions=True)
    assert (work.chunk, work.workers) == (3, 2)
    order = InOrder(ordered=True)
    row = {"value": "gARLBy4="}  # a pickle of 7
    late = {"actor": 1, "state": "done", "error": None}
    assert list(order.add(work.values(late, [row, row]))) == []
    lost = {"actor": 0, "state": "failed", "error": "no memory"}
    values = list(order.add(work.values(lost, [])))
    assert [str(one) for one in values[:3]] == [f"item {n}: no memory" for n in range(3)]
    assert (values[3:], order.count) == ([7, 7], 5)


def test_an_exception_whose_class_is_not_here_becomes_an_item_error():
    row = {"error": "Odd: x", "trace": "  File ...", "raised": "Y25vd2hlcmUKT2RkCi4="}
    with pytest.raises(ItemError, match="item 4: Odd: x") as raised:
        value_of(row, 4)
    assert "cannot be loaded" in raised.value.__notes__[0]


def test_the_html_of_a_job_escapes_everything():
    evil = "<script>alert(1)</script>"
    job = {"id": evil, "pipeline": evil, "state": evil, "error": evil, "counts": {}, "workers": 1}
    assert "<script" not in card(job, f'http://x/#"{evil}')


def test_a_worker_of_an_earlier_version_is_not_asked_twice():
    assert not pymap.may_mend("FAIL(no such command 'get_blob:...')")
    assert pymap.may_mend("FAIL(connection reset)")
    assert FakeWorker().answer("get_blob:x\0y") == ["OK:GET_BLOB(0)"]
