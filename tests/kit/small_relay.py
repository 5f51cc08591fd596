"""A small relay, for jobs of a few workers: pairs names, keeps every frame, knows AT."""

import re
import socket
import threading
from collections import defaultdict
from contextlib import suppress
from typing import Any

from mu.wire import Framer, frame

LIMIT = 2**28


class _End:
    """One connection, in a thread of its own."""

    def __init__(self, relay: "SmallRelay", sock: socket.socket) -> None:
        self.relay, self.sock = relay, sock
        self.name = ""
        self.extended = self.ready = False
        self.next_in = self.next_out = 0  # frames of the name's taken and given on this connection
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        framer = Framer(LIMIT)
        with suppress(OSError), self.sock:
            while received := self.sock.recv(65536):
                for payload in framer.feed(received):
                    with self.relay.lock:
                        self.take(payload)

    def take(self, payload: bytes) -> None:
        relay = self.relay
        if not self.name:
            _, uniq, me, partner = payload.decode().split(":")
            self.name, self.partner = f"{uniq}_{me}", f"{uniq}_{partner}"
            relay.said.append(payload)
            if relay.extended:
                return
            self.ready, self.next_out = True, relay.given[self.name]
            relay.ends[self.name] = self
            relay.deliver(self.name)
        elif not self.ready:
            attempt, sent, received = map(
                int, re.fullmatch(rb"AT:(\d+):(\d+):(\d+)", payload).groups()
            )
            relay.said.append(payload)
            if attempt < relay.attempts[self.name]:
                self.sock.close()
                return
            relay.attempts[self.name] = attempt
            held = len(relay.sent[self.name])
            self.next_in, self.next_out = min(sent, held), received
            self.ready = self.extended = True
            if (older := relay.ends.get(self.name)) is not None:
                older.sock.close()
            relay.ends[self.name] = self
            self.sock.sendall(frame(b"AT:%d" % held))
            relay.deliver(self.name)
        else:
            self.next_in += 1
            held = relay.sent[self.name]
            if not self.extended or self.next_in > len(held):
                held.append(payload)
                relay.inbox[self.partner].append(payload)
            if self.extended:
                self.sock.sendall(frame(b"AT:%d" % len(held)))
            relay.deliver(self.partner)


class SmallRelay:
    """Listens on `port`. `said` has hellos and ATs, `sent` each name's frames."""

    def __init__(self, extended: bool = True) -> None:
        self.extended = extended
        self.lock = threading.Lock()
        self.said: list[bytes] = []
        self.sent: dict[str, list[bytes]] = defaultdict(list)
        self.inbox: dict[str, list[bytes]] = defaultdict(list)
        self.given: dict[str, int] = defaultdict(int)  # to plain peers, once and never again
        self.attempts: dict[str, int] = defaultdict(int)
        self.ends: dict[str, Any] = {}
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._listen, daemon=True).start()

    def deliver(self, name: str) -> None:
        end = self.ends.get(name)
        if end is None:
            return
        with suppress(OSError):
            for payload in self.inbox[name][end.next_out :]:
                end.sock.sendall(frame(b"F:" + payload if end.extended else payload))
                end.next_out = self.given[name] = end.next_out + 1

    def cut(self) -> None:
        """Lose all connections."""
        with self.lock:
            for end in self.ends.values():
                with suppress(OSError):
                    end.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)  # ends accept in its thread
        self.listener.close()
        self.cut()

    def _listen(self) -> None:
        with suppress(OSError):
            while True:
                _End(self, self.listener.accept()[0])
