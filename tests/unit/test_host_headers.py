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


PROXIED = AllowedHosts(["other"], ["mu.example.org"])


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://localhost:13580", "localhost:13580"),
        ("http://LOCALHOST:13580", "localhost:13580"),
        ("http://[::1]:13580", "[::1]:13580"),
        ("https://mu.example.org", "127.0.0.1:13580"),
        ("https://mu.example.org:8443", "mu.example.org:8443"),
    ],
)
def test_the_page_itself_and_named_proxies_may_send_requests(origin, host):
    assert PROXIED.accepts_origin(origin, host)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("null", "localhost:13580"),
        ("", ""),
        ("http://localhost:8080", "localhost:13580"),
        ("http://127.0.0.1:13580", "localhost:13580"),
        ("http://other", "localhost:13580"),
        ("http://evil.example", "localhost:13580"),
        ("http://mu.example.org.evil.example", "mu.example.org"),
        ("http://mu.example.org@evil.example", "mu.example.org"),
        ("chrome-extension://localhost:13580", "localhost:13580"),
        ("http://", ""),
    ],
)
def test_other_pages_may_not(origin, host):
    assert not PROXIED.accepts_origin(origin, host)


def test_a_proxy_may_be_named_as_the_host_too():
    assert "mu.example.org" in PROXIED
