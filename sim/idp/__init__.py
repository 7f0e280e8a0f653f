"""A model of the identity provider: Zitadel as far as this project talks to it, behind the Http port.

What it models is what `tests/conformance/test_identity_conformance.py` asks of it and of two real providers. It leaves
out: people's passwords and sessions, refresh tokens, introspection, revocation of single tokens, rate limits, and the
time that a real instance takes until a change shows everywhere.
"""

from sim.idp.server import SimIdp as SimIdp
