"""Pairs of simulated workers that pass messages through a relay. No Twisted.

    relay_swarm.py FOLDER PORT flood PAIRS BYTES IN_FLIGHT MESSAGES
    relay_swarm.py FOLDER PORT pace PAIRS BYTES A_SECOND SECONDS
    relay_swarm.py FOLDER PORT stopped 1 BYTES PATIENCE_S MESSAGES

FOLDER: as for swarm.py. `flood`: each sender keeps IN_FLIGHT messages in flight until all MESSAGES
have arrived; sender and receiver are in this process. `pace`: messages at a steady rate; measures
their latency. `stopped`: the receiver does not read; counts how many messages the relay accepts.
Prints a line when all are connected, waits for a line, and prints a line of JSON at the end.
"""

import json
import select
import socket
import ssl
import statistics
import sys
import time
from pathlib import Path

from swarm import frame, keep_memory

READ = 256 * 2**10


class Pair:
    """A sender and its receiver."""

    def __init__(self, make, number, size):
        self.sender = make(number * 2 + 1, number * 2 + 2)
        self.receiver = make(number * 2 + 2, number * 2 + 1)
        self.message = frame(b"x" * size)
        self.total = len(self.message)
        self.view = memoryview(self.message)
        self.sent = self.received = 0  # bytes
        self.into = bytearray(READ)
        self.writable = True

    def write(self, until):
        """Send until `until` bytes were sent in total; return whether the socket took them."""
        while self.sent < until:
            place = self.sent % self.total
            try:
                self.sent += self.sender.send(
                    self.view[place : min(self.total, place + until - self.sent)]
                )
            except ssl.SSLWantWriteError:
                return False
        return True

    def read(self):
        try:
            while True:
                count = self.receiver.recv_into(self.into)
                if not count:
                    raise EOFError("the relay closed a connection")
                self.received += count
        except ssl.SSLWantReadError:
            pass


def connector(folder, port):
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    context.check_hostname = False
    context.load_cert_chain(folder / "job.pem", folder / "job.key")

    def connect(me, partner):
        plain = socket.create_connection(("127.0.0.1", port))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock = context.wrap_socket(plain)
        sock.sendall(frame(b"HELLO_STATE:bench:%d:%d" % (me, partner)))
        sock.setblocking(False)
        return sock

    return connect


def flood(pairs, in_flight, messages):
    epoll = select.epoll()
    by_receiver = {pair.receiver.fileno(): pair for pair in pairs}
    by_sender = {pair.sender.fileno(): pair for pair in pairs}
    for descriptor in by_receiver:
        epoll.register(descriptor, select.EPOLLIN)
    for descriptor in by_sender:
        epoll.register(descriptor, 0)
    begun, used = time.monotonic(), time.process_time()

    def push(pair):
        """Write all messages that may be in flight, in one call."""
        end = messages * pair.total
        until = min(end, (pair.received // pair.total + in_flight) * pair.total)
        if pair.total < 2**14:  # a worker sends each message on its own
            while pair.sent < until:
                if not pair.write(pair.sent - pair.sent % pair.total + pair.total):
                    break
        else:
            pair.write(until)
        wants = select.EPOLLOUT if pair.sent < until else 0
        if wants != pair.writable:
            pair.writable = wants
            epoll.modify(pair.sender.fileno(), wants)

    for pair in pairs:
        push(pair)
    left = len(pairs)
    while left:
        for descriptor, _ in epoll.poll():
            pair = by_receiver.get(descriptor)
            if pair is not None:
                pair.read()
                left -= pair.received == messages * pair.total
            push(pair or by_sender[descriptor])
    seconds = time.monotonic() - begun
    return {
        "messages": messages * len(pairs),
        "seconds": seconds,
        "busy": (time.process_time() - used) / seconds,
    }


def pace(pairs, a_second, seconds):
    """Send at a steady rate, one pair after another; return the latency of the messages."""
    epoll = select.epoll()
    by_receiver = {pair.receiver.fileno(): pair for pair in pairs}
    for descriptor in by_receiver:
        epoll.register(descriptor, select.EPOLLIN)
    sent_at = {pair: [] for pair in pairs}
    took = []
    step, due, number = 1 / a_second, time.monotonic(), 0
    end = due + seconds
    while due < end or len(took) < number:
        now = time.monotonic()
        if due < end and now >= due:
            pair = pairs[number % len(pairs)]
            sent_at[pair].append(time.monotonic())
            pair.write(pair.sent + pair.total)
            number, due = number + 1, due + step
        for descriptor, _ in epoll.poll(max(0.0, due - time.monotonic()) if due < end else 1):
            pair = by_receiver[descriptor]
            before = pair.received // pair.total
            pair.read()
            now = time.monotonic()
            took += [now - sent_at[pair][n] for n in range(before, pair.received // pair.total)]
    return {"p99_ms": 1e3 * statistics.quantiles(took, n=100)[98], "messages": len(took)}


def stopped(pair, patience_s, messages):
    """Send until the relay takes nothing for `patience_s`; return how many messages it took."""
    poll = select.poll()
    poll.register(pair.sender, select.POLLOUT)
    last, before = time.monotonic(), 0
    while pair.sent < messages * pair.total:
        pair.write(messages * pair.total)
        if pair.sent > before:
            last, before = time.monotonic(), pair.sent
        elif time.monotonic() - last > patience_s:
            break
        poll.poll(500)
    return {"messages": pair.sent / pair.total}


def main():
    folder, port, kind = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    count, size, third, fourth = map(int, sys.argv[4:8])
    keep_memory()
    connect = connector(folder, port)
    pairs = [Pair(connect, number, size) for number in range(count)]
    print("connected", flush=True)
    sys.stdin.readline()
    if kind == "flood":
        told = flood(pairs, third, fourth)
    elif kind == "pace":
        told = pace(pairs, third, fourth)
    else:
        told = stopped(pairs[0], third, fourth)
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
