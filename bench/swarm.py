"""Simulated workers, many in one process: they say hello and answer each echo. No Twisted.

    swarm.py FOLDER ADDRESS WORKERS [PAUSE_S [ANSWERS]] [--used] [--stay]

FOLDER has ca.pem, job.pem (the workers' certificate) and job.key; ADDRESS is a port on 127.0.0.1.
Prints a JSON line when all are connected, waits for a line on standard input, then lets all say hello.
Prints another line when all were told to quit. With PAUSE_S, each waits that long before it answers (less
at first, so that not all answer at once); a line is printed when all are under way, another WINDOW_S
later, and then the program ends. With ANSWERS, each worker stops after that number of answers, and a line
says so. From then on, each line on standard input makes all drop their connections, resume on new ones
and answer once more; a line with the seconds it took follows. With --used, each tells with every answer
what its command used. With --stay, it goes on until it is killed. With --whole, PAUSE_S is 0 and each worker
says hello once it is connected, comes back as often as its connection is lost, and leaves when it is told to
quit; the only line has the seconds that took all.
"""

import ctypes
import heapq
import json
import select
import socket
import ssl
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HELLO = b"OK:HELLO(session=%032x,launch=,received=%d:%08x,sent=%d)"
USED = (
    b'USED:%d:{"cpu_s": 0.125, "busy_s": 0.25, "idle_s": 0.125, "peak_mb": 123.456, "tmp_mb": 1.5}'
)
ECHO = b"RE:%d:OK:ECHO(hello from actor 0)"
WARM_S, WINDOW_S = 2.0, 5.0
AT_ONCE = 64
"""Handshakes under way at the same time."""
REFUSED_S = 0.02
"""A coordinator that is not there is tried again after so long."""


def frame(payload: bytes) -> bytes:
    return b"%012d " % len(payload) + payload


class Worker:
    """One connection."""

    __slots__ = ("asked", "buffer", "sock")
    tells = False
    """Whether workers tell what commands used."""

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self.sock = sock
        self.buffer = b""
        self.asked = 0

    def read(self) -> tuple[int, bool]:
        """Return how many echoes were asked for, and whether to quit."""
        echoes, over = 0, False
        try:
            received = self.sock.recv(65536)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return 0, False
        if not received:
            return 0, True
        buffer = self.buffer + received
        start = 0
        while len(buffer) >= start + 13:
            end = start + 13 + int(buffer[start : start + 12])
            if len(buffer) < end:
                break
            kind = buffer[start + 13 : start + 17]
            echoes += kind == b"echo"
            over |= kind == b"quit"
            if kind == b"ping":
                self.sock.send(frame(b"pong" + buffer[start + 17 : end]))
            start = end
        self.buffer = buffer[start:]
        return echoes, over

    def answer(self) -> None:
        self.asked += 1
        used = frame(USED % self.asked) if self.tells else b""
        self.sock.send(used + frame(ECHO % self.asked))


class LostConnection(Exception):
    """The coordinator has closed it."""


class Lasting:
    """A worker that outlives its connections, as the protocol says, and answers `left` echoes."""

    def __init__(self, number: int, left: int) -> None:
        self.number = number
        self.over = False
        """Whether it was told to quit."""
        self.sock: ssl.SSLSocket
        self.left = left
        self.received = self.sent = self.crc = 0
        self._buffer = b""

    def greet(self, sock: ssl.SSLSocket) -> None:
        self.sock, self._buffer = sock, b""
        hello = HELLO % (self.number, self.received, self.crc, self.sent)
        sock.send(frame(hello))

    def read(self) -> None:
        for payload in self._payloads():
            kind = payload.partition(b":")[0]
            if kind == b"welcome":
                first = int(payload.rpartition(b":")[2]) + 1
                again = b"".join(frame(ECHO % n) for n in range(first, self.sent + 1))
                if again:
                    self.sock.send(again)
            elif kind == b"echo":
                self.received += 1
                self.crc = zlib.crc32(frame(payload), self.crc)
            elif kind == b"quit":
                self.over = True
        if self.sent < self.received and self.left:
            self.sent += 1
            self.left -= 1
            self.sock.send(frame(ECHO % self.sent))

    @property
    def silent(self) -> bool:
        """Whether it has said all that it may, and heard what comes after it."""
        return not self.left and self.received > self.sent

    def _payloads(self) -> Iterator[bytes]:
        try:
            received = self.sock.recv(65536)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        if not received:
            raise LostConnection(f"worker {self.number} lost its connection")
        buffer = self._buffer + received
        start = 0
        while len(buffer) >= start + 13:
            end = start + 13 + int(buffer[start : start + 12])
            if len(buffer) < end:
                break
            yield buffer[start + 13 : end]
            start = end
        self._buffer = buffer[start:]


