"""Bad days for end-to-end tests: a network, an S3 and processes that misbehave, by a seed.

Which faults come is drawn from the seed and the number of the connection or request alone, so a
seed brings the same plan again; which worker gets it depends on who connects first. str() of a Proxy
or of S3Faults says what it did, for the message of an assertion; `counts` how often, so that a
test can see that it was not spared.
"""

import asyncio
import itertools
import os
import signal
import socket
import struct
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from random import Random
from socketserver import ThreadingTCPServer
from threading import Event, Thread
from typing import Any, BinaryIO
from urllib.parse import urlsplit

CHUNK = 2**15
"""Bytes that a connection may hold in each direction are a few of these."""
SPLIT_BYTES = 2**16
"""The rest of a connection is not split: it would only take long."""
FINISH_S = 1.0
"""How long a closed connection's ends may go on talking, to nobody."""
CHECK_S = 0.1
NOTES = 200


class Notes:
    """What was done, of late in words and in all as numbers; by any thread."""

    def __init__(self, what: str, seed: int) -> None:
        self._what = f"{what}, seed {seed}"
        self._began = time.monotonic()
        self._lines: deque[str] = deque(maxlen=NOTES)
        self.counts: Counter[str] = Counter()

    def note(self, kind: str, words: str = "") -> None:
        self.counts[kind] += 1
        if words:
            self._lines.append(f"{time.monotonic() - self._began:8.3f} s: {words}")

    def __str__(self) -> str:
        return "\n".join([f"{self._what}: {dict(self.counts)}", *list(self._lines)])


# ---------------------------------------------------------------- the network


@dataclass(frozen=True, slots=True)
class Faults:
    """What may happen to a connection: chances from 0 to 1, each drawn once, and how bad at most.

    Cuts and stalls come after a random number of bytes, small ones more often: half of all within
    the first quarter of `within`, so in the TLS handshake, too. A cut is a reset or an end of file;
    a stall concerns one way or both. Each chunk of a delayed connection waits up to `delay_s`.
    """

    cut: float = 0.0
    stall: float = 0.0
    stall_s: float = 3.0
    within: int = 20_000
    delay: float = 0.0
    delay_s: float = 0.05
    split: float = 0.0


NO_FAULTS = Faults()


class _Way:
    """One direction of a connection, and what is to happen in it."""

    def __init__(self, name: str, random: Random, delay_s: float, split: bool) -> None:
        self.name = name
        self.carried = 0
        self.stalled_until = 0.0
        self.plan: list[tuple[int, Callable[[], None]]] = []
        """Byte counts at which something is called, the next one last."""
        self._random, self._delay_s, self._split = random, delay_s, split

    def calm(self) -> None:
        self.stalled_until = self._delay_s = 0.0
        self._split = False
        self.plan.clear()

    def next_pause(self) -> float:
        return self._delay_s * self._random.random()

    def next_size(self, available: int) -> int:
        """Return how many bytes to hand on at a time; 0: the plan comes first."""
        if self.splits:
            largest = self._random.choice((1, 20, 2000))
            available = min(available, self._random.randint(1, largest))
        if self.plan:
            available = min(available, self.plan[-1][0] - self.carried)
        return available

    @property
    def splits(self) -> bool:
        return self._split and self.carried < SPLIT_BYTES


