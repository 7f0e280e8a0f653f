"""Every provider answers every random walk as the model does. `FLEET_IDENTITY_EXAMPLES` says how many are walked."""

from __future__ import annotations

import os
from collections import Counter

import pytest

from tests.conformance.identity_walks import OPERATIONS, STEPS, Seen, Walk
from tests.conformance.idp_labs import Lab, RealPlace, on_sim
from tests.conformance.test_identity_conformance import go_provider as go_provider
from tests.conformance.test_identity_conformance import node_provider as node_provider
from tests.conformance.test_identity_conformance import told_at

EXAMPLES = int(os.environ.get("FLEET_IDENTITY_EXAMPLES", "10"))


def walked_on_the_model(number: int) -> tuple[Seen, ...]:
    found: list[tuple[Seen, ...]] = []

    async def tell(lab: Lab) -> None:
        found.append(await Walk(number, lab).go())

    on_sim(tell)
    return found[0]


def walked_at(place: RealPlace, number: int) -> tuple[Seen, ...]:
    found: list[tuple[Seen, ...]] = []

    async def tell(lab: Lab) -> None:
        found.append(await Walk(number, lab).go())

    told_at(place, tell)
    return found[0]


@pytest.mark.real
@pytest.mark.parametrize("engine", ["node", "go"])
def test_a_real_provider_answers_as_the_model(engine: str, request: pytest.FixtureRequest) -> None:
    place: RealPlace = request.getfixturevalue(f"{engine}_provider")
    for number in range(EXAMPLES):
        assert walked_at(place, number) == walked_on_the_model(number), f"walk {number} at {engine}"


def test_walks_come_by_everything() -> None:
    """A walk that meets nothing proves nothing: the operations, and the ways in which each can end."""
    seen = Counter(step for number in range(40) for step in walked_on_the_model(number))
    assert {name for name, *_ in seen} == {*OPERATIONS, "create"}
    minted = {outcome for (name, *outcomes), _ in seen.items() if "JWT profile" in name for outcome in outcomes}
    assert {"NotPermitted", "opaque"} < minted
    assert any("fleet-device" in outcome for outcome in minted)
    assert sum(seen.values()) == 40 * (STEPS + 1)


def test_a_walk_is_its_number() -> None:
    assert walked_on_the_model(5) == walked_on_the_model(5)
    assert walked_on_the_model(5) != walked_on_the_model(6)
