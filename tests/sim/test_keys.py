"""Simulated keys are real keys, different from each other, and the same for the same seed."""

from __future__ import annotations

import pytest

from fleet.capabilities.identity import PrivateKey
from fleet.contracts.errors import InvalidValue
from sim.keys import KEYS, SimKeyMaker, numbers
from sim.random import Random


def test_each_key_is_one() -> None:
    """The library's own check takes part of a second for each."""
    moduli = set()
    for number in range(KEYS):
        key = numbers(number).private_key()
        assert key.key_size == 2048
        moduli.add(key.private_numbers().public_numbers.n)
    assert len(moduli) == KEYS


def test_the_seed_decides_where_they_begin() -> None:
    def drawn(seed: int) -> list[bytes]:
        maker = SimKeyMaker(Random(seed << 32))
        return [maker.make().pem for _ in range(KEYS + 1)]

    one = drawn(1)
    assert one == drawn(1)
    assert len({*one}) == KEYS
    assert one[0] == one[-1]
    assert any(drawn(seed)[0] != one[0] for seed in range(2, 40))


def test_the_public_half_holds_nothing_private() -> None:
    maker = SimKeyMaker(Random(1))
    public = maker.public(maker.make())
    assert public.startswith(b"-----BEGIN PUBLIC KEY-----")
    with pytest.raises(InvalidValue):
        maker.public(PrivateKey(b"nothing"))
    with pytest.raises(InvalidValue):
        maker.public(PrivateKey(public))
