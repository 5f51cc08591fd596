"""What the local engine's tests share: a real engine, a versatile handler, a look at /proc."""

import io
import json
import os
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPMessage
from pathlib import Path
from typing import Any

import boto3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config

from kit.film import wait_until
from kit.nursery import SHIM_OPTIONS, ForkedEngine, daemons
from mu.engines.local.key import read_key

ROLE = "arn:aws:iam::000000000000:role/worker"
CHECKOUT = Path(__file__).resolve().parents[2]
COLD = Path(__file__).with_name("cold")

HANDLER = """
import json, os, signal, subprocess, sys, time

def shell(command):
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    return [done.returncode, done.stdout, done.stderr]

def handler(event, context):
    do = event.get("do")
    if do == "shell":
        return shell(event["command"])
    if do == "raise":
        raise ValueError("no such luck")
    if do == "exit":
        sys.exit(event["status"])
    if do == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if do == "note":
        with open(event["file"], "a") as file:
            file.write(json.dumps([context.aws_request_id, time.time(), event]) + "\\n")
        with open(event["file"]) as file:
            attempt = len(file.readlines())
        if attempt > event.get("failures", 0):
            return attempt
        if event["how"] == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if event["how"] == "sleep":
            time.sleep(60)
        raise ValueError("not yet")
    if do == "return":
        return eval(event["what"])
    if do == "print":
        for _ in range(event["times"]):
            print(event["text"])
        return "printed"
    if do == "allocate":
        held = bytearray(event["mb"] << 20)
        return time.sleep(event["seconds"])
    if do == "sleep":
        print("sleeping now")
        with open(event["file"], "a") as file:
            file.write(f"{time.time()}\\n")
        time.sleep(event["seconds"])
    if do == "environment":
        return dict(os.environ)
    if do == "object":
        return object()
    if do == "mu":
        import mu
        return [mu.WHERE, sys.path, "boto3" in sys.modules, os.getcwd()]
    if do == "late import":
        import sqlite3, xml.dom.minidom, boto3
        boto3.client("s3").meta.service_model.operation_names
        boto3.client("sqs", aws_access_key_id="-", aws_secret_access_key="-")
        return [sqlite3.__file__, subprocess.check_output([sys.executable, "-c", "print(6)"], text=True)]
    left = context.get_remaining_time_in_millis()
    return {"event": event, "name": context.function_name, "left": left, "id": context.aws_request_id}
"""


def bundle(handler: str = HANDLER) -> bytes:
    """A zip with a handler, a program, and a package with the name of ours."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        archive.writestr("main.py", handler)
        archive.writestr("mu/__init__.py", "WHERE = 'the bundle'\n")
        tool = zipfile.ZipInfo("bin/tool.sh")
        tool.external_attr = (stat.S_IFREG | 0o755) << 16
        archive.writestr(tool, "#!/bin/sh\necho the tool runs\n")
        link = zipfile.ZipInfo("tool.sh")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "bin/tool.sh")
    return written.getvalue()


def processes_of(home: Path) -> dict[int, str]:
    """Return the processes with the path `home` in their arguments, environment or mounts.

    The nursery's shims do not count: one ends shortly after the process that it waits for.
    """
    path = os.fsencode(home)
    found = {}
    for pid in [int(name) for name in os.listdir("/proc") if name.isdigit()]:
        if pid == os.getpid():
            continue
        try:
            folder = Path(f"/proc/{pid}")
            seen = (folder / "cmdline").read_bytes()
            if not seen:  # the kernel's, or a zombie
                continue
            everything = seen + (folder / "environ").read_bytes()
            everything += (folder / "mountinfo").read_bytes()
        except OSError:
            continue  # it has ended
        if path in everything and SHIM_OPTIONS not in seen.split(b"\0"):
            found[pid] = seen.replace(b"\0", b" ").decode()
    return found


def sleepers(home: Path) -> list[int]:
    """Return the programs of that daemon's workers that make a slow chunk (see kit.film)."""
    return [pid for pid, line in processes_of(home).items() if line.startswith("sleep 987")]


@dataclass(frozen=True)
class Answer:
    status: int
    headers: HTTPMessage
    told: dict[str, Any]


