"""map: without a network, then on real workers with keys that hold whatever a key may hold."""

import json
import urllib.error
from zipfile import ZipFile

import pytest
from stage import S3Server

from mu.aws.s3 import EMBEDDED_BUCKET
from mu.events import Entered, Finish, Send
from mu.functions.bundle import bundle
from mu.journal.archive import Archive
from mu.journal.records import Happened, read_record, write_event
from mu.journal.replay import replay
from mu.machine import Machine
from mu.parameters import FieldError, Params, read_fields
from mu.pipelines import s3 as mu_s3
from mu.pipelines.map import map_pipeline
from mu.plugins import JobFailed, Outcome
from mu.states.context import JobFacts
from mu.states.script import ScriptWorker, first_state
from mu.testing import FakeWorker, play, run, talk

KEYS = ["in/a.txt", "in/b.txt", "in/c.txt", "in/d.txt", "in/e.txt"]


def params(workers=2, **given):
    defaults = {"bucket": "b", "command": "sort {in} > {out}", "keys": KEYS, "out_prefix": "out/"}
    return Params(read_fields(map_pipeline.parameters, defaults | given, "params"), workers=workers)


class FakeBucket:
    """Stands for mu.pipelines.s3, with a bucket that has these keys."""

    def __init__(self, keys):
        self.keys = keys
        self.written = {}
        self.times = {}

    def keys_below(self, bucket, prefix):
        return (key for key in sorted(self.keys) if key.startswith(prefix))

    def objects_below(self, bucket, prefix):
        for key in self.keys_below(bucket, prefix):
            yield mu_s3.S3Object(key, len(key), self.times.get(key, 0))

    def put(self, bucket, key, body, content_type):
        self.written[key] = json.loads(body)


@pytest.fixture
def bucket(monkeypatch):
    fake = FakeBucket(["in/", "in/a.txt", "in/b.TXT", "in/deep/a.txt", "in/out/a.txt", "other"])
    monkeypatch.setattr(mu_s3, "keys_below", fake.keys_below)
    monkeypatch.setattr(mu_s3, "objects_below", fake.objects_below)
    monkeypatch.setattr(mu_s3, "put", fake.put)
    return fake


# ---------------------------------------------------------------- the plan


def dealt(**given):
    return [given["keys"] for given in map_pipeline.plan(params(**given))]


def test_keys_are_dealt_evenly_to_the_workers():
    assert dealt(workers=2) == [KEYS[0::2], KEYS[1::2]]
    assert dealt(workers=5) == [[key] for key in KEYS]


def test_no_worker_comes_for_nothing():
    assert len(dealt(workers=100)) == 5


def test_per_worker_says_how_many_workers_it_takes():
    assert dealt(workers=1, per_worker=2) == [KEYS[0::3], KEYS[1::3], KEYS[2::3]]


def test_a_prefix_is_listed_without_folders_earlier_outputs_and_the_manifest(bucket):
    assert dealt(workers=1, keys=[], prefix="in/", out_prefix="in/out/") == [
        ["in/a.txt", "in/b.TXT", "in/deep/a.txt"]
    ]
    bucket.keys.append("in/manifest.json")
    found = dealt(workers=1, keys=[], prefix="in/", out_prefix="in/", match="*", suffix="{ext}~")
    assert found == [["in/a.txt", "in/b.TXT", "in/deep/a.txt", "in/out/a.txt"]]


def test_match_picks_keys_by_their_last_part(bucket):
    assert dealt(workers=1, keys=[], prefix="in/", match="a.*", out_prefix="o/") == [
        ["in/a.txt", "in/deep/a.txt", "in/out/a.txt"]
    ]


