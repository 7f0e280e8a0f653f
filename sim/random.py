"""Chance from one seed: independent streams by name, so that a draw more in one place does not move the others."""

from __future__ import annotations

from hashlib import sha256
from random import Random  # noqa: TID251 - the one place that the chance of the world comes from

from fleet.contracts.time import Duration

__all__ = ["Random", "SimChance", "Streams"]


class Streams:
    """The named random streams of a world. The seed and the name alone decide what a stream draws."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._streams: dict[str, Random] = {}

    def stream(self, name: str) -> Random:
        """The stream of that name; asked for again, the same one, which continues where it stands."""
        stream = self._streams.get(name)
        if stream is None:
            digest = sha256(f"{self.seed}/{name}".encode()).digest()
            stream = self._streams[name] = Random(int.from_bytes(digest))
        return stream


class SimChance:
    """The `Chance` port over one stream."""

    def __init__(self, stream: Random) -> None:
        self._stream = stream

    def between(self, low: Duration, high: Duration) -> Duration:
        """A length in [low, high], uniformly."""
        return Duration(self._stream.randint(low, high))

    def token(self) -> str:
        """16 lower-case hexadecimal digits."""
        return f"{self._stream.getrandbits(64):016x}"