@dataclass(frozen=True)
class Engine:
    home: Path
    port: int
    pid: int
    told: dict[str, Any]
    lam: Any

    def create(self, name: str, **more: Any) -> Any:
        settings = {"Role": ROLE, "Handler": "main.handler", "Runtime": "python3.12", **more}
        settings.setdefault("Code", {"ZipFile": bundle()})
        return self.lam.create_function(FunctionName=name, **settings)

    def invoke(self, name: str, **event: Any) -> Any:
        """Return what the function returned. Raises AssertionError if it failed."""
        answer = self.lam.invoke(FunctionName=name, Payload=json.dumps(event))
        payload = json.loads(answer["Payload"].read())
        assert "FunctionError" not in answer, payload
        return payload

    def shell(self, name: str, command: str) -> Any:
        return self.invoke(name, do="shell", command=command)

    def fail(self, name: str, **event: Any) -> Any:
        """Return the error that the function ended with."""
        answer = self.lam.invoke(FunctionName=name, Payload=json.dumps(event))
        assert (answer["StatusCode"], answer["FunctionError"]) == (200, "Unhandled")
        return json.loads(answer["Payload"].read())

    def later(self, name: str, **event: Any) -> str:
        """Invoke it as an event; return the request id."""
        payload = json.dumps(event)
        answer = self.lam.invoke(FunctionName=name, InvocationType="Event", Payload=payload)
        assert answer["StatusCode"] == 202
        return str(answer["ResponseMetadata"]["RequestId"])

    def raw(self, method: str, path: str, body: bytes = b"", **headers: str) -> "Answer":
        """Send a request without boto3 and its checks."""
        request = AWSRequest(method, f"http://127.0.0.1:{self.port}{path}", headers, body)
        SigV4Auth(read_key(self.home), "lambda", "eu-west-1").add_auth(request)
        connection = HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request(method, path, body, {**dict(request.headers.items()), **headers})
            answer = connection.getresponse()
            told = answer.read()
            return Answer(answer.status, answer.headers, json.loads(told or b"{}"))
        finally:
            connection.close()

    def waits_for(self, words: str) -> None:
        wait_until(lambda: words in self.log, 10, words)

    @property
    def log(self) -> str:
        return (self.home / "local" / "engine.log").read_text()


def client_at(port: int, home: Path) -> Any:
    key = read_key(home)
    return boto3.client(
        "lambda",
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name="eu-west-1",
        aws_access_key_id=key.access_key,
        aws_secret_access_key=key.secret_key,
        config=Config(retries={"total_max_attempts": 1}, max_pool_connections=20),
    )


def environment(warm: bool = False, **more: str) -> dict[str, str]:
    """Return what an engine gets; one that is not `warm` has no boto3, and starts sooner."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    path = str(CHECKOUT) if warm else f"{COLD}:{CHECKOUT}"
    return {**kept, "PYTHONPATH": path, **more}


def start_engine(
    home: Path, *options: str, warm: bool = False, **variables: str
) -> tuple[ForkedEngine, Engine]:
    words = ["--home", str(home), "--port", "0", *options]
    process = daemons().start_engine(words, environment(warm, **variables), home)
    told = json.loads(process.line)
    assert "error" not in told, told
    return process, Engine(home, told["port"], told["pid"], told, client_at(told["port"], home))


@contextmanager
def running_engine(
    home: Path, *options: str, warm: bool = False, **variables: str
) -> Iterator[Engine]:
    """Run an engine; assert that SIGTERM ends it and everything that it started."""
    process, engine = start_engine(home, *options, warm=warm, **variables)
    try:
        yield engine
    finally:
        process.terminate()
        assert process.wait(60) == 0
        assert processes_of(home) == {}
        assert "Traceback" not in engine.log


OWNER = """
import json, sys
from pathlib import Path
from twisted.internet import reactor
from mu.engines.local.process import LocalEngineProcess

engine = LocalEngineProcess(Path(sys.argv[1]), int(sys.argv[2]), reactor=reactor, linger_s=float(sys.argv[3]))

def started(port):
    print(json.dumps({"port": port, "pid": engine.info.pid}), flush=True)

def failed(failure):
    print(json.dumps({"error": failure.getErrorMessage()}), flush=True)
    reactor.callLater(0, lambda: reactor.running and reactor.stop())

reactor.callWhenRunning(lambda: engine.start().addCallbacks(started, failed))
reactor.addSystemEventTrigger("before", "shutdown", engine.stop)
reactor.run()
"""


class EngineOwner:
    """A process with a LocalEngineProcess, as in the real daemon; `told` is what it printed."""

    def __init__(self, home: Path, port: int = 0, linger: float = 60) -> None:
        words = [str(home), str(port), str(linger)]
        self.process = daemons().start_owner(OWNER, words, environment(), home)
        self.told = json.loads(self.process.line)

    def __enter__(self) -> "EngineOwner":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.stop()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int | None:
        self.process.terminate()
        return self.process.wait(60)