class _Link:
    """One connection: to the client and to the target."""

    def __init__(self, number: int, seed: int, faults: Faults, notes: Notes) -> None:
        self.number = number
        self._notes = notes
        random = Random(f"{seed} {number}")
        cut, stall, delay, split = (
            random.random() < chance
            for chance in (faults.cut, faults.stall, faults.delay, faults.split)
        )
        self.ways = [
            _Way(name, Random(f"{seed} {number} {name}"), faults.delay_s * delay, split)
            for name in ("up", "down")
        ]
        self.finished = False
        """Cut, so that nothing more is handed on."""
        self._writers: list[asyncio.StreamWriter] = []
        notes.note("connections")
        if delay:
            notes.note("delayed", f"connection {number} is delayed")
        if split:
            notes.note("split", f"connection {number} is split")
        if stall:
            stalled = random.choice([self.ways[:1], self.ways[1:], self.ways])
            seconds = faults.stall_s * random.random()
            self._plan(random, faults.within, lambda: self._stall(stalled, seconds))
        if cut:
            end = random.choice([self.reset, self.finish])
            self._plan(random, faults.within, lambda: end("by chance"))

    def _plan(self, random: Random, within: int, act: Callable[[], None]) -> None:
        plan = random.choice(self.ways).plan
        plan.append((int(within * random.random() ** 2), act))
        plan.sort(key=lambda item: -item[0])

    def take(self, writer: asyncio.StreamWriter) -> None:
        writer.transport.set_write_buffer_limits(CHUNK)
        self._writers.append(writer)

    def _stall(self, ways: list[_Way], seconds: float) -> None:
        for way in ways:
            way.stalled_until = time.monotonic() + seconds
        names = " and ".join(way.name for way in ways)
        self._tell("stalled", f"stalled {names} for {seconds:.2f} s")

    def reset(self, why: str) -> None:
        """End it with RST: what is on its way is lost."""
        self._tell("cut", f"reset {why}")
        self.finished = True
        self.abort()

    def abort(self) -> None:
        for writer in self._writers:
            end = writer.get_extra_info("socket")
            with suppress(OSError):  # closed already
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    def finish(self, why: str) -> None:
        """End it with FIN, both ways: what was handed on arrives, what comes now does not."""
        self._tell("cut", f"closed {why}")
        self.finished = True
        for writer in self._writers:
            with suppress(OSError):  # one end has gone
                writer.write_eof()
        asyncio.get_running_loop().call_later(FINISH_S, self.abort)

    def _tell(self, kind: str, words: str) -> None:
        up, down = (way.carried for way in self.ways)
        self._notes.note(kind, f"connection {self.number}: {words}, at {up} up, {down} down")


