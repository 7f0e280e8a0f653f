"""A provider for measurements: one signing key, any number of users, and the two documents that a callout reads."""

from __future__ import annotations

import asyncio
import json
from typing import Final

from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

from fleet.contracts.ids import DeviceId
from fleet.contracts.records import Admitted, Enrolment
from fleet.contracts.time import Instant
from fleet.identity.callout.tokens import TokenRules

PROJECT: Final = "1"
_SECOND: Final = 10**9
_LIFE: Final = 12 * 3600


class StormProvider:
    """Signs tokens itself; `start` serves its keys over HTTP, where a process needs them."""

    def __init__(self, issuer: str = "http://idp.test") -> None:
        self.issuer = issuer
        self._key = RSAKey.generate_key(2048, {"kid": "1", "use": "sig"}, private=True)
        self._server: asyncio.Server | None = None

    @property
    def rules(self) -> TokenRules:
        """What its tokens say."""
        return TokenRules(self.issuer, PROJECT)

    def token(self, device: DeviceId, now: Instant) -> str:
        """A token of a device."""
        issued = now // _SECOND
        claims = {
            "iss": self.issuer,
            "sub": device,
            "aud": [PROJECT],
            "iat": issued,
            "exp": issued + _LIFE,
            f"urn:zitadel:iam:org:project:{PROJECT}:roles": {"fleet-device": {}},
        }
        return jwt.encode({"alg": "RS256", "kid": "1"}, claims, self._key, algorithms=["RS256"])

    async def fetch(self) -> bytes:
        """The SigningKeys port."""
        return json.dumps(KeySet([self._key]).as_dict(private=False)).encode()

    async def start(self) -> None:
        """Serve on loopback; `issuer` is that address from now on."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.issuer = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def close(self) -> None:
        """Serve no more."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readline()
        while (await reader.readline()).strip():
            pass
        discovery = json.dumps({"issuer": self.issuer, "jwks_uri": f"{self.issuer}/keys"}).encode()
        body = await self.fetch() if b" /keys " in line else discovery
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()


def enrolled(device: DeviceId) -> Enrolment:
    """The record that lets a device in."""
    return Enrolment(device=device, user=device, standing=Admitted(tokens_from=Instant(0)))
