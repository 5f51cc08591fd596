"""Bad days do what they say: the network, S3 and the processes of tests/faults.py."""

import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import boto3
import pytest
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from kit.faults import Faults, Proxy, S3Faults, frozen, thaw, workers_of
from kit.film import chunk, kill, order, processes, put_film, wait_until, worker_of
from stage import KEYS, Daemon, S3Server

RESET, CLOSED = "reset", "closed"


class Echo:
    """Says back what it hears, on 127.0.0.1; `takes` False: accepts, and reads nothing."""

    def __init__(self, port: int = 0, takes: bool = True) -> None:
        self._takes = takes
        self._listening = socket.create_server(("127.0.0.1", port), backlog=512)
        self.port = self._listening.getsockname()[1]
        self._connections: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self._connections.append(connection)
            if self._takes:
                threading.Thread(target=self._echo, args=(connection,), daemon=True).start()

    def _echo(self, connection: socket.socket) -> None:
        try:
            while heard := connection.recv(65536):
                connection.sendall(heard)
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            connection.close()

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for connection in self._connections:
            connection.close()


@pytest.fixture
def echo() -> Iterator[Echo]:
    running = Echo()
    yield running
    running.close()


@contextmanager
def client(proxy: Proxy) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=120) as connected:
        yield connected


def hear(connection: socket.socket, size: int) -> bytes:
    heard = b""
    while len(heard) < size and (more := connection.recv(size - len(heard))):
        heard += more
    return heard


def end_of(connection: socket.socket) -> str:
    """Return how it ends; what is heard before that does not count."""
    try:
        while connection.recv(65536):
            pass
    except ConnectionResetError:
        return RESET
    return CLOSED


def turned_away(proxy: Proxy) -> bool:
    try:
        with client(proxy) as connection:
            return end_of(connection) == RESET
    except ConnectionResetError:  # as soon as it was there
        return True


def answers(connection: socket.socket, said: bytes = b"hello") -> bool:
    connection.sendall(said)
    return hear(connection, len(said)) == said


def outcomes(seed: int, echo: Echo) -> list[str]:
    """Talk on 30 connections, one after the other, that may be cut; return what became of each."""
    came = []
    with Proxy(echo.port, seed, Faults(cut=0.5, within=5000)) as proxy:
        for _ in range(30):
            with client(proxy) as connection:
                heard, end = 0, CLOSED
                try:
                    while heard < 20_000 and answers(connection, bytes(1000)):
                        heard += 1000
                except ConnectionError:
                    end = RESET
                came.append(f"{end} after {heard}")
        assert proxy.counts["cut"] == sum(each != f"{CLOSED} after 20000" for each in came)
    return came


# ---------------------------------------------------------------- the network


def test_without_faults_all_arrives_and_ends_arrive_as_ends(echo: Echo) -> None:
    said = bytes(range(256)) * 20_000
    with Proxy(echo.port, seed=1) as proxy, client(proxy) as connection:
        threading.Thread(target=connection.sendall, args=(said,)).start()
        assert hear(connection, len(said)) == said
        connection.shutdown(socket.SHUT_WR)
        assert end_of(connection) == CLOSED
        wait_until(lambda: not proxy.open)


def test_a_seed_cuts_the_same_connections_in_the_same_way(echo: Echo) -> None:
    first = outcomes(5, echo)
    assert first == outcomes(5, echo)
    assert first != outcomes(6, echo)
    assert any(each.startswith(RESET) for each in first)
    assert any(each.startswith(CLOSED) and not each.endswith(" 20000") for each in first)
    assert sum(each.endswith(" 20000") for each in first) in range(5, 25)


def test_pieces_are_tiny_and_all_there(echo: Echo) -> None:
    said = bytes(range(250)) * 8
    with Proxy(echo.port, 1, Faults(split=1)) as proxy, client(proxy) as connection:
        connection.sendall(said)
        sizes = []
        heard = b""
        while len(heard) < len(said):
            piece = connection.recv(65536)
            sizes.append(len(piece))
            heard += piece
        assert heard == said
        assert len(sizes) > 5
        assert min(sizes) < 5
        assert "split" in str(proxy)


def test_chunks_are_late(echo: Echo) -> None:
    with Proxy(echo.port, 1, Faults(delay=1, delay_s=0.1)) as proxy, client(proxy) as connection:
        began = time.monotonic()
        for _ in range(5):
            assert answers(connection)
        assert time.monotonic() - began > 0.1