class Swarm:
    stays = False
    """Whether it goes on until it is killed."""

    def __init__(self, folder: Path, port: int, workers: int, pause_s: float) -> None:
        self._context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        self._context.check_hostname = False
        self._context.load_cert_chain(folder / "job.pem", folder / "job.key")
        self._port, self._count, self._pause_s = port, workers, pause_s
        self._epoll = select.epoll()
        self._workers: dict[int, Worker] = {}

    @property
    def waits(self) -> bool:
        """Whether it leaves after a time."""
        return self._pause_s > 0 and not self.stays

    def connect(self) -> float:
        """Connect all; return the seconds it took."""
        begun = time.monotonic()
        shaking: dict[int, ssl.SSLSocket] = {}
        left = self._count
        while left or shaking:
            while left and len(shaking) < AT_ONCE:
                sock = self._dial()
                shaking[sock.fileno()] = sock
                left -= 1
            for descriptor, _ in self._epoll.poll():
                sock = shaking[descriptor]
                if self._shaken(sock):
                    del shaking[descriptor]
                    self._epoll.unregister(descriptor)
                    self._workers[descriptor] = Worker(sock)
        for descriptor in self._workers:
            self._epoll.register(descriptor, select.EPOLLIN)
        return time.monotonic() - begun

    def _dial(self) -> ssl.SSLSocket:
        """Begin a connection. Raises ConnectionRefusedError."""
        plain = socket.create_connection(("127.0.0.1", self._port))
        plain.setblocking(False)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock = self._context.wrap_socket(plain, do_handshake_on_connect=False)
        self._epoll.register(sock.fileno(), select.EPOLLIN | select.EPOLLOUT)
        return sock

    def _shaken(self, sock: ssl.SSLSocket) -> bool:
        """Go on with a handshake; return whether that was all."""
        try:
            sock.do_handshake()
        except ssl.SSLWantReadError:
            self._epoll.modify(sock.fileno(), select.EPOLLIN)
        except ssl.SSLWantWriteError:
            pass
        else:
            return True
        return False

    def last(self, lasting: list[Lasting]) -> float:
        """Have all connect, anew if they were, and speak until they are silent; return the seconds."""
        begun = time.monotonic()
        for worker in lasting:
            if hasattr(worker, "sock"):
                worker.sock.close()
        self._epoll.close()
        self._epoll = select.epoll()
        to_dial = lasting[::-1]
        shaking: dict[int, tuple[ssl.SSLSocket, Lasting]] = {}
        speaking: dict[int, Lasting] = {}
        silent: set[int] = set()
        while len(silent) < len(lasting):
            while to_dial and len(shaking) < AT_ONCE:
                try:
                    sock = self._dial()
                except ConnectionRefusedError:
                    time.sleep(REFUSED_S)
                    continue
                shaking[sock.fileno()] = sock, to_dial.pop()
            for descriptor, _ in self._epoll.poll():
                if descriptor in shaking:
                    sock, worker = shaking[descriptor]
                    if self._shaken(sock):
                        del shaking[descriptor]
                        self._epoll.modify(descriptor, select.EPOLLIN)
                        speaking[descriptor] = worker
                        worker.greet(sock)
                else:
                    worker = speaking[descriptor]
                    worker.read()
                    if worker.over:
                        raise RuntimeError(f"worker {worker.number} was told to quit")
                    if worker.silent:
                        silent.add(worker.number)
        return time.monotonic() - begun

    def run(self, lasting: list[Lasting]) -> float:
        """Have all connect, as often as they must, until each was told to quit; return the seconds."""
        begun = time.monotonic()
        to_dial = lasting[::-1]
        shaking: dict[int, tuple[ssl.SSLSocket, Lasting]] = {}
        speaking: dict[int, Lasting] = {}
        while to_dial or shaking or speaking:
            try:
                while to_dial and len(shaking) < AT_ONCE:
                    sock = self._dial()
                    shaking[sock.fileno()] = sock, to_dial.pop()
            except OSError:  # no coordinator is there
                time.sleep(REFUSED_S)
            for descriptor, _ in self._epoll.poll(REFUSED_S if to_dial else None):
                one = shaking.get(descriptor)
                worker = one[1] if one else speaking[descriptor]
                try:
                    if one is None:
                        worker.read()
                    elif self._shaken(one[0]):
                        del shaking[descriptor]
                        self._epoll.modify(descriptor, select.EPOLLIN)
                        speaking[descriptor] = worker
                        worker.greet(one[0])
                except (OSError, LostConnection):
                    to_dial.append(worker)
                    self._leave(one[0] if one else worker.sock, shaking, speaking)
                if worker.over:
                    self._leave(worker.sock, shaking, speaking)
        return time.monotonic() - begun

    def _leave(self, sock: ssl.SSLSocket, *known: dict[int, Any]) -> None:
        """Close a connection, and forget it."""
        for connections in known:
            connections.pop(sock.fileno(), None)
        sock.close()

    def work(self) -> dict[str, float]:
        """Say hello on all connections and answer until all were told to quit."""
        begun, used = time.monotonic(), time.process_time()
        for number, worker in enumerate(self._workers.values(), 1):
            worker.sock.send(frame(HELLO % (number, 0, 0, 0)))
        commands = asked = 0
        waiting: list[tuple[float, int]] = []
        marks: list[float] = []
        while self._workers:
            due = min([at for at, _ in waiting[:1]] + marks[:1], default=None)
            patience = None if due is None else max(0.0, due - time.monotonic())
            if marks and time.monotonic() >= marks[0]:
                marks.pop(0)
                print(json.dumps({"commands": commands}), flush=True)
                if not marks:
                    break
            for descriptor, _ in self._epoll.poll(patience):
                worker = self._workers[descriptor]
                echoes, over = worker.read()
                commands += echoes
                for _ in range(echoes):
                    if not self._pause_s:
                        worker.answer()
                        continue
                    pause = self._pause_s
                    if not worker.asked:  # the first answers are spread, and so are all others
                        asked += 1
                        pause *= asked / self._count
                        if asked == self._count and self.waits:
                            first = time.monotonic() + pause + WARM_S
                            marks = [first, first + WINDOW_S]
                    heapq.heappush(waiting, (time.monotonic() + pause, descriptor))
                if over:
                    self._epoll.unregister(descriptor)
                    del self._workers[descriptor]
                    worker.sock.close()
            now = time.monotonic()
            while waiting and waiting[0][0] <= now:
                self._workers[heapq.heappop(waiting)[1]].answer()
        return {
            "seconds": time.monotonic() - begun,
            "cpu_s": time.process_time() - used,
            "commands": commands,
        }


