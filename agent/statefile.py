"""The form of the agent's state files, so that an older and a newer release can live on one disk (ADR-014).

Each is a JSON object whose `v` is the `MAJOR.MINOR` of its form; a file without one is of form 1.0. A newer minor
version may add fields, which an older reader passes over, at any depth; it never changes what a field means. A file of
another major version is not understood: it is put aside whole, never changed, and counts as missing.
"""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Final, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from fleet.contracts.errors import InvalidValue

FORM: Final = "1.1"
"""What this release writes. 1.1: files say their form, and a quarantine mark says which attempt set it."""
_READABLE: Final = re.compile(r"1\.[0-9]{1,4}")

M = TypeVar("M", bound=BaseModel)


def encode(value: BaseModel) -> bytes:
    """The contents of the file that holds this value."""
    return json.dumps({"v": FORM, **value.model_dump(mode="json")}, separators=(",", ":")).encode()


def decode(kind: type[M], data: bytes) -> M:
    """Read a file of this kind, written by this release, an older or a newer one.

    Raises:
        InvalidValue: garbage, or of a form that is not understood. Says what is wrong, never what stands there.
    """
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidValue(f"not JSON: {type(error).__name__}") from None
    if not isinstance(found, dict):
        raise InvalidValue("not a JSON object")
    form = found.get("v", "1.0")
    if not isinstance(form, str) or not _READABLE.fullmatch(form):
        raise InvalidValue("of another major version of its form")
    try:
        value: M = _adapter(kind).validate_json(data, extra="ignore")
    except ValidationError as error:
        parts = [
            f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}" for problem in error.errors()[:3]
        ]
        raise InvalidValue(f"not a {kind.__name__}: {'; '.join(parts)}") from None
    return value


@cache
def _adapter(kind: type[M]) -> TypeAdapter[M]:
    return TypeAdapter(kind)
