"""Writes the generated reference pages. `make docs` runs it; a test compares the pages with what it would write."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from harness.scenario import json_schema
from scripts import (
    defect_page,
    identity_page,
    invariant_page,
    nats_model_page,
    nats_page,
    planted_page,
    scenario_page,
    upgrade_page,
    verdict_page,
)

FOLDER: Final = Path(__file__).parents[1] / "docs" / "reference"
PAGES: Final[dict[str, Callable[[], str]]] = {
    "nats-layout.md": nats_page.page,
    "nats-model.md": nats_model_page.page,
    "scenario-format.md": scenario_page.page,
    "defects.md": defect_page.page,
    "identity-requests.md": identity_page.page,
    "invariants.md": invariant_page.page,
    "planted-bugs.md": planted_page.page,
    "exit-codes.md": verdict_page.page,
    "scenario.schema.json": json_schema,
    "../explanation/upgrade.md": upgrade_page.page,
}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page(), encoding="utf-8")
