"""The page docs/reference/defects.md, from the catalogue of defects."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from typing import Final

from fleet.releases.defects.catalogue import AFTER, Defect
from scripts.tables import section

_HEAD: Final = """\
# Defects

This page is generated from `fleet/releases/defects/catalogue.py` by `make docs`.

A scenario gives a release a defect by `[[releases]]` with `defect` and, where it takes a time, `after`.
`fleet release build --defect` builds the same as a real file ([how](../how-to/build-a-release.md)). In everything that
is not said here such a release is a healthy one.
"""


def page() -> str:
    """The whole page."""
    texts = dict(_texts())
    rows = (
        (f"`{defect.value}`", texts[defect.name], f"`{AFTER[defect]}`" if defect in AFTER else "") for defect in Defect
    )
    heads = ("defect", "what it does", "`after`, when not given")
    return "\n".join((_HEAD, section("All of them", "", heads, rows)))


def _texts() -> Iterator[tuple[str, str]]:
    """The name of each member, and the text that stands below it in the source."""
    body = ast.parse(inspect.getsource(Defect)).body[0]
    assert isinstance(body, ast.ClassDef)
    name = ""
    for line in body.body:
        match line:
            case ast.Assign(targets=[ast.Name(id=name)]):
                pass
            case ast.Expr(value=ast.Constant(value=str(text))) if name:
                yield name, " ".join(text.split())
