"""What the suite for identity providers has compared, in numbers: for `make conformance`, and alone as

    python -m tests.conformance.identity_report [EXAMPLES]

Every story is told at the model and at each real provider of this machine, and as many random walks as asked for are
compared step for step. Ends with 1 when anything differed.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.targets.idp.install import ENGINES, missing
from tests.conformance.identity_walks import OPERATIONS, STEPS, Seen, Walk
from tests.conformance.idp_labs import Lab, RealPlace, Story, on_sim
from tests.conformance.test_identity_conformance import STORIES, told_at

USUAL: Final = 200
At = Callable[[Story], None]


@dataclass(frozen=True, slots=True)
class Compared:
    """The model beside one real provider.

    Args:
        not_run: why it could not be; None when it was.
        divergences: what did not come out as it should, by story or walk.
    """

    provider: str
    not_run: str | None
    stories: int
    walks: int
    divergences: tuple[str, ...]

    def __str__(self) -> str:
        if self.not_run is not None:
            return f"identity, {self.provider}: not run: {self.not_run}"
        told = f"{self.stories} stories, {self.walks} walks of {STEPS + 1} steps"
        return f"identity, {self.provider}: {told}, {len(self.divergences)} divergences"


def operations() -> tuple[str, ...]:
    """What walks are made of."""
    return tuple(sorted(OPERATIONS))


def compare(examples: int) -> tuple[Compared, ...]:
    """The model by itself, then beside each real provider."""
    model = Compared("the model", None, len(STORIES), 0, tuple(_stories(on_sim)))
    return (model, *(_with_engine(engine, examples) for engine in ENGINES))


def _with_engine(engine: str, examples: int) -> Compared:
    reason = missing(engine)
    if reason is not None:
        return Compared(engine, reason, 0, 0, ())
    with _running(engine) as at:
        found = [
            *_stories(at),
            *(f"walk {number}" for number in range(examples) if _walk(at, number) != _walk(on_sim, number)),
        ]
    return Compared(engine, None, len(STORIES), examples, tuple(found))


def _stories(at: At) -> Iterator[str]:
    for name, tell in STORIES.items():
        try:
            at(tell)
        except Exception as error:  # noqa: BLE001 - whatever a story ends with, it did not come out as it should
            yield f"{name}: {type(error).__name__}"


def _walk(at: At, number: int) -> tuple[Seen, ...]:
    found: list[tuple[Seen, ...]] = []

    async def tell(lab: Lab) -> None:
        found.append(await Walk(number, lab).go())

    at(tell)
    return found[0]


@contextmanager
def _running(engine: str) -> Iterator[At]:
    with tempfile.TemporaryDirectory() as folder:
        place = RealPlace(engine, Path(folder) / "state")
        try:
            yield lambda tell: told_at(place, tell)
        finally:
            place.stop()


def main() -> int:
    """Print what was compared. Returns the exit code."""
    compared = compare(int(sys.argv[1]) if len(sys.argv) > 1 else USUAL)
    for one in compared:
        print(one)
        for divergence in one.divergences:
            print(f"  {divergence}")
    print(f"identity, walked: {', '.join(operations())}")
    return int(any(one.divergences for one in compared))


if __name__ == "__main__":
    sys.exit(main())
