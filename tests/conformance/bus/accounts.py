"""Compares what a run has exercised with the table of what the model does."""

from __future__ import annotations

from collections.abc import Iterable

from sim.nats.surface import Modelled, modelled


def shown_by() -> set[str]:
    """What the table says has to be run."""
    return {name for row in modelled() if isinstance(row.standing, Modelled) for name in row.standing.by}


def unlisted(executed: Iterable[str], listed: set[str] | None = None) -> list[str]:
    """What was run and is in no row."""
    return sorted(set(executed) - (shown_by() if listed is None else listed))


def unshown(executed: Iterable[str], listed: set[str] | None = None) -> list[str]:
    """What a row says is run, and was not."""
    return sorted((shown_by() if listed is None else listed) - set(executed))
