"""How a connection ended, in words."""

import ssl

import pytest
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.python.failure import Failure

from mu.net.endings import handshake_error, loss


def test_a_peer_that_closes_and_a_connection_that_breaks_are_told_apart():
    assert loss(Failure(ConnectionDone())) == "it closed the connection"
    assert loss(Failure(ConnectionLost("no route"))).startswith("the connection broke (")
    assert "no route" in loss(Failure(ConnectionLost("no route")))


def test_a_failed_handshake_says_what_openssl_says():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    incoming = ssl.MemoryBIO()
    incoming.write(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(ssl.SSLError) as error:
        context.wrap_bio(incoming, ssl.MemoryBIO(), server_side=True).do_handshake()
    assert handshake_error(Failure(error.value)) == "TLS: http request"


def test_an_end_before_the_hello_says_how_it_came():
    expected = "it sent no hello: it closed the connection"
    assert handshake_error(Failure(ConnectionDone())) == expected
    assert handshake_error(Failure(ConnectionLost())).startswith(
        "it sent no hello: the connection broke"
    )