class Proxy(Notes):
    """A network between workers and 127.0.0.1:`target`, on a free `port` of its own.

    `target` may be changed; while nothing listens there, or it is None, who connects is reset.
    """

    def __init__(self, target: int | None, seed: int, faults: Faults = NO_FAULTS) -> None:
        super().__init__("the network", seed)
        self.target = target
        self._seed, self._faults = seed, faults
        self._numbers = itertools.count(1)
        self._stalled_until = 0.0
        self._links: dict[_Link, asyncio.Task[Any]] = {}
        self._loop = asyncio.new_event_loop()
        listening = asyncio.start_server(self._serve, "127.0.0.1", 0, limit=CHUNK, backlog=1024)
        self._server = self._loop.run_until_complete(listening)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self._thread = Thread(target=self._loop.run_forever, name="proxy")
        self._thread.start()

    def __enter__(self) -> "Proxy":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def open(self) -> int:
        """How many connections there are now."""
        return len(self._links)

    def cut_all(self, *, clean: bool = False) -> None:
        """End all connections, with RST or FIN; new ones are welcome."""

        async def cut() -> None:
            for link in self._links:
                link.finish("with all") if clean else link.reset("with all")

        self._do(cut())

    def stall_all(self, seconds: float) -> None:
        """Hand nothing on for so long, on the connections that come meanwhile, too."""
        self._stalled_until = time.monotonic() + seconds
        self.note("stalled", f"all connections stalled for {seconds:.2f} s")

    def calm(self) -> None:
        """No more faults: what stalls goes on, what was planned is off."""

        async def calm() -> None:
            self._faults, self._stalled_until = NO_FAULTS, 0.0
            for link in self._links:
                for way in link.ways:
                    way.calm()

        self._do(calm())
        self.note("calmed", "calm")

    def close(self) -> None:
        """End it: all connections, and its thread."""

        async def close() -> None:
            self._server.close()
            tasks = list(self._links.values())
            for link, task in self._links.items():
                link.abort()
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self._do(close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link(next(self._numbers), self._seed, self._faults, self)
        link.take(writer)
        task = asyncio.current_task()
        assert task is not None
        self._links[link] = task
        try:
            with suppress(asyncio.CancelledError):  # by close()
                await self._carry(link, reader, writer)
        except OSError as error:
            self.note("broken", f"connection {link.number}: {error}")
        finally:
            link.abort()
            del self._links[link]

    async def _carry(
        self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Hand on both ways until both have ended. Raises OSError where one end breaks."""
        up, down = link.ways
        await self._stalls(up)
        if link.finished:
            return
        if self.target is None:
            raise OSError("there is no target")
        opening = asyncio.open_connection("127.0.0.1", self.target, limit=CHUNK)
        target_reader, target_writer = await opening
        link.take(target_writer)
        both = [
            asyncio.ensure_future(self._hand_on(link, up, reader, target_writer)),
            asyncio.ensure_future(self._hand_on(link, down, target_reader, writer)),
        ]
        try:
            await asyncio.gather(*both)
        finally:
            for each in both:
                each.cancel()
        for end in writer, target_writer:
            end.close()
            await end.wait_closed()

    async def _hand_on(
        self, link: _Link, way: _Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        chunk = b"-"
        while chunk:
            try:
                chunk = await reader.read(CHUNK)
            except OSError:
                await self._stalls(way)  # of its end nobody hears sooner
                raise
            await self._stalls(way)
            await asyncio.sleep(way.next_pause())
            left = memoryview(chunk)
            while left and not link.finished:
                if size := way.next_size(len(left)):
                    writer.write(left[:size])
                    await writer.drain()
                    way.carried += size
                    left = left[size:]
                    if way.splits:
                        await asyncio.sleep(0.001)  # or the kernel puts the pieces together again
                else:
                    way.plan.pop()[1]()
                    await self._stalls(way)
        writer.write_eof()

    async def _stalls(self, way: _Way) -> None:
        while (left := max(self._stalled_until, way.stalled_until) - time.monotonic()) > 0:
            await asyncio.sleep(min(left, CHECK_S))


# ---------------------------------------------------------------- S3

SLOW_DOWN = b"""<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message>\
<RequestId>FA017</RequestId><HostId>none</HostId></Error>"""
OF_ONE_HOP = {"connection", "expect", "keep-alive", "transfer-encoding"}


class S3Faults(Notes):
    """Stands before an S3 server; `env` is what clients need. Chances are drawn for each request.

    `slow_down`: S3's 503, which clients try again. `slow`: the answer takes up to `slow_s` longer.
    """

    def __init__(
        self, s3: Any, seed: int, slow_down: float = 0.0, slow: float = 0.0, slow_s: float = 2.0
    ) -> None:
        super().__init__("S3", seed)
        self.server_at = urlsplit(s3.url).netloc
        self.closing = Event()
        self._seed, self._chances, self._slow_s = seed, (slow_down, slow), slow_s
        self._numbers = itertools.count(1)
        self._server = _S3Server(self)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.env = {**s3.env, "AWS_ENDPOINT_URL_S3": self.url}
        self._thread = Thread(target=self._server.serve_forever, args=(0.05,), name="S3 faults")
        self._thread.start()

    def __enter__(self) -> "S3Faults":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def calm(self) -> None:
        self._chances = 0.0, 0.0

    def worsen(self, slow_down: float, slow: float) -> None:
        """From now on the chances are these."""
        self._chances = slow_down, slow

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.hang_up()
        self._server.server_close()  # joins the threads of its connections

    def draw(self, request: str) -> tuple[bool, float]:
        """Return whether the next request is refused, and for how many seconds it is held up."""
        number = next(self._numbers)
        random = Random(f"{self._seed} {number}")
        slow_down, slow = (random.random() < chance for chance in self._chances)
        wait_s = self._slow_s * random.random() if slow else 0.0
        self.note("requests")
        if slow_down:
            self.note("slow_down", f"request {number}, {request}: told to slow down")
        if slow:
            self.note("slow", f"request {number}, {request}: held up for {wait_s:.2f} s")
        return slow_down, wait_s


class _S3Server(ThreadingTCPServer):
    request_queue_size = 1024

    def __init__(self, faults: S3Faults) -> None:
        super().__init__(("127.0.0.1", 0), _S3Request)
        self.faults = faults
        self._connections: set[Any] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def close_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().close_request(request)

    def hang_up(self) -> None:
        for connection in list(self._connections):
            with suppress(OSError):  # it has ended meanwhile
                connection.shutdown(socket.SHUT_RDWR)


class _S3Request(BaseHTTPRequestHandler):
    """A connection of a client, and one to the server for it; both are kept alive."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    requestline = ""
    server: _S3Server

    def log_message(self, *_: object) -> None:
        return

    def handle(self) -> None:
        faults = self.server.faults
        self._upstream = HTTPConnection(faults.server_at, timeout=120)
        try:
            super().handle()
        except (OSError, HTTPException) as error:
            faults.note("broken", f"{self.requestline}: {error!r}")
        finally:
            self._upstream.close()

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        if "Transfer-Encoding" in self.headers:
            self.send_error(411)
            return
        slow_down, wait_s = self.server.faults.draw(f"{self.command} {self.path}")
        self.server.faults.closing.wait(wait_s)
        if slow_down:
            for _ in _parts(self.rfile, length):
                pass
            self.send_response(503)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(SLOW_DOWN)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(SLOW_DOWN)
            return
        self._forward(length)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer

    def _forward(self, length: int) -> None:
        upstream = self._upstream
        upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in OF_ONE_HOP:
                upstream.putheader(name, value)
        upstream.endheaders()
        for part in _parts(self.rfile, length):
            upstream.send(part)
        with upstream.getresponse() as answer:
            self.send_response_only(answer.status, answer.reason)
            for name, value in answer.getheaders():
                if name.lower() not in OF_ONE_HOP:
                    self.send_header(name, value)
            chunked = answer.length is None and self.command != "HEAD"
            if chunked:
                self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            while part := answer.read(CHUNK):
                self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part) if chunked else part)
            if chunked:
                self.wfile.write(b"0\r\n\r\n")


