"""Registers `twistd mu` and `twistd mu-relay`. It imports mu only when one of them runs."""

from twisted.application.service import ServiceMaker

mu = ServiceMaker("mu", "mu.service", "the mu coordinator of cloud-function workers", "mu")

relay = ServiceMaker(
    "mu-relay", "mu.relay.service", "the mu relay, on a separate machine", "mu-relay"
)
