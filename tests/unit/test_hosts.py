"""Hosts and ports as people write them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mu.hosts import join, read_host, read_place, read_public_host, split


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("mu.example.org", "mu.example.org"),
        ("localhost", "localhost"),
        ("my_host", "my_host"),
        ("mu.example.org.", "mu.example.org."),
        ("203.0.113.7", "203.0.113.7"),
        ("::1", "::1"),
        ("[::1]", "::1"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("münchen.example", "xn--mnchen-3ya.example"),
        ("MÜNCHEN.example", "xn--mnchen-3ya.example"),
        ("日本.example", "xn--wgv71a.example"),
    ],
)
def test_a_host_is_taken(text, host):
    assert read_host(text) == read_public_host(text) == host


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("http://mu.example", "must be a host name or an IP address without a scheme, got http:"),
        ("mu.example:13579", "without a port, got mu.example:13579"),
        ("203.0.113.7:80", "without a port, got 203.0.113.7:80"),
        ("[::1]:80", "without a port, got [::1]:80"),
        ("mu .example", "must not contain spaces"),
        ("mu.example/", "must be just a host name or an IP address"),
        ("me@mu.example", "must be just a host name or an IP address"),
        ("[mu.example]", "must be a host name or an IP address, got [mu.example]"),
        *(
            (text, "must be a host name")
            for text in ("", ".", "a..b", "-a.b", "a-", "*.b", "a" * 64)
        ),
        *(
            (text, "must be a host name")
            for text in ("10.1", "999.1.1.1", "1.2.3.4.5", "010.0.0.1")
        ),
        *(
            (text, "must be a host name")
            for text in ("\ud800.b", "a\0b", "ab\u202e", "\N{SNOWMAN}.b")
        ),
    ],
)
def test_what_is_no_host_is_refused(text, says):
    for read in (read_host, read_public_host):
        with pytest.raises(ValueError, match=re.escape(says)):
            read(text)


@pytest.mark.parametrize("text", ["0.0.0.0", "::", "[::]", "fe80::1%eth0"])
def test_where_a_port_may_listen_but_nobody_can_come_is_no_public_host(text):
    assert read_host(text)
    with pytest.raises(ValueError, match="must"):
        read_public_host(text)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("a:1", "a", 1), ("1.2.3.4:65535", "1.2.3.4", 65535), ("[::1]:13337", "::1", 13337)],
)
def test_a_place_is_split_and_joined(text, host, port):
    assert split(text) == (host, port)
    assert join(host, port) == read_place(text) == text


@pytest.mark.parametrize(
    "text", ["a", "a:", ":1", "a:0", "a:65536", "::1:13337", "[::1]", "a:b", "a:٣", "a:-1", "[]:1"]
)
def test_what_is_no_place_is_refused(text):
    with pytest.raises(ValueError, match="must be"):
        read_place(text)


@given(st.text(max_size=30) | st.from_regex(r"[a-z0-9.:\[\]%-]{1,20}", fullmatch=True))
def test_any_text_is_a_host_or_a_value_error(text):
    try:
        host = read_host(text)
    except ValueError:
        return
    assert host.isascii()
    assert read_host(host) == host
