"""Workers that come over IPv6, to the worker port and to the relay."""

import socket

import pytest
from kit.texts import one_pass, prose
from stage import Daemon, free_ports_conf


@pytest.mark.parametrize(
    ("host", "public", "relay"),
    [
        pytest.param("::1", "[::1]", "auto", marks=pytest.mark.soak),
        ("::", "::1", "auto"),
        ("::", "127.0.0.1", "[::1]:{port}"),
    ],
)
def test_a_chain_runs_over_ipv6(tmp_path, s3, joiner, host, public, relay):
    listening = f"host = {host}"
    port = 0
    if relay != "auto":
        port = free_ipv6_port()
        listening += f"\nport = {port}\naddress = {relay.format(port=port)}"
    conf = free_ports_conf(
        worker=f"host = {host}", relay=listening, launch=f"public_host = {public}"
    )
    conf = conf.replace("port = 0\nhost = ::\nport", "host = ::\nport")
    daemon = Daemon(tmp_path, s3.env, conf)
    try:
        daemon.create_function("chain", joiner)
        text = prose(50_000)
        s3.client().put_object(Bucket="films", Key="over-ipv6", Body=text)
        params = {
            "bucket": "films",
            "key": "over-ipv6",
            "out_prefix": "over-ipv6.index/",
            "every": 10,
        }
        order = {"pipeline": "chain", "workers": 2, "retries": 0, "params": params}
        job = daemon.wait(daemon.ask("/jobs", order)["id"])
    finally:
        daemon.stop()
    assert (job["state"], job["error"]) == ("done", None)
    assert job["result"]["total"] == one_pass(text, 10)[1]


def test_a_public_ipv6_address_with_ports_for_ipv4_only_is_logged(tmp_path):
    daemon = Daemon(tmp_path, conf=free_ports_conf(launch="public_host = ::1"))
    daemon.stop()
    log = daemon.process.log.read_text()
    for port in ("worker", "relay"):
        assert f"public_host = ::1 is an IPv6 address, and [{port}] host = 0.0.0.0 accepts" in log


def free_ipv6_port():
    with socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return probe.getsockname()[1]