def test_outputs_that_are_there_and_not_older_are_skipped_but_stay_in_the_manifest(bucket):
    bucket.keys += ["out/a.txt", "out/b.TXT"]
    bucket.times = {"in/a.txt": 5, "out/a.txt": 5, "in/b.TXT": 5, "out/b.TXT": 4}
    given = {"keys": [], "prefix": "in/", "out_prefix": "out/", "skip_existing": True}
    (actor,) = map_pipeline.plan(params(1, **given))
    assert actor["keys"] == ["in/b.TXT", "in/deep/a.txt", "in/out/a.txt"]
    row = {"key": "in/a.txt", "skipped": True, "bytes": 9, "out_key": "out/a.txt"}
    assert actor["skipped"] == [row]
    lost = Outcome("its worker is gone", None, 0, actor)
    with pytest.raises(JobFailed, match="^1 of 4 keys; 3 unknown"):
        map_pipeline.finish(JobFacts("j1", params()), [lost])
    assert bucket.written["out/manifest.json"]["keys"] == [row]
    assert map_pipeline.rerun(params(), [lost]) == {0: actor}
    done = Outcome(None, {"keys": [{"key": key} for key in actor["keys"]]}, 0, actor)
    result = map_pipeline.finish(JobFacts("j1", params()), [done])
    assert (result["done"], result["skipped"]) == (4, 1)


def test_where_everything_is_up_to_date_one_actor_says_so(bucket):
    bucket.keys += ["out/other"]
    given = {"keys": ["other"], "skip_existing": True}
    (actor,) = map_pipeline.plan(params(9, **given))
    assert (actor["keys"], len(actor["skipped"])) == ([], 1)


def test_where_there_is_nothing_the_plan_says_where_it_looked(bucket):
    with pytest.raises(ValueError, match=r"no key below s3://b/in/ that matches \*.png"):
        map_pipeline.plan(params(keys=[], prefix="in/", match="*.png"))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"keys": ["a/x.png", "a/x.jpg"], "suffix": ".gif"}, "would both be 'out/a/x.gif'"),
        ({"keys": ["out/x", "x"], "suffix": ""}, "overwrite the input 'out/x'"),
        ({"keys": ["x"], "out_prefix": ""}, "overwrite the input 'x'"),
        ({"keys": ["manifest.json"]}, "the manifest would overwrite"),
        ({"keys": ["x", "y", "x"]}, "'x' more than once"),
    ],
)
def test_outputs_that_would_be_written_over_something_are_refused(given, says):
    with pytest.raises(ValueError, match=says):
        map_pipeline.plan(params(**given))


