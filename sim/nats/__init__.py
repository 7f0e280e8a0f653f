"""A semantic model of a NATS server with JetStream KV buckets, and the Bus port over it.

What it does and what it leaves out is a table, `sim.nats.surface`, that the conformance suite holds against a real
server. Beside that: connections run over a network that can be cut either way, a cut is noticed by pings that are
computed and not sent, clients reconnect with jitter, and writes that timed out may land later. Clients may log in by
token with an auth callout (`sim.nats.auth`): a session is replaced before its token ends, and ends with it.
"""

from sim.nats.auth import Callouts, SimCallout, TokenText
from sim.nats.client import BusTimings, SimBus
from sim.nats.server import NatsServer, Observer
from sim.nats.store import KvStore

__all__ = ["BusTimings", "Callouts", "KvStore", "NatsServer", "Observer", "SimBus", "SimCallout", "TokenText"]
