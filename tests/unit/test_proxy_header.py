"""The header of the PROXY protocol: what HAProxy sends, in pieces, and anything else."""

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mu.net.proxy_header import SIGNATURE, BadProxyHeader, ProxyHeader, read_proxy_header

OF_HAPROXY = (
    b"\r\n\r\n\x00\r\nQUIT\n!\x11\x00-\x7f\x00\x00\x01\x7f\x00\x00\x01\x9a\x16\xd5\x1f"
    b' \x00\x1e\x07\x00\x00\x00\x00!\x00\x07TLSv1.3"\x00\x0cmu job bench'
)
"""What HAProxy 2.6 sends for send-proxy-v2-ssl-cn."""


def field(kind, value):
    return struct.pack("!BH", kind, len(value)) + value


def header(host="192.0.2.7", port=4567, fields=b"", command=0x21, family=None):
    address = ipaddress.ip_address(host).packed
    family = family or {4: 0x11, 16: 0x21}[len(address)]
    rest = address + address + struct.pack("!HH", port, 13579) + fields
    return SIGNATURE + struct.pack("!BBH", command, family, len(rest)) + rest


def tls(name, client=0x07, failed=0):
    return field(0x20, struct.pack("!BI", client, failed) + field(0x22, name))


def test_haproxys_own_header_is_read():
    told = ProxyHeader("127.0.0.1", 39446, "mu job bench")
    assert read_proxy_header(OF_HAPROXY) == (told, len(OF_HAPROXY))


def test_what_follows_the_header_is_left_alone():
    assert read_proxy_header(OF_HAPROXY + b"\x20\x00hello")[1] == len(OF_HAPROXY)


@pytest.mark.parametrize("length", range(len(OF_HAPROXY)))
def test_the_beginning_of_a_header_is_waited_for(length):
    assert read_proxy_header(OF_HAPROXY[:length]) is None


@given(
    st.ip_addresses(),
    st.integers(0, 65535),
    st.text(max_size=64),
    st.lists(st.tuples(st.sampled_from([1, 2, 3, 4, 5, 0x30]), st.binary(max_size=40))),
)
def test_any_address_name_and_fields_are_read(host, port, name, others):
    fields = b"".join(field(*one) for one in others) + tls(name.encode("utf-8", "replace"))
    told, length = read_proxy_header(header(str(host), port, fields))
    assert (told.host, told.port) == (str(host), port)
    assert told.common_name == name.encode("utf-8", "replace").decode()
    assert length == len(header(str(host), port, fields))


@pytest.mark.parametrize(
    "fields",
    [
        b"",
        tls(b"mu job j1", client=0x01),
        tls(b"mu job j1", client=0x05),
        tls(b"mu job j1", failed=10),
        field(0x20, b"\x07\0\0\0\0"),
        field(0x20, b"\x07"),
        field(0x22, b"mu job j1"),
    ],
    ids=[
        "no TLS",
        "no certificate",
        "one of a resumed session",
        "not verified",
        "no name",
        "too short",
        "a name outside of the field about TLS",
    ],
)
def test_without_a_verified_certificate_on_this_connection_there_is_no_name(fields):
    assert read_proxy_header(header(fields=fields))[0].common_name is None


def test_a_check_of_the_proxy_itself_names_nobody():
    said = header(command=0x20, fields=tls(b"mu job j1"))
    assert read_proxy_header(said) == (ProxyHeader(), len(said))


@pytest.mark.parametrize(
    ("said", "says"),
    [
        (
            b"PROXY TCP4 192.0.2.7 192.0.2.8 1 2\r\n",
            "must begin with the header of PROXY protocol v2",
        ),
        (b"000000000008 OK:HELLO", "must begin with the header of PROXY protocol v2"),
        (b"\x16\x03\x01", "must begin with the header of PROXY protocol v2"),
        (header(command=0x11), "must have version 2 and command 0 or 1, got 0x11"),
        (header(command=0x22), "must have version 2 and command 0 or 1, got 0x22"),
        (header(family=0x31), "must be of TCP over IPv4 or IPv6, got 0x31"),
        (header(family=0x12), "must be of TCP over IPv4 or IPv6, got 0x12"),
        (header(family=0x21), "must have 36 bytes of addresses, got 12"),
        (header(fields=b"\x20"), "ends in the middle of a field"),
        (header(fields=b"\x20\0\x09mu"), "ends in the middle of a field"),
        (header(fields=field(0x20, b"\x07\0\0\0\0\x22\0\x09mu")), "ends in the middle of a field"),
    ],
)
def test_what_is_no_header_is_refused_with_what_was_expected(said, says):
    with pytest.raises(BadProxyHeader) as refused:
        read_proxy_header(said)
    assert says in str(refused.value)


@given(st.binary(max_size=300), st.booleans())
def test_nothing_but_a_bad_header_is_raised(noise, signed):
    said = SIGNATURE + noise if signed else noise
    try:
        found = read_proxy_header(said)
    except BadProxyHeader:
        return
    assert found is None or found[1] <= len(said)


@given(st.binary(max_size=200), st.sampled_from([0x11, 0x21]))
def test_the_fields_of_a_header_may_be_anything(fields, family):
    said = SIGNATURE + struct.pack("!BBH", 0x21, family, 36 + len(fields)) + bytes(36) + fields
    try:
        told, length = read_proxy_header(said)
    except BadProxyHeader:
        return
    assert length == len(said)
    assert told.common_name is None or isinstance(told.common_name, str)