def _parts(file: BinaryIO, length: int) -> Iterator[bytes]:
    while length:
        part = file.read(min(length, CHUNK))
        if not part:
            raise ConnectionError(f"the client left, owing {length} bytes")
        length -= len(part)
        yield part


# ---------------------------------------------------------------- processes


def workers_of(daemon: Any) -> list[int]:
    """Return the Python processes of the workers that the daemon's local engine runs now.

    Below the engine's warm parent are, for each worker, a supervisor, and below that the worker.
    """
    programs = _programs_with(f'"home": "{daemon.home}"')
    entered = [pid for pid, program in programs.items() if program.endswith(".namespaces")]
    warm = {pid for pid, program in programs.items() if program.endswith(".warm_parent")}
    warm_parents = _below(entered) or warm - set(_below(warm))  # where namespaces are refused
    return [pid for pid in _below(_below(warm_parents)) if _is_warm(pid)]


def _programs_with(words: str) -> dict[int, str]:
    """Return the modules that Python processes with these words in their last argument run."""
    found = {}
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        with suppress(OSError, ValueError):  # it has ended, or is no such process
            line = Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0")
            *_, module, last = line.split("\0")
            if words in last:
                found[pid] = module
    return found


def _below(pids: Iterable[int]) -> list[int]:
    return [child for pid in pids for child in _children(pid)]


def _children(pid: int) -> list[int]:
    try:
        return [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]
    except OSError:
        return []  # it has just ended


def _is_warm(pid: int) -> bool:
    """Whether it is the warm parent, or forked from it and still that program."""
    try:
        return b"mu.engines.local.warm_parent" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def freeze(pid: int) -> None:
    """Stop it where it stands; its connections stay open, its commands go on."""
    os.kill(pid, signal.SIGSTOP)


def thaw(pid: int) -> None:
    with suppress(ProcessLookupError):  # it has been killed meanwhile
        os.kill(pid, signal.SIGCONT)


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    freeze(pid)
    try:
        yield
    finally:
        thaw(pid)


# ---------------------------------------------------------------- a bad day in full