@pytest.mark.parametrize(
    ("field", "given", "says"),
    [
        (
            "command",
            {"command": "cp {in} {outt}"},
            r"unknown placeholder \{outt\}; the placeholders are \{in\}, \{out\}",
        ),
        ("command", {"command": "echo '{key}'"}, "single quotes"),
        ("command", {"command": ""}, "must not be empty"),
        ("command", {"command": "a\0b"}, "must not contain a NUL"),
        (
            "suffix",
            {"suffix": "{stem}.png"},
            r"unknown placeholder \{stem\}; the placeholders are \{ext\}",
        ),
        ("bucket", {"bucket": ""}, "must not be empty"),
        ("command", {"command": "#" * 131_000}, "at most 131071 bytes"),
        ("command", {"keys": ["k" * 900], "command": "#" * 130_300 + "{key}"}, "bytes; Linux"),
        ("keys", {"keys": ["ü" * 513]}, "at most 1024 bytes, got 1026"),
        ("prefix", {"keys": [], "prefix": "p" * 1025}, "at most 1024 bytes"),
        ("out_prefix", {"out_prefix": "p" * 1024}, "at most 1024 bytes"),
        ("out_prefix", {"out_prefix": "/out/"}, "must not begin with a slash"),
        ("out_prefix", {"out_prefix": "a/../b/"}, "must not contain '.' or '..' as a folder"),
        ("manifest", {"manifest": "../m.json"}, "must not contain '.' or '..' as a folder"),
        ("suffix", {"suffix": ".\x1b"}, "must not contain control characters"),
        ("keys", {"keys": ["a", 5]}, "must contain only strings, got 5"),
        ("keys[0]", {"keys": ["\ud800"]}, r"keys\[0\] must be valid Unicode"),
        ("keys[0]", {"keys": ["a\0b"]}, "NUL"),
        ("keys", {"keys": [""]}, "empty key"),
        ("prefix", {"keys": []}, "give params.prefix or params.keys"),
        ("match", {"match": "*"}, "not to params.keys"),
        ("out_prefix", {"keys": [], "prefix": "a/", "out_prefix": "a/"}, "a second run"),
        ("on_error", {"on_error": "ignore"}, "keep or fail, got 'ignore'"),
        ("skip_existing", {"skip_existing": True, "command": "x"}, "needs {out} in"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_field(field, given, says):
    for refuse in (map_pipeline.check, map_pipeline.plan):
        with pytest.raises(FieldError, match=says) as refused:
            refuse(params(**given))
        assert refused.value.field == f"params.{field}"


def test_a_key_from_the_bucket_that_makes_the_command_too_long_is_refused_by_the_plan(bucket):
    bucket.keys.append("in/" + "'" * 1000)
    given = {"keys": [], "prefix": "in/", "command": "#" * 129_000 + "{key}{stem}{name}"}
    map_pipeline.check(params(**given))
    with pytest.raises(FieldError, match="with the key \"in/''.* it has 14.* bytes; Linux passes"):
        map_pipeline.plan(params(**given))


@pytest.mark.parametrize(
    ("given", "refused"),
    [
        ({"keys": ["a.x", "a/b.x"], "suffix": "", "out_prefix": "o/"}, "'o/a/b'"),
        ({"keys": ["a.x"], "out_prefix": "a.x/"}, "'a.x/a.x'"),
        ({"keys": ["c/d"], "out_prefix": "o/"}, "'o/c/d'"),  # o/c is there
        ({"keys": ["manifest.json/a"], "out_prefix": "o/"}, "'o/manifest.json/a'"),
    ],
)
def test_outputs_that_cannot_be_files_are_refused_for_the_embedded_server(bucket, given, refused):
    given = {"command": "cp {in} {out}", **given}
    map_pipeline.plan(params(bucket="films", **given))
    bucket.keys = ["o/c", *given["keys"]]
    with pytest.raises(ValueError, match=f"the embedded S3 server cannot hold {refused}: "):
        map_pipeline.plan(params(bucket=EMBEDDED_BUCKET, **given))


# ---------------------------------------------------------------- an actor


def commands(key, actor=0, **given):
    given = params(keys=[key], **given)
    answers = ["OK:HELLO", "OK:RETRIEVE(b/k)", "OK:RETVAL(0):OUTPUT():COMMAND(x)"]
    answers += ["OK:RETVAL(0):OUTPUT(12\n):COMMAND(wc)", "OK:UPLOAD(b/k)"]
    effects = talk(map_pipeline.begin, *answers, params=given, actor=actor, given={"keys": [key]})
    return [effect.command for effect in effects if isinstance(effect, Send)]


def test_a_key_is_retrieved_worked_on_measured_and_uploaded():
    assert commands("in/a b.txt", prefix="in/") == [
        "retrieve:in/a b.txt\0##TMPDIR##/0/in.txt",
        "run:mkdir -p ##TMPDIR##/0\nsort ##TMPDIR##/0/in.txt > ##TMPDIR##/0/out.txt",
        "run:rm -f ##TMPDIR##/0/in.txt; wc -c < ##TMPDIR##/0/out.txt",
        "upload:out/a b.txt\0##TMPDIR##/0/out.txt",
    ]


@pytest.mark.parametrize(
    ("key", "given", "out_key", "file"),
    [
        ("in/a.png", {"prefix": "in/"}, "out/a.png", "out.png"),
        ("in/deep/a.png", {"prefix": "in/"}, "out/deep/a.png", "out.png"),
        ("in/a.png", {"prefix": "in/a"}, "out/a.png", "out.png"),
        ("in/a.png", {}, "out/in/a.png", "out.png"),
        ("a.png", {"suffix": ".tar.gz"}, "out/a.tar.gz", "out.tar.gz"),
        ("a.png", {"suffix": " small{ext}"}, "out/a small.png", "out.png"),
        ("a.p ng", {}, "out/a.p ng", "out"),
        ("a.b/c", {}, "out/a.b/c", "out"),
        (".hidden", {}, "out/.hidden", "out"),
        ("a.$(x)", {}, "out/a.$(x)", "out"),
    ],
)
def test_outputs_have_the_name_of_their_input_below_the_prefix(key, given, out_key, file):
    assert commands(key, **given)[-1] == f"upload:{out_key}\0##TMPDIR##/0/{file}"


def test_the_parts_of_a_key_reach_the_command_as_variables():
    (_, ran, *_) = commands(
        "in/it's.txt", 3, prefix="in/", command='x {in} {name} "{stem}" {ext} {key} {actor}'
    )
    assert ran.partition("\n")[2] == (
        "mu_ext=.txt\nmu_key='in/it'\"'\"'s.txt'\nmu_name='it'\"'\"'s.txt'\nmu_stem='it'\"'\"'s'\n"
        'x ##TMPDIR##/0/in.txt "$mu_name" "${mu_stem}" "$mu_ext" "$mu_key" 3'
    )


def test_a_command_without_in_retrieves_nothing_and_one_without_out_uploads_nothing():
    assert [c.partition(":")[0] for c in commands("k", command="curl {key}")] == ["run"]


OK = "OK:RETVAL(0):OUTPUT():COMMAND()"


@pytest.fixture(params=[True, False], ids=["overlapping", "one after the other"])
def told(request, bucket):
    """Play a job with one actor; return its Finish, the job's result and the manifest."""

    def play(answers, **given):
        asked = {"bucket": "b", "command": "sort {in} > {out}", "out_prefix": "out/", **given}
        answers = {"run:rm -f ": "OK:RETVAL(0):OUTPUT(12\n):COMMAND(wc)", **answers}
        job = run(map_pipeline, asked, FakeWorker(answers, numbered=request.param))
        (manifest,) = bucket.written.values()
        return job.actors[0].finish, job.result, manifest

    return play


def test_the_manifest_says_what_became_of_each_key(told, bucket):
    def answer(command):
        if command.startswith("retrieve:in/b"):
            return "FAIL(could not retrieve b/in/b: NoSuchKey)"
        return "OK:RETRIEVE(b/k)"

    ended = [OK, "OK:RETVAL(3):OUTPUT(no \udcff):COMMAND()"]
    finish, result, manifest = told(
        {
            "retrieve:": answer,
            "run:": lambda command: ended.pop(0) if "sort" in command else OK,
        },
        keys=["in/a", "in/b", "in/c"],
    )
    assert finish.error is None
    assert manifest["job"] == "j1"
    one, two, three = manifest["keys"]
    seconds = [one["seconds"], three["seconds"]]  # a fake worker takes 1 s for each command
    assert min(seconds) >= 1
    assert one == {
        "key": "in/a",
        "status": 0,
        "seconds": seconds[0],
        "bytes": 12,
        "out_key": "out/in/a",
    }
    assert two["key"] == "in/b"
    assert "NoSuchKey" in two["error"]
    assert three == {
        "key": "in/c",
        "status": 3,
        "seconds": seconds[1],
        "error": "exit status 3",
        "tail": "no \ufffd",
    }
    assert list(bucket.written) == ["out/manifest.json"]
    assert result == {
        "manifest": "out/manifest.json",
        "done": 1,
        "failed": 2,
        "unknown": 0,
        "skipped": 0,
        "bytes": 12,
        "seconds": sum(seconds),
        "failures": [two, three],
    }


@pytest.mark.parametrize("wc", ["OK:RETVAL(2):OUTPUT(no such file)", "OK:RETVAL(0):OUTPUT()"])
def test_a_command_that_writes_nothing_has_failed(told, wc):
    _, result, _ = told(
        {"run:rm -f ": f"{wc}:COMMAND()", "run:": "OK:RETVAL(0):OUTPUT(hm):COMMAND()"},
        keys=["a"],
    )
    (failure,) = result["failures"]
    assert failure["error"] == "the command exited with 0, but wrote no file {out}"
    assert failure["tail"] == "hm"


def test_only_the_end_of_a_failed_commands_output_is_kept(told):
    told_so = "OK:RETVAL(1):OUTPUT(" + "x" * 5000 + "end):COMMAND()"
    _, result, _ = told({"run:": told_so}, keys=["a"])
    assert result["failures"][0]["tail"] == "x" * 497 + "end"


def test_on_error_fail_fails_the_actor_with_the_key_and_lists_what_it_does_not_know(told, bucket):
    finish, result, manifest = told(
        {"run:": "OK:RETVAL(3):OUTPUT(no such codec):COMMAND(x)"},
        prefix="in/",
        on_error="fail",
    )
    assert finish == Finish("map_keys: 'in/a.txt': exit status 3: no such codec")
    assert result["unknown"] == 4
    assert manifest["unknown"] == ["in/a.txt", "in/b.TXT", "in/deep/a.txt", "in/out/a.txt"]
    assert manifest["failed_actors"] == [{"actor": 0, "error": finish.error}]


def test_an_actor_that_does_all_of_it_replays():
    def fresh():
        facts = JobFacts("j1", params())
        return Machine(ScriptWorker(facts, 0, {"keys": KEYS}), first_state(map_pipeline.begin))

    played = play(fresh(), FakeWorker({"run:rm -f ": "OK:RETVAL(0):OUTPUT(12\n):COMMAND(wc)"}))
    assert [row["bytes"] for row in played.finish.result["keys"]] == [12] * 5
    happened = zip(played.events, played.effects, strict=True)
    recorded = [read_record(write_event(0, 1, *one)) for one in happened]
    assert replay(fresh(), recorded)[-1] == played.finish


# ---------------------------------------------------------------- for real


PLAIN_HELLO = b"""
import mu.messages

mu.messages.Hello.payload = lambda hello: b"OK:HELLO"
"""
NASTY = [
    "plain.txt",
    "two words.txt",
    "it's.txt",
    'a "quote".txt',
    "$(touch pwned) `touch pwned` $HOME.txt",
    "'; touch pwned; '.txt",
    "line\nbreak.txt",
    "star*?[a].txt",
    "-rf.txt",
    "##TMPDIR## ##INFILE##.txt",
    "per%cent+plus&amp;=.txt",
    "deep/ü 日本 \U0001f600.txt",
    "no-extension",
]


@pytest.fixture(scope="module")
def mapper(daemon, tmp_path_factory):
    """The daemon, with a function `map` that has nothing but the worker."""
    made = bundle(tmp_path_factory.mktemp("map") / "map.zip")
    daemon.create_function("map", made.path)
    return daemon


def put(s3, prefix, texts):
    client = s3.client()
    for name, text in texts.items():
        client.put_object(Bucket="films", Key=prefix + name, Body=text)


def get(s3, key):
    return s3.client().get_object(Bucket="films", Key=key)["Body"].read()


def map_job(daemon, workers=3, function="map", **given):
    order = {"pipeline": "map", "workers": workers, "function": function}
    order["params"] = {"bucket": "films", **given}
    return daemon.wait(daemon.ask("/jobs", order)["id"])


def test_every_key_is_mapped_whatever_its_name_and_all_is_as_on_one_machine(mapper, s3):
    texts = {name: f"{name}: {number}\n".encode() * 1000 for number, name in enumerate(NASTY)}
    put(s3, "nasty/", texts)
    job = map_job(
        mapper,
        prefix="nasty/",
        out_prefix="mapped/",
        suffix=".up",
        command='tr a-z A-Z < {in} > {out} && printf %s {stem} >> "{out}" && printf %s "{name}" >> {out}',
    )
    assert (job["state"], job["error"]) == ("done", None)
    manifest = json.loads(get(s3, job["result"]["manifest"]))
    assert [row["key"] for row in manifest["keys"]] == sorted("nasty/" + name for name in NASTY)
    upper = bytes(range(97, 123)), bytes(range(65, 91))
    for row in manifest["keys"]:
        name = row["key"].removeprefix("nasty/")
        stem = name.removesuffix(".txt")
        last = name.rpartition("/")[2]
        expected = texts[name].translate(bytes.maketrans(*upper)) + (stem + last).encode()
        assert row["out_key"] == f"mapped/{stem}.up"
        assert get(s3, row["out_key"]) == expected
        assert (row["status"], row["bytes"]) == (0, len(expected))
        assert 0 < row["seconds"] < 120
    assert job["result"]["bytes"] == sum(row["bytes"] for row in manifest["keys"])
    assert job["result"]["done"] == len(NASTY)
    assert job["workers"] == 3


@pytest.mark.parametrize(
    ("tolerate", "ends"), [("0", False), (1, False), ("66%", False), (2, True), ("67%", True)]
)
def test_more_failed_keys_than_are_tolerated_fail_the_job(bucket, tolerate, ends):
    failing = {
        "run:": lambda command: f"OK:RETVAL({int('good' not in command)}):OUTPUT(no):COMMAND()"
    }
    given = {"bucket": "b", "command": "x {key}", "out_prefix": "o/", "tolerate": tolerate}
    job = run(map_pipeline, given | {"keys": ["bad", "good", "worse"]}, failing)
    error = "1 of 3 keys; 2 failed: bad: exit status 1: no; worse: exit status 1: no"
    assert job.error == (None if ends else error)
    assert (job.result["done"], job.result["failed"]) == (1, 2), "the result is kept"


@pytest.mark.parametrize("tolerate", [-1, "-1", "101%", "a few", True, 1.5, "5 %"])
def test_a_tolerance_is_a_number_or_a_percentage(tolerate):
    with pytest.raises(FieldError, match=r"params.tolerate must be a number .* got"):
        params(tolerate=tolerate)


def test_keys_of_actors_that_are_lost_are_not_done(bucket):
    outcomes = [
        Outcome(None, {"keys": [{"key": key} for key in KEYS[0::2]]}, 0, {"keys": KEYS[0::2]}),
        Outcome("its worker is gone", None, 1, {"keys": KEYS[1::2]}),
    ]
    with pytest.raises(JobFailed, match="^3 of 5 keys; 2 unknown: actor 1: its worker is gone$"):
        map_pipeline.finish(JobFacts("j1", params()), outcomes)
    assert bucket.written["out/manifest.json"]["unknown"] == KEYS[1::2]
    map_pipeline.finish(JobFacts("j1", params(tolerate=2)), outcomes)


def test_the_error_names_a_few_keys_and_counts_the_others(bucket):
    failing = {"run:": "OK:RETVAL(1):OUTPUT(" + "x" * 500 + "):COMMAND()"}
    keys = [f"k{number}" for number in range(8)]
    given = {"bucket": "b", "command": "x", "out_prefix": "o/", "keys": keys}
    error = run(map_pipeline, given, failing).error
    assert error.startswith(f"0 of 8 keys; 8 failed: k0: exit status 1: {'x' * 100}; k1:")
    assert error.endswith("; and 3 more")


def test_a_key_that_fails_fails_the_job_and_the_others_are_done(mapper, s3):
    put(s3, "some/", {"1": b"good\n", "2": b"bad\n", "3": b"good\n"})
    command = (
        'grep -q good {in} || {{ echo "no good: $(cat {in})" >&2; exit 7; }}; sum {in} > {out}'
    )
    keys = ["some/1", "some/2", "some/3", "some/absent"]
    job = map_job(mapper, workers=1, keys=keys, out_prefix="sums/", command=command)
    assert job["state"] == "failed"
    assert job["error"].startswith("2 of 4 keys; 2 failed: some/2: exit status 7: no good: bad; ")
    assert (job["result"]["done"], job["result"]["failed"]) == (2, 2)
    bad, absent = job["result"]["failures"]
    assert (bad["key"], bad["status"], bad["tail"]) == ("some/2", 7, "no good: bad\n")
    assert "NoSuchKey" in absent["error"]
    assert "no good: bad" in mapper.ask(f"/jobs/{job['id']}/log?actor=0")


def test_on_error_fail_fails_the_job(mapper, s3):
    put(s3, "strict/", {"1": b"x"})
    job = map_job(
        mapper,
        keys=["strict/1"],
        out_prefix="never/",
        on_error="fail",
        command="echo cannot; exit 9",
    )
    assert job["state"] == "failed"
    assert "'strict/1': exit status 9: cannot" in job["error"]
    assert json.loads(get(s3, "never/manifest.json"))["unknown"] == ["strict/1"]


def test_a_bucket_of_more_than_a_page_is_dealt_whole(tmp_path, monkeypatch):
    for place in range(1203):
        file = tmp_path / "data" / "films" / "many" / f"{place % 7}" / f"{place:04d}.bin"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    server = S3Server(tmp_path / "data", tmp_path / "s3.log")  # sees only what was there before
    try:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        found = dealt(workers=4, keys=[], bucket="films", prefix="many/", match="[01]*")
    finally:
        server.stop()
    assert [len(keys) for keys in found] == [301, 301, 301, 300]
    assert len({key for keys in found for key in keys}) == 1203


def test_a_bucket_that_is_not_there_is_a_sentence(mapper):
    job = map_job(mapper, bucket="absent-bucket", prefix="x/", out_prefix="o/", command="true")
    assert job["state"] == "failed"
    assert "cannot list s3://absent-bucket/x/: NoSuchBucket" in job["error"]


# ---------------------------------------------------------------- reruns


def test_a_rerun_runs_the_failed_keys_only_and_its_manifest_has_all(mapper, s3):
    put(s3, "again/", {f"{number}.txt": f"{number}\n".encode() for number in range(6)})
    given = {"prefix": "again/", "out_prefix": "twice/"}
    job = map_job(mapper, command="grep -v [14] {in} > {out}", **given)
    assert job["state"] == "failed"
    assert job["error"].startswith("4 of 6 keys; 2 failed: again/1.txt: exit status 1; again/4.txt")
    first = get(s3, "twice/0.txt")
    put(s3, "again/", {"0.txt": b"changed since\n"})
    asked = {"rerun": job["id"], "params": {"command": "echo mended > {out}"}}
    again = mapper.wait(mapper.ask("/jobs", asked)["id"])
    assert (again["state"], again["error"], again["rerun"]) == ("done", None, job["id"])
    assert again["result"]["done"] == 6
    assert again["counts"]["done"] == again["workers"] == 1, "both failed in the same actor"
    manifest = json.loads(get(s3, "twice/manifest.json"))
    assert [row["key"] for row in manifest["keys"]] == [f"again/{n}.txt" for n in range(6)]
    assert not any("error" in row for row in manifest["keys"])
    assert get(s3, "twice/1.txt") == get(s3, "twice/4.txt") == b"mended\n"
    assert get(s3, "twice/0.txt") == first
    newer = map_job(mapper, command="cp {in} {out}", skip_existing=True, **given)
    assert (newer["result"]["done"], newer["result"]["skipped"]) == (6, 5)
    assert get(s3, "twice/0.txt") == b"changed since\n"
    with pytest.raises(urllib.error.HTTPError) as refused:
        mapper.ask("/jobs", {"rerun": again["id"]})
    assert refused.value.code == 409
    assert "has nothing to rerun: none of its inputs failed" in refused.value.msg


def test_with_a_worker_that_numbers_nothing_all_is_done_one_after_the_other(mapper, s3, tmp_path):
    """The worker says hello as an original one does, so the daemon treats it like one."""
    made, plain = bundle(tmp_path / "map.zip"), tmp_path / "plain.zip"
    with ZipFile(made.path) as old, ZipFile(plain, "w") as new:
        for entry in old.infolist():
            added = PLAIN_HELLO if entry.filename == "lambda_function.py" else b""
            new.writestr(entry, old.read(entry) + added)
    mapper.create_function("plain", plain)
    put(s3, "plain/", {str(number): b"text" for number in range(3)})
    job = map_job(
        mapper, 1, "plain", prefix="plain/", out_prefix="plainly/", command="cp {in} {out}"
    )
    assert job["result"]["done"] == 3
    archive = Archive(mapper.home / "journal.db", read_only=True)
    records = [read_record(line) for line in archive.lines(job["id"])]
    archive.close()
    first, *replies = [record.event for record in records if isinstance(record, Happened)]
    assert isinstance(first, Entered)
    assert {reply.command for reply in replies} == {0}
    assert [reply.text.partition("(")[0] for reply in replies] == [
        "OK:HELLO",
        *["OK:RETRIEVE", "OK:RETVAL", "OK:RETVAL", "OK:UPLOAD"] * 3,
    ]
