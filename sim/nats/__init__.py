"""A semantic model of a NATS server with JetStream KV buckets, and the Bus port over it.

Modelled: one sequence per bucket, history per key, compare-and-swap, delete markers, republished writes (at most once,
to sessions that stand), any bytes under any key, the value limit, permissions per client (a forbidden publish gets no
answer), request and reply (no responders, first answer wins), connections over a network that can be cut either way,
detection by pings, reconnect with jitter, writes that time out and land later, kill -9 and restart of the server,
loss of an acknowledged tail with reuse of its revisions, logins by token with an auth callout (`sim.nats.auth`), their
end with the token, connections that are cut, sessions that are replaced before their token ends.

Not modelled:
- the wire protocol, TLS, clusters, leaf nodes, consumers, watches, queue groups, wildcards but in the last token;
- rollup and purge (the buckets refuse both), expiry and its markers, per-message TTL, other headers;
- signatures and seals of the auth callout, and passwords: a client without a token is known by its name or not at all;
- a slow consumer, a full bucket or disk, damage to the store's files, lame duck mode;
- the time the server takes to act: it costs nothing, and a restarted server serves at once;
- pings as messages: the moment at which they would have found out is computed when a link is cut.
"""

from sim.nats.auth import Callouts, SimCallout, TokenText
from sim.nats.client import BusTimings, SimBus
from sim.nats.server import NatsServer, Observer
from sim.nats.store import KvStore

__all__ = ["BusTimings", "Callouts", "KvStore", "NatsServer", "Observer", "SimBus", "SimCallout", "TokenText"]
