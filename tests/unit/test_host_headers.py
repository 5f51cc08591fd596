"""Host headers: this machine's names and all IP addresses, and nothing that can be rebound."""

import socket

import pytest

from mu.net.host_headers import AllowedHosts, split_hosts

HOSTS = AllowedHosts(["mu.example.org", "Other"])


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:13580",
        "LocalHost.:13580",
        "127.0.0.1:13580",
        "10.1.2.3",
        "[::1]:13580",
        "[fe80::1]",
        "mu.example.org:80",
        "MU.example.ORG.",
        "other",
        socket.gethostname(),
    ],
)
def test_our_own_names_and_addresses_are_allowed(host):
    assert host in HOSTS


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "evil.example:13580",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "mu.example.org.evil.example",
        "localhost@evil.example",
        "evil.example#localhost",
        "localhost:13580:evil",
        "[localhost]x",
        "0x7f000001.",
        "[]",
        ":13580",
    ],
)
def test_other_names_are_not(host):
    assert host not in HOSTS


def test_the_option_is_a_list_of_names():
    assert split_hosts("none") == []
    assert split_hosts("a, b  c,d") == ["a", "b", "c", "d"]
