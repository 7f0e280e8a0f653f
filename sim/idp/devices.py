"""The device-code flow of the modelled provider: codes that wait for a person."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from fleet.contracts.errors import NotFound
from fleet.contracts.time import Duration, Instant

INTERVAL: Final = Duration.seconds(5)


@dataclass
class Waiting:
    """A code, and what the person said of it."""

    number: str
    device_code: str
    user_code: str
    client: str
    scopes: tuple[str, ...]
    expires: Instant
    polled: Instant | None = None
    approved_by: str | None = None
    is_denied: bool = False
    is_spent: bool = False


class DeviceCodes:
    """All codes that were given out."""

    def __init__(self, life: Duration) -> None:
        self.life = life
        self._codes: list[Waiting] = []

    def begin(self, client: str, scopes: tuple[str, ...], now: Instant) -> Waiting:
        """A new code."""
        number = len(self._codes) + 1
        waiting = Waiting(
            f"V2_{number}", f"device-code-{number}", f"BCDF-{number:04d}", client, scopes, now + self.life
        )
        self._codes.append(waiting)
        return waiting

    def of_user(self, user_code: str) -> Waiting:
        """By the code that the person sees. Raises: NotFound."""
        return self._find(lambda code: code.user_code == user_code)

    def of_number(self, number: str) -> Waiting:
        """By its id. Raises: NotFound."""
        return self._find(lambda code: code.number == number)

    def poll(self, device_code: str, client: str, now: Instant) -> Waiting | str:
        """The code if it was confirmed, once; else the error of the answer."""
        try:
            code = self._find(lambda code: code.device_code == device_code and code.client == client)
        except NotFound:
            return "invalid_grant"
        early = code.polled is not None and now - code.polled < INTERVAL
        code.polled = now
        if code.is_denied:
            return "access_denied"
        if code.is_spent:
            return "invalid_grant"
        if now >= code.expires:
            return "expired_token"
        if early:
            return "slow_down"
        if code.approved_by is None:
            return "authorization_pending"
        code.is_spent = True
        return code

    def _find(self, is_it: Callable[[Waiting], bool]) -> Waiting:
        found = next((code for code in self._codes if is_it(code)), None)
        if found is None:
            raise NotFound("there is no such code")
        return found