class Schedule(Notes):
    """A bad day for one job, drawn from the seed: what befalls whom, and when.

    `network` and `s3` are for its connections and requests; `run` does the rest: it kills and freezes
    workers, cuts and stalls all connections, and kills or stops the daemon and starts it again.
    """

    KINDS = (
        ("kill the daemon", 4),
        ("stop the daemon", 1),
        ("kill a worker", 3),
        ("freeze a worker", 2),
        ("cut all", 3),
        ("stall all", 2),
    )

    def __init__(self, seed: int, life_s: float) -> None:
        """Deeds come in the first `life_s` seconds of the job; what they do lasts about as long."""
        super().__init__("the schedule", seed)
        self._life_s = life_s
        random = self._random = Random(f"schedule {seed}")
        self.spares = random.choice((0, 0, 1, 3))
        self.network = Faults(
            cut=random.choice((0.0, 0.2, 0.5)),
            stall=random.choice((0.0, 0.2)),
            within=random.choice((4_000, 20_000)),
            delay=random.choice((0.0, 0.3)),
            split=random.choice((0.0, 0.3)),
        )
        self.s3 = random.choice(((0.0, 0.0), (0.1, 0.0), (0.05, 0.1)))
        self.afterwards = random.random() < 0.25
        """Whether the daemon is to be killed once more when the job has ended."""
        kinds, weights = zip(*self.KINDS, strict=True)
        drawn = random.choices(kinds, weights, k=random.randint(2, 8))
        self._deeds = deque(
            sorted((life_s * random.random(), kind, random.random()) for kind in drawn)
        )
        self.frames = random.choice((2, 2, 2, 24))
        """Of each chunk; with many, a worker's replies are acknowledged in its course."""
        self._followups: list[tuple[float, Callable[[], None]]] = []

    def run(self, stage: Any, job_id: str, seconds: float) -> dict[str, Any]:
        """See the job through; return it as it ended, with the daemon up and nothing frozen.

        `stage` has `proxy`, `daemon` (None: there is none now), `kill`, `stop` and `start`.
        """
        began = time.monotonic()
        job: dict[str, Any] = {}
        while not job.get("finished"):
            now = time.monotonic() - began
            if now > seconds:
                self._follow_up(now + 3600)
                raise AssertionError(f"after {seconds:g} s the job is {job}\n{self}\n{stage}")
            while self._deeds and self._deeds[0][0] <= now:
                _, kind, amount = self._deeds.popleft()
                self._do(stage, kind, amount, now)
            self._follow_up(now)
            if stage.daemon is not None:
                job = stage.daemon.ask(f"/jobs/{job_id}")
            time.sleep(0.03)
        self._follow_up(seconds + 3600)
        return job

    def _follow_up(self, now: float) -> None:
        for due, call in list(self._followups):
            if due <= now:
                self._followups.remove((due, call))
                call()

    def _do(self, stage: Any, kind: str, amount: float, now: float) -> None:
        down_s, stall_s, freeze_s = (
            times * self._life_s * amount for times in (0.7, 2 * amount, 2.4)
        )
        if kind in ("kill the daemon", "stop the daemon"):
            if stage.daemon is not None:
                self.note(kind, f"{kind}; another starts after {down_s:.2f} s")
                stage.kill() if kind == "kill the daemon" else stage.stop()
                self._followups.append((now + down_s, stage.start))
        elif kind == "cut all":
            self.note(kind)
            stage.proxy.cut_all(clean=amount < 0.3)
        elif kind == "stall all":
            self.note(kind)  # the proxy has more to say
            stage.proxy.stall_all(stall_s)
        elif workers := workers_of(stage):
            pid = self._random.choice(workers)
            with suppress(ProcessLookupError):  # it has just ended
                if kind == "kill a worker":
                    self.note(kind, f"{kind}, {pid}")
                    os.kill(pid, signal.SIGKILL)
                else:
                    self.note(kind, f"{kind}, {pid}, for {freeze_s:.2f} s")
                    freeze(pid)
                    self._followups.append((now + freeze_s, partial(thaw, pid)))
