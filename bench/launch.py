"""Launching: mu's client compared with boto3 in 64 threads, at an endpoint that accepts at once.

Sends Event invocations of 4 KB over HTTPS, connecting included. Each client runs in its own process
on the first core, the endpoint (accepting.py) on the second. Prints the invocations/s and the CPU
time of each client, and the ratios of mu to boto3.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAYLOAD = json.dumps({"mode": 1, "filler": "x" * 4000}).encode()
IN_FLIGHT = 64


def ask_with_mu(url: str, count: int) -> tuple[float, float]:
    from twisted.internet import reactor
    from twisted.internet.defer import Deferred

    from mu.engines.connections import Timeouts
    from mu.engines.lambda_api import LambdaEngine
    from mu.engines.routes import aws_route
    from mu.engines.signing import Credentials
    from mu.invocations import Accepted, Invocation
    from mu.launch import Launcher

    os.environ["AWS_ENDPOINT_URL_LAMBDA"] = url
    route = aws_route("us-east-1")
    engine = LambdaEngine(
        "bench", reactor, lambda region: route, lambda expired: Credentials("k", "s"), Timeouts()
    )
    answers: list[object] = []
    made = [Invocation(f"{n:016x}", "worker", "us-east-1", PAYLOAD) for n in range(count)]
    done: Deferred[None] = Deferred()

    def hear(invocation: Invocation, answer: object) -> None:
        answers.append(answer)
        if len(answers) == count:
            done.callback(None)

    launcher = Launcher(
        engine,
        IN_FLIGHT,
        reactor,
        hear,
        done.errback,
    )
    times = []

    def begin() -> None:
        times.append((time.monotonic(), time.process_time()))
        launcher.add(made)

    def end(_: object) -> None:
        times.append((time.monotonic(), time.process_time()))
        reactor.stop()

    reactor.callWhenRunning(begin)
    done.addBoth(end)
    reactor.run()
    assert answers == [Accepted()] * count, answers[:3]
    return times[1][0] - times[0][0], times[1][1] - times[0][1]


def ask_with_boto3(url: str, count: int) -> tuple[float, float]:
    from concurrent.futures import ThreadPoolExecutor

    import boto3
    from botocore.config import Config

    client = boto3.client(
        "lambda",
        region_name="us-east-1",
        endpoint_url=url,
        aws_access_key_id="k",
        aws_secret_access_key="s",
        config=Config(max_pool_connections=IN_FLIGHT),
    )

    def ask(_: int) -> int:
        answer = client.invoke(FunctionName="worker", InvocationType="Event", Payload=PAYLOAD)
        return int(answer["StatusCode"])

    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        begun, used = time.monotonic(), time.process_time()
        assert set(pool.map(ask, range(count))) == {202}
        return time.monotonic() - begun, time.process_time() - used


CLIENTS = {"mu": ask_with_mu, "boto3": ask_with_boto3}


def measure(client: str, url: str, ca: Path, count: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--client", client, "--url", url, "-n", str(count)]
    env = {**os.environ, "AWS_CA_BUNDLE": str(ca)}
    told = json.loads(subprocess.run(command, env=env, check=True, capture_output=True).stdout)
    return {"per_s": count / told[0], "cpu_ms": 1000 * told[1] / count}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "-n",
        "--count",
        type=int,
        default=0,
        help="number of invocations (default: depends on the client)",
    )
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--client", choices=CLIENTS, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client:
        os.sched_setaffinity(0, {0})
        print(json.dumps(CLIENTS[options.client](options.url, options.count)))
        return
    with tempfile.TemporaryDirectory(prefix="mu-bench-") as name:
        folder = Path(name)
        server = subprocess.Popen(
            [sys.executable, str(HERE / "accepting.py"), name], stdout=subprocess.PIPE, text=True
        )
        try:
            os.sched_setaffinity(server.pid, {1})
            assert server.stdout
            url = f"https://localhost:{int(server.stdout.readline())}"
            told: dict[str, list[dict[str, float]]] = {client: [] for client in CLIENTS}
            for _ in range(options.runs):
                for client, count in (("mu", 5000), ("boto3", 1000)):
                    count = options.count or count
                    told[client].append(measure(client, url, folder / "ca.pem", count))
        finally:
            server.terminate()
            server.wait()
    best = {
        client: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        for client, runs in told.items()
    }
    if options.json:
        print(json.dumps(best))
        return
    mu, boto3 = best["mu"], best["boto3"]
    print(
        f"launch: {mu['per_s']:,.0f} invocations/s, {mu['cpu_ms']:.3f} ms CPU each;"
        f" boto3 in {IN_FLIGHT} threads {boto3['per_s']:,.0f}/s, {boto3['cpu_ms']:.3f} ms:"
        f" {mu['per_s'] / boto3['per_s']:.1f} times its rate,"
        f" {mu['cpu_ms'] / boto3['cpu_ms']:.3f} of its CPU"
    )


if __name__ == "__main__":
    main()
