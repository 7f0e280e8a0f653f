"""Chance from one seed: independent streams by name, so that a draw more in one place does not move the others."""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from fleet.contracts.time import Duration

__all__ = ["Random", "SimChance", "Streams"]

_64_BITS: Final = 2**64 - 1


class Random:
    """A stream of chance that is one number: Knuth's linear congruential generator on 64 bits.

    What is drawn comes from the upper bits, which are the good ones. Not Python's own generator, for two reasons: of
    its methods only `random()` promises the same numbers in every version of Python, and a journal has to be the
    same in all of them; and it holds 2.5 kB, of which every virtual device would need several.
    """

    __slots__ = ("_state",)

    def __init__(self, seed: int) -> None:
        self._state = seed & _64_BITS

    def randrange(self, stop: int, /) -> int:
        """A whole number in [0, stop), uniformly as far as 64 bits allow."""
        self._state = state = (self._state * 6364136223846793005 + 1442695040888963407) & _64_BITS
        return (state * stop) >> 64

    def randint(self, low: int, high: int) -> int:
        """A whole number in [low, high], as `randrange`."""
        return low + self.randrange(high - low + 1)

    def random(self) -> float:
        """A number in [0, 1), uniformly."""
        return self.randrange(2**53) * 2**-53

    def bits(self) -> int:
        """64 random bits."""
        return self.randrange(2**32) << 32 | self.randrange(2**32)


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
            stream = self._streams[name] = Random(int.from_bytes(digest[:8]))
        return stream


class SimChance:
    """The `Chance` port over one stream."""

    def __init__(self, stream: Random) -> None:
        self._stream = stream

    def between(self, low: Duration, high: Duration) -> Duration:
        """A length in [low, high], uniformly."""
        least = int(low)
        return Duration(least + self._stream.randrange(int(high) - least + 1))

    def token(self) -> str:
        """16 lower-case hexadecimal digits."""
        return f"{self._stream.bits():016x}"
