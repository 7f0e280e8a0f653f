"""The page docs/reference/nats-model.md, from the table of what the model of the NATS server does and leaves out."""

from __future__ import annotations

from typing import Final, assert_never

from scripts.tables import section
from sim.nats.surface import SURFACE, LeftOut, Modelled, Part, Row, Told

_HEAD: Final = """\
# The model of NATS

This page is generated from `sim/nats/surface.py` by `make docs`.

The virtual world has a model of a NATS server with JetStream buckets. `make conformance` makes courses of operations
by chance, runs each on the model and on a real nats-server, and requires identical observations: values, revisions,
order, what listeners hear, and the class of each error. This table says what the model does and what it leaves out,
and the suite fails at an operation that is in neither column, at a row that says `modelled` and of which nothing was
run, and at one that says `left out` and that the port offers.

A course that differs is shortened and shown with the command that runs it again: `FLEET_CONFORMANCE_SEED` chooses the
courses, `FLEET_CONFORMANCE_EXAMPLES` says how many.
"""
_COMPARED: Final = {
    Part.PORT: "Every method of the ports in `fleet/capabilities/bus.py`.",
    Part.LIBRARY: "Every method of `nats.js.kv.KeyValue`.",
    Part.HEADERS: "Every name that the server's program holds, and those of `nats.js.api.Header`.",
    Part.STREAM: "Every field of `nats.js.api.StreamConfig`, and every one the server fills in by itself.",
    Part.API: "Every method of `nats.js.manager.JetStreamManager`.",
    Part.CONNECTION: "",
    Part.SERVER: "",
}


def page() -> str:
    """The whole page."""
    heads = ("operation", "", "shown by, or why not")
    return "\n".join(
        (
            _HEAD,
            *(
                section(part.value, _COMPARED[part], heads, (_row(row) for row in SURFACE if row.part is part))
                for part in Part
            ),
        )
    )


def _row(row: Row) -> tuple[str, str, str]:
    name = row.name if " " in row.name else f"`{row.name}`"
    match row.standing:
        case Modelled(by):
            return name, "modelled", ", ".join(f"`{item}`" for item in by)
        case Told(suite):
            return name, "modelled", f"the stories of `tests/conformance/{suite}`"
        case LeftOut(because):
            return name, "left out", because
        case _:
            assert_never(row.standing)
