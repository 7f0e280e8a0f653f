"""The page docs/reference/identity-requests.md, from the table of request shapes."""

from __future__ import annotations

from typing import Final

from fleet.adapters.zitadel_shapes import TABLE, USUAL, Encoding, Shape
from scripts.tables import section

_HEAD: Final = """\
# What the identity provider is asked

This page is generated from `fleet/adapters/zitadel_shapes.py` by `make docs`.

These are all the requests that the fleet sends to its identity provider (Zitadel), and what it reads of the answers.
[ADR-028](../adr/028-two-engines-and-a-model.md) says how far they are proven: the OAuth part by two engines, one of
them the one in production; the administrative part by nothing but its documentation until it was replayed against a
real instance.

A path without a slash at its beginning is the name of an entry of the discovery document. Requests of the administrator
carry `Authorization: Bearer …` with a token for the provider's own API, and `x-zitadel-orgid`.
"""

_TAIL: Final = """\
Elsewhere a status means: {usual}; any other 4xx, refused for good; 408, 425 and 429, try again; 5xx, try again where
asking twice does nothing twice, else look first. No error quotes a body, a header or a token.
"""


def page() -> str:
    """The whole page."""
    rows = ((shape.name, f"`{shape.method}`", f"`{shape.path}`", _sends(shape), _reads(shape)) for shape in TABLE)
    heads = ("request", "method", "path", "sends", "reads")
    usual = ", ".join(f"{status} {kind.__name__}" for status, kind in sorted(USUAL.items()))
    meant = ((shape.name, _who(shape), _refusals(shape), shape.note) for shape in TABLE)
    return "\n".join(
        (
            _HEAD,
            section("Requests", "", heads, rows),
            section("What their answers mean", "", ("request", "by", "a status", "known traps"), meant),
            _TAIL.format(usual=usual),
        )
    )


def _sends(shape: Shape) -> str:
    if shape.encoding is Encoding.NONE:
        return ""
    fields = "<br>".join(f"`{name}`: {_plain(text)}" for name, text in shape.sends.items())
    return f"{shape.encoding}<br>{fields}"


def _reads(shape: Shape) -> str:
    return "<br>".join(f"`{name}`" for name in shape.answers)


def _who(shape: Shape) -> str:
    return "administrator" if shape.by_admin else "anybody"


def _refusals(shape: Shape) -> str:
    return "<br>".join(f"{status}: {kind.__name__}" for status, kind in sorted(shape.refusals.items()))


def _plain(text: str) -> str:
    return text.replace("<", "&lt;")
