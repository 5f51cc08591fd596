"""What real programs and transfers used, as their workers tell; and workers that tell nothing."""

from pathlib import Path

import pytest
from stage import Daemon, free_ports_conf

from mu.functions.bundle import bundle

BURN = """\
#!/usr/bin/env python3
import sys, time
held = bytearray(150 << 20)
while time.process_time() < 0.6: pass
time.sleep(1)  # so that a sample sees it
open(sys.argv[2], "wb").write(bytes(1_000_000))
"""
FILL = """\
#!/usr/bin/env python3
import os, signal, sys, time
held = bytearray(int(sys.argv[1]) << 20)
if sys.argv[2] == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
time.sleep(30)
"""
OLD = Path(__file__).parent / "data" / "function-0.1.0.zip"


@pytest.fixture(scope="module")
def measured(tmp_path_factory, s3):
    """A daemon with functions of 256 MB, and an input of 3 MB in the bucket."""
    folder = tmp_path_factory.mktemp("used")
    programs = [folder / "burn", folder / "fill"]
    for path, text in zip(programs, (BURN, FILL), strict=True):
        path.write_text(text)
    made = bundle(folder / "f.zip", executables=programs, command="true").path
    s3.client().put_object(Bucket="films", Key="used/in/a", Body=bytes(3_000_000))
    conf = free_ports_conf(worker="hold_s = 30", jobs="retry_pause_s = 0.1")
    daemon = Daemon(folder, s3.env, conf)
    daemon.create_function("f", made, MemorySize=256)
    daemon.create_function("old", OLD, MemorySize=256)
    yield daemon
    daemon.stop()


def run(daemon, command, function="f", **order):
    params = {"bucket": "films", "prefix": "used/in/", "out_prefix": f"used/{function}/"}
    params |= {"command": command}
    given = {"pipeline": "map", "workers": 1, "function": function, "retries": 0, "params": params}
    job = daemon.wait(daemon.ask("/jobs", given | order)["id"])
    (actor,) = daemon.ask(f"/jobs/{job['id']}/workers")
    return job, actor


def test_what_a_program_and_its_transfers_used_is_told(measured):
    job, actor = run(measured, "./burn {in} {out}")
    assert job["state"] == "done", job["error"]
    used = actor["used"]
    assert 0.6 <= used["cpu_s"] < 3
    assert 150 < used["peak_mb"] < 256
    assert used["memory_mb"] == 256
    assert (used["in_bytes"], used["out_bytes"]) == (3_000_000, 1_000_000)
    assert 0 < used["transfer_s"] < used["busy_s"]
    if used["tmp_mb"] is not None:  # where sandboxes have a /tmp of their own
        assert used["tmp_mb"] >= 3.8
    assert job["used"] == used | {"init_s": job["used"]["init_s"]}
    assert job["used"]["init_s"] > 0


def test_a_worker_over_its_memory_is_killed_and_the_error_says_so(measured):
    job, actor = run(measured, "./fill 400 sleep")
    assert actor["error"] == "its worker was killed: out of memory (peak 256 of 256 MB)"
    assert (job["state"], job["used"]["peak_mb"]) == ("failed", 256)


def test_a_program_that_was_killed_near_its_functions_memory_was_out_of_memory(measured):
    job, _ = run(measured, "exec ./fill 175 kill")
    (failed,) = job["result"]["failures"]
    assert "[killed: out of memory (peak 2" in failed["tail"]
    assert failed["tail"].rstrip().endswith("of 256 MB)]")
    job, _ = run(measured, "exec ./fill 10 kill")
    (failed,) = job["result"]["failures"]
    assert "[killed (peak " in failed["tail"]


def test_of_a_function_that_was_deployed_by_an_earlier_version_it_is_unknown(measured):
    job, actor = run(measured, "cat {in} > {out}", function="old")
    assert job["state"] == "done", job["error"]
    assert set(actor["used"].values()) == set(job["used"].values()) == {None}
