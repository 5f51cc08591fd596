"""Tells twistd of `twistd mu`. Imports nothing of mu: that happens when it is run."""

from twisted.application.service import ServiceMaker

mu = ServiceMaker("mu", "mu.service", "the mu coordinator of cloud-function workers", "mu")

relay = ServiceMaker(
    "mu-relay", "mu.relay.service", "the mu relay, on a machine of its own", "mu-relay"
)
