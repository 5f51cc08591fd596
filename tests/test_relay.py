"""The relay, over real TLS in memory: who gets what."""

from relay_parts import MemoryRelay


def test_frames_go_to_the_partner_both_ways():
    relay = MemoryRelay()
    a, b = relay.join(1, 2), relay.join(2, 1)
    a.say(b"one", b"two")
    b.say(b"three")
    assert b.heard == [b"one", b"two"]
    assert a.heard == [b"three"]
