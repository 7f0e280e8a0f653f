"""How a person signs in at a terminal: a code that is confirmed in any browser, asked for until it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from fleet.adapters import zitadel_shapes as shapes
from fleet.adapters.zitadel import life_of, token_of
from fleet.adapters.zitadel_exchange import Exchange, body_of, error_code, refusal, text_at
from fleet.capabilities.http import HttpResponse
from fleet.capabilities.identity import Token
from fleet.contracts.errors import Disconnected, NotPermitted, Refused, TimedOut, Unavailable
from fleet.contracts.time import Duration, Instant

USUAL_INTERVAL: Final = Duration.seconds(5)
SLOWER: Final = Duration.seconds(5)
LONGEST: Final = Duration.minutes(60)


@dataclass(frozen=True, slots=True)
class Begun:
    """A sign-in that waits for a person. The code that the terminal polls with never shows in `repr`.

    Args:
        user_code: what the person is shown, and confirms.
        where: the page to confirm it on.
        where_complete: the same page with the code filled in; equal to `where` when the provider has none.
        until: when the code expires, on the monotonic clock.
        interval: the least time between two polls.
    """

    device_code: str = field(repr=False)
    user_code: str
    where: str
    where_complete: str
    until: Instant
    interval: Duration


class DeviceCodeLogin:
    """The device-code flow.

    Args:
        client: the client id of the native app that the provider knows the command as.
    """

    def __init__(self, exchange: Exchange, client: str, scopes: tuple[str, ...]) -> None:
        self._exchange = exchange
        self._client = client
        self._scopes = scopes

    async def begin(self) -> Begun:
        """Ask for a code. Raises: NotPermitted, Refused, Unavailable, TimedOut, Disconnected."""
        fields = {"client_id": self._client, "scope": " ".join(self._scopes)}
        answer, issuer = await self._exchange.ask(shapes.DEVICE_AUTHORIZATION, fields), self._exchange.issuer
        where = text_at(issuer, answer, "verification_uri")
        complete = answer.get("verification_uri_complete")
        return Begun(
            device_code=text_at(issuer, answer, "device_code"),
            user_code=text_at(issuer, answer, "user_code"),
            where=where,
            where_complete=complete if isinstance(complete, str) else where,
            until=self._exchange.clock.monotonic() + min(life_of(issuer, answer), LONGEST),
            interval=_interval(answer.get("interval")),
        )

    async def finish(self, begun: Begun) -> Token:
        """Wait until the person has confirmed it.

        Raises:
            NotPermitted: the person said no. Refused: the code expired, or the provider does not know it.
        """
        clock, interval = self._exchange.clock, begun.interval
        while clock.monotonic() < begun.until:
            await clock.sleep(interval)
            try:
                response = await self._poll(begun)
            except (Unavailable, TimedOut, Disconnected):
                interval += SLOWER
                continue
            match error_code(response):
                case "authorization_pending":
                    continue
                case "slow_down":
                    interval += SLOWER
                case "access_denied":
                    raise NotPermitted("the sign-in was denied")
                case "expired_token":
                    break
                case _:
                    return self._token(response)
        raise Refused("the code expired before it was confirmed: begin again")

    async def _poll(self, begun: Begun) -> HttpResponse:
        fields = {"grant_type": shapes.DEVICE_CODE, "device_code": begun.device_code, "client_id": self._client}
        response = await self._exchange.send(shapes.DEVICE_TOKEN, fields)
        if response.status >= 500 or response.status == 429:
            raise Unavailable(f"{self._exchange.issuer}: no answer to the poll ({response.status})")
        return response

    def _token(self, response: HttpResponse) -> Token:
        issuer, asked = self._exchange.issuer, self._exchange.clock.monotonic()
        if response.status != 200:
            raise refusal(shapes.DEVICE_TOKEN, issuer, response)
        fields = body_of(issuer, response)
        life = life_of(issuer, fields)
        return token_of(text_at(issuer, fields, "access_token"), asked, life)


def _interval(told: object) -> Duration:
    if isinstance(told, int) and not isinstance(told, bool) and 0 < told <= 60:
        return Duration(told * 10**9)
    return USUAL_INTERVAL