def keep_memory() -> None:
    """Have malloc not give memory back between bursts: else that is what is measured."""
    libc = ctypes.CDLL(None)
    for option in (-1, -2, -3):  # M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD
        libc.mallopt(option, 64 * 2**20)


def main() -> None:
    if "--used" in sys.argv:
        sys.argv.remove("--used")
        Worker.tells = True
    if "--stay" in sys.argv:
        sys.argv.remove("--stay")
        Swarm.stays = True
    whole = "--whole" in sys.argv
    if whole:
        sys.argv.remove("--whole")
    folder, port, workers = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    keep_memory()
    swarm = Swarm(folder, port, workers, float(sys.argv[4]) if len(sys.argv) > 4 else 0.0)
    if len(sys.argv) > 5:
        lasting = [Lasting(number, int(sys.argv[5])) for number in range(1, workers + 1)]
        if whole:
            print(json.dumps({"done_s": swarm.run(lasting)}), flush=True)
            return
        print(json.dumps({"silent_s": swarm.last(lasting)}), flush=True)
        while sys.stdin.readline():
            for worker in lasting:
                worker.left = 1
            print(json.dumps({"resumed_s": swarm.last(lasting)}), flush=True)
        return
    print(json.dumps({"connected_s": swarm.connect()}), flush=True)
    sys.stdin.readline()
    told = swarm.work()
    if not swarm.waits:
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