def test_stalled_connections_stay_open_and_go_on_one_way_or_both(echo: Echo) -> None:
    with Proxy(echo.port, 1, Faults(stall=1, stall_s=0.5, within=1)) as proxy:
        began = time.monotonic()
        connections = [socket.create_connection(("127.0.0.1", proxy.port)) for _ in range(20)]
        for connection in connections:
            connection.sendall(b"hello")
        for connection in connections:
            assert hear(connection, 5) == b"hello"
            connection.close()
        stalls = re.findall(r"stalled (up and down|up|down) for (\S+) s", str(proxy))
        assert time.monotonic() - began >= max(float(seconds) for _, seconds in stalls)
    assert len(stalls) == 20
    assert {ways for ways, _ in stalls} == {"up", "down", "up and down"}


def test_a_stall_of_all_takes_in_the_connections_that_come(echo: Echo) -> None:
    with Proxy(echo.port, seed=1) as proxy, client(proxy) as connection:
        assert answers(connection)
        began = time.monotonic()
        proxy.stall_all(0.3)
        with client(proxy) as late:
            assert answers(late)
            assert answers(connection)
        assert time.monotonic() - began > 0.3


def test_calm_ends_a_stall_and_all_plans(echo: Echo) -> None:
    with (
        Proxy(echo.port, 1, Faults(cut=1, delay=1, delay_s=60, split=1)) as proxy,
        client(proxy) as connection,
    ):
        wait_until(lambda: proxy.open)
        proxy.stall_all(60)
        proxy.calm()
        assert answers(connection, bytes(50_000))
        with client(proxy) as another:
            assert answers(another, bytes(50_000))


@pytest.mark.parametrize("clean", [True, False])
def test_all_connections_are_cut_at_once_and_new_ones_are_welcome(echo: Echo, clean: bool) -> None:
    with Proxy(echo.port, seed=1) as proxy:
        connections = [socket.create_connection(("127.0.0.1", proxy.port)) for _ in range(300)]
        assert all(answers(connection) for connection in connections)
        proxy.cut_all(clean=clean)
        assert {end_of(connection) for connection in connections} == {CLOSED if clean else RESET}
        for connection in connections:
            connection.close()
        wait_until(lambda: not proxy.open)
        with client(proxy) as another:
            assert answers(another)


def test_the_target_may_be_away_and_come_back_elsewhere() -> None:
    echo = Echo()
    with Proxy(None, seed=1) as proxy:
        assert turned_away(proxy)
        proxy.target = echo.port
        with client(proxy) as connection:
            assert answers(connection)
            echo.close()
        assert turned_away(proxy)
        again = Echo()
        proxy.target = again.port
        with client(proxy) as connection:
            assert answers(connection)
        again.close()


def test_who_does_not_read_is_not_written_to() -> None:
    deaf = Echo(takes=False)
    with Proxy(deaf.port, seed=1) as proxy, client(proxy) as connection:
        connection.settimeout(0.5)
        with pytest.raises(TimeoutError):
            connection.sendall(bytes(100 << 20))  # far more than the kernel's buffers
    deaf.close()


def test_closing_ends_threads_and_connections_even_stalled_ones(echo: Echo) -> None:
    before = threading.active_count()
    proxy = Proxy(echo.port, seed=1)
    with client(proxy) as connection:
        assert answers(connection)
        proxy.stall_all(60)
        connection.sendall(b"never")
        proxy.close()
        assert end_of(connection) == RESET
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", proxy.port))
    wait_until(lambda: threading.active_count() <= before + 1)  # the echo's


# ---------------------------------------------------------------- S3


KEY = "films/ä b/c+d=.png"


def s3_client(faults: S3Faults, attempts: int = 1) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=faults.url,
        region_name="us-east-1",
        aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        config=Config(retries={"total_max_attempts": attempts}),
    )


@pytest.fixture(scope="module")
def bucket(s3: S3Server) -> str:
    s3.client().create_bucket(Bucket="faults")
    return "faults"


def test_signed_requests_of_all_kinds_pass(s3: S3Server, bucket: str, tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(bytes(range(256)) * 50_000)
    with S3Faults(s3, seed=1) as faults:
        client = s3_client(faults)
        client.put_object(Bucket=bucket, Key=KEY, Body=b"small")
        assert client.get_object(Bucket=bucket, Key=KEY)["Body"].read() == b"small"
        assert client.head_object(Bucket=bucket, Key=KEY)["ContentLength"] == 5
        parts = TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20)
        client.upload_file(str(large), bucket, "large", Config=parts)
        client.download_file(bucket, "large", str(tmp_path / "again"), Config=parts)
        assert (tmp_path / "again").read_bytes() == large.read_bytes()
        listed = client.list_objects_v2(Bucket=bucket)["Contents"]
        assert {(each["Key"], each["Size"]) for each in listed} == {
            (KEY, 5),
            ("large", large.stat().st_size),
        }
        client.delete_object(Bucket=bucket, Key=KEY)
        with pytest.raises(ClientError, match="NoSuchKey"):
            client.get_object(Bucket=bucket, Key=KEY)
        assert faults.counts["requests"] > 10
        assert faults.counts["slow_down"] == faults.counts["broken"] == 0


