"""What is wrong with a scenario file, in one line to act on: the file, the line, the nearest right name."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from harness.schema_lines import Place


class ScenarioError(Exception):
    """A scenario cannot be used. The text is one line, `file:line: what is wrong`, fit for the end of a command.

    Args:
        text: that line.
    """


def syntax(path: Path, text: str, error: tomllib.TOMLDecodeError) -> ScenarioError:
    message = str(error)
    where = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", message)
    line = int(where[1]) if where and where[1] else text.count("\n") + 1
    return ScenarioError(f"{path}:{line}: not TOML: {message[: where.start()] if where else message}")


def first(
    model: type[BaseModel], path: Path, lines: dict[Place, int], data: dict[str, object], error: ValidationError
) -> ScenarioError:
    """Of everything that is wrong, the first unknown key (others follow from it), or else what stands first."""
    found: list[tuple[bool, int, str]] = []
    details = error.errors(include_url=False)
    for detail in details:
        if detail["type"] == "too_short" and any(_is_below(other["loc"], detail["loc"]) for other in details):
            continue  # the items are there, but wrong: that is said by their own errors
        place, text = _explain(model, detail, data)
        found.append((detail["type"] != "extra_forbidden", _line_in(lines, place), text))
    found.sort(key=lambda item: item[:2])
    _, line, text = found[0]
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return ScenarioError(f"{path}:{line}: {text}{more}")


def _is_below(loc: Place, above: Place) -> bool:
    return len(loc) > len(above) and loc[: len(above)] == above


def _explain(model: type[BaseModel], detail: ErrorDetails, data: dict[str, object]) -> tuple[Place, str]:
    place = _in_data(detail["loc"], data)
    name = shown(place)
    context = detail.get("ctx", {})
    match detail["type"]:
        case "extra_forbidden":
            key = str(detail["loc"][-1])
            allowed = _allowed(model, detail["loc"][:-1])
            return (*place, key) if place[-1:] != (key,) else place, f"unknown key {key!r}{nearest(key, allowed)}"
        case "missing":
            return place, f"{name}: the key {detail['loc'][-1]!r} is missing"
        case "union_tag_not_found":
            return place, f"{name}: the key {context['discriminator']} is missing"
        case "union_tag_invalid":
            known = re.findall(r"'([^']+)'", str(context["expected_tags"]))
            key = str(context["discriminator"]).strip("'")
            return (*place, key), f"{name}.{key}: unknown {str(context['tag'])!r}{nearest(str(context['tag']), known)}"
        case "value_error":
            return place, f"{name}: {context['error']}"
        case _:
            return place, f"{name}: {detail['msg'][:1].lower()}{detail['msg'][1:]}"


def _in_data(loc: tuple[str | int, ...], data: object) -> Place:
    """A place as the file has it: pydantic puts the tags of unions into its paths, and keys that are missing."""
    place: list[str | int] = []
    for part in loc:
        if (isinstance(data, dict) and part in data) or (
            isinstance(data, list) and isinstance(part, int) and part < len(data)
        ):
            data = data[part]  # type: ignore[index]  # checked just above, for each of the two shapes
            place.append(part)
    return tuple(place)


def _allowed(model: type[BaseModel], loc: tuple[str | int, ...]) -> list[str]:
    """The keys that a block knows, found by following a path of pydantic's through the models."""
    candidates: list[object] = [model]
    for part in loc:
        candidates = [after for candidate in candidates for after in _follow(candidate, part)]
    keys = [
        field.alias or name
        for model in candidates
        if isinstance(model, type) and issubclass(model, BaseModel)
        for name, field in model.model_fields.items()
    ]
    return sorted(set(keys))


def _follow(model: object, part: str | int) -> Iterator[object]:
    """Where one component of a path leads: into a field, or, for an index or the tag of a union, nowhere new."""
    if isinstance(part, int):
        yield model
    elif isinstance(model, type) and issubclass(model, BaseModel):
        fields = model.model_fields
        if part in fields:
            yield from _members(fields[part].annotation)
        elif part == model.__name__ or any(part in get_args(field.annotation) for field in fields.values()):
            yield model


def _members(annotation: object) -> Iterator[object]:
    """The types inside an annotation: through unions, tuples and annotations."""
    if isinstance(annotation, type) and get_origin(annotation) is None:
        yield annotation
    for inner in get_args(annotation):
        yield from _members(inner)


def nearest(name: str, known: list[str] | tuple[str, ...]) -> str:
    """The end of a sentence about an unknown name: the nearest known one, or else those that are known."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f": did you mean {close[0]!r}?"
    if not known:
        return ""
    shown = ", ".join(known[:12])
    return f": known are {shown}{' …' if len(known) > 12 else ''}"


def shown(place: Place) -> str:
    """A place for people: items are counted from 1, as steps and faults are."""
    words = [f"[{part + 1}]" if isinstance(part, int) else f".{part}" for part in place]
    return "".join(words).lstrip(".") or "the file"


def _line_in(lines: dict[Place, int], place: Place) -> int:
    while place and place not in lines:
        place = place[:-1]
    return lines.get(place, 1)


def located(path: Path, lines: dict[Place, int], place: Place, text: str) -> ScenarioError:
    """An error at a place in the file."""
    return ScenarioError(f"{path}:{_line_in(lines, place)}: {shown(place)}: {text}")