def test_s3_says_slow_down_in_its_own_form(s3: S3Server, bucket: str) -> None:
    with S3Faults(s3, seed=1, slow_down=1) as faults:
        client = s3_client(faults)
        for ask in client.put_object, client.get_object:
            with pytest.raises(ClientError) as refused:
                ask(Bucket=bucket, Key="k")
            assert refused.value.response["Error"] == {
                "Code": "SlowDown",
                "Message": "Please reduce your request rate.",
            }
            assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
        faults.calm()
        client.put_object(Bucket=bucket, Key="k", Body=bytes(100_000))


def test_who_tries_again_gets_there(s3: S3Server, bucket: str) -> None:
    with S3Faults(s3, seed=4, slow_down=0.4) as faults:
        client = s3_client(faults, attempts=8)
        for number in range(6):
            client.put_object(Bucket=bucket, Key=f"again/{number}", Body=b"x" * 70_000)
        assert faults.counts["slow_down"] > 0
        assert faults.counts["requests"] == 6 + faults.counts["slow_down"]
        assert "told to slow down" in str(faults)


def test_s3_is_slow_and_closing_does_not_wait_for_it(s3: S3Server, bucket: str) -> None:
    faults = S3Faults(s3, seed=1, slow=1, slow_s=0.3)
    client = s3_client(faults)
    began = time.monotonic()
    for _ in range(4):
        client.list_objects_v2(Bucket=bucket)
    assert time.monotonic() - began > 0.2
    faults.close()
    sleepy = S3Faults(s3, seed=1, slow=1, slow_s=600)
    asking = threading.Thread(target=ask_in_vain, args=(sleepy, bucket))
    asking.start()
    wait_until(lambda: sleepy.counts["slow"])
    sleepy.close()
    asking.join()


def ask_in_vain(faults: S3Faults, bucket: str) -> None:
    with suppress(ClientError, BotoCoreError):
        s3_client(faults).get_object(Bucket=bucket, Key="nothing")


# ---------------------------------------------------------------- workers


def through(proxy: Proxy) -> dict[str, Any]:
    """Return what an order adds so that its workers connect to the proxy."""
    return {"event": {"port": proxy.port}}


def test_a_job_runs_through_a_slow_network_in_pieces(daemon: Daemon, s3: S3Server) -> None:
    put_film(s3, "pieces", [f"{n}\n" for n in range(8)])
    faults = Faults(split=1, delay=0.5, delay_s=0.02)
    with Proxy(daemon.ports["worker"], seed=1, faults=faults) as proxy:
        job = daemon.ask("/jobs", order("pieces", workers=4, **through(proxy)))
        job = daemon.wait(job["id"])
        assert (job["state"], job["error"]) == ("done", None), str(proxy)
        assert proxy.counts["split"] == proxy.counts["connections"] >= 4
        wait_until(lambda: workers_of(daemon) == [])  # they were told to quit through it, too
    assert chunk(s3, "pieces", 3) == "6\n7\n"


def test_the_workers_of_a_daemon_are_found_frozen_and_killed(daemon: Daemon, s3: S3Server) -> None:
    wait_until(lambda: workers_of(daemon) == [])
    put_film(s3, "found", ["slow\n"] * 6)
    job = daemon.ask("/jobs", order("found", workers=3))
    wait_until(lambda: len(workers_of(daemon)) == 3)
    workers = workers_of(daemon)
    wait_until(lambda: {*workers} <= workers_that_sleep())
    with frozen(workers[0]):
        wait_until(lambda: state_of(workers[0]) == "T")
    wait_until(lambda: state_of(workers[0]) != "T")
    kill(workers[1])
    wait_until(lambda: sorted(workers_of(daemon)) == sorted({*workers} - {workers[1]}))
    daemon.ask(f"/jobs/{job['id']}", method="DELETE")
    wait_until(lambda: workers_of(daemon) == [])
    thaw(workers[0])  # gone, which is nothing


def workers_that_sleep() -> set[int]:
    """Return those on this machine, which may run other tests, too."""
    found = set()
    for pid in processes("sleep\x00987"):
        with suppress(OSError):  # it has just ended
            found.add(worker_of(pid))
    return found


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
