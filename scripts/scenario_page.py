"""The page docs/reference/scenario-format.md, from the models that read scenario files.

It is made from the same JSON Schema that `twin schema` prints, so the page, the editor's help and the parser agree.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from fleet.contracts.time import Duration
from harness.scenario import SCHEMA, Scenario
from scripts.tables import section

Node = dict[str, object]
"""One node of a JSON Schema."""

_HEAD: Final = f"""\
# Scenario format

This page is generated from the models that read scenario files, by `make docs`. The same models make
[scenario.schema.json](scenario.schema.json), which editors use for completion; `twin schema` prints it.

A scenario is one TOML file, in version {SCHEMA} of the format. It is closed: an unknown key is an error with file, line
and the nearest name. It cannot name its target. Lengths of time are text with units, such as `30s`, `5m`, `1h30m`, and
are always production intervals. Devices are named `device-001`, `device-002` and so on; a run may have another number
of them than the file says, and groups keep their share. In a fault, the device `triggering` is the one whose event set
the fault off.

A run goes through phases. In **set-up** every device comes up with the installed release. In **drive** the steps and
faults happen. Then faults **heal**, the fleet **converges** until what is observed equals what is desired, the checks
are judged, and everything is torn down. Safety is judged at every moment, with the [invariants](invariants.md) always
on. How a run can end is listed under [verdicts and exit codes](exit-codes.md).
"""

_KIND_KEYS: Final = ("do", "fault", "fact", "event", "check")
_CHOICES: Final = (
    ("Steps", "steps", "`[[steps]]` go one after the other. A step with `at` or `when` also waits for that."),
    ("Faults", "faults", "`[[faults]]` happen at a time or at an event, each exactly one of the two."),
    ("Checks", "checks", "`[[checks]]` are claims beyond the invariants, judged from the beginning of the drive."),
)
_FACTS: Final = (
    "Facts are what checks, waits and triggers speak about. Those with `over` are true of each device or not."
)
_EVENTS: Final = "Triggers make a step or a fault happen at an event instead of a time."


def page() -> str:
    """The whole page."""
    return "\n".join((_HEAD, *_Schema().sections()))


class _Schema:
    def __init__(self) -> None:
        self._root: Node = Scenario.model_json_schema(by_alias=True)
        self._definitions = _node(self._root["$defs"])

    def sections(self) -> Iterator[str]:
        yield self._table("The file", self._root)
        for title in _TITLES:
            yield self._table(_TITLES[title], _node(self._definitions[title]))
        for heading, field, text in _CHOICES:
            yield from self._choices(heading, text, self._members(field))
        yield from self._choices("Facts", _FACTS, self._with_kind("fact"))
        yield from self._choices("Triggers", _EVENTS, self._with_kind("event"))

    def _members(self, field: str) -> list[Node]:
        items = _node(_node(_node(self._root["properties"])[field])["items"])
        return [self._resolve(item) for item in _nodes(items["oneOf"])]

    def _with_kind(self, key: str) -> list[Node]:
        found = (_node(definition) for definition in self._definitions.values())
        return [node for node in found if key in _node(node.get("properties", {}))]

    def _choices(self, heading: str, text: str, members: list[Node]) -> Iterator[str]:
        yield f"## {heading}\n\n{text}\n"
        for member in members:
            properties = _node(member["properties"])
            key = next(key for key in _KIND_KEYS if key in properties)
            yield self._table(f'`{key} = "{_node(properties[key])["const"]}"`', member, level=3)

    def _table(self, title: str, node: Node, level: int = 2) -> str:
        required = node.get("required", [])
        assert isinstance(required, list)
        properties = _node(node["properties"])
        fields = {name: _node(value) for name, value in properties.items() if name not in _KIND_KEYS}
        rows = (
            (f"`{name}`", self._kind(field), self._default(name in required, field), _described(field))
            for name, field in fields.items()
        )
        text = _one_line(node)
        heads = ("key", "value", "default", "meaning")
        return section(title, text, heads, rows, level) if fields else f"{'#' * level} {title}\n\n{text}\n"

    def _kind(self, field: Node) -> str:
        if "const" in field:
            return f"`{field['const']}`"
        if "$ref" in field:
            return self._named(str(field["$ref"]))
        if "enum" in field:
            return _or(f"`{value}`" for value in _list(field["enum"]))
        for key in ("anyOf", "oneOf"):
            if key in field:
                return self._union(_nodes(field[key]))
        match field.get("type"):
            case "array":
                return f"list: {self._kind(_node(field['items']))}"
            case "string" if "(ns|us|ms|s|m|h|d)" in str(field.get("pattern", "")):
                return "length of time"
            case "string":
                return "text"
            case "integer":
                return _number(field)
            case "object":
                return "table of texts"
            case other:
                raise ValueError(f"the page has no words for {other!r}")

    def _union(self, members: list[Node]) -> str:
        members = [member for member in members if member.get("type") != "null"]
        kinds = [self._resolve(member) for member in members if "$ref" in member]
        for key, words in (("fact", "a [fact](#facts)"), ("event", "a [trigger](#triggers)")):
            if kinds and all(key in _node(kind.get("properties", {})) for kind in kinds):
                return words
        for heading, field, _ in _CHOICES:
            if len(kinds) > 1 and kinds == self._members(field):
                return f"a [{heading.lower().rstrip('s')}](#{heading.lower()})"
        return _or(self._kind(member) for member in members)

    def _named(self, reference: str) -> str:
        name = reference.rsplit("/", 1)[1]
        definition = _node(self._definitions[name])
        if "enum" in definition:
            return _or(f"`{value}`" for value in _list(definition["enum"]))
        return f"[{_TITLES[name].lower()}](#{_TITLES[name].lower().replace(' ', '-')})"

    def _resolve(self, node: Node) -> Node:
        return _node(self._definitions[str(node["$ref"]).rsplit("/", 1)[1]])

    def _default(self, required: bool, field: Node) -> str:
        if required:
            return "required"
        value = field.get("default")
        if "length of time" in self._kind(field) and isinstance(value, int):
            return f"`{Duration(value)}`"
        if isinstance(value, dict):
            return _or(f"`{name} = {item}`" for name, item in value.items() if item is not None) or "empty"
        if isinstance(value, list):
            return ", ".join(f"`{item}`" for item in value) or "empty"
        return "" if value is None else f"`{value}`"


_TITLES: Final = {
    "About": "Scenario",
    "Fleet": "Fleet",
    "Group": "Group",
    "ReleaseSpec": "Release",
    "ContainerSpec": "Container",
    "Count": "Count",
    "Share": "Share",
    "Tolerance": "Tolerance",
    "WindowSpec": "Window",
}


def _node(value: object) -> Node:
    assert isinstance(value, dict)
    return value


def _list(value: object) -> list[object]:
    assert isinstance(value, list)
    return value


def _nodes(value: object) -> list[Node]:
    return [_node(item) for item in _list(value)]


def _or(parts: Iterator[str]) -> str:
    return " or ".join(parts)


def _number(field: Node) -> str:
    low, high = field.get("minimum"), field.get("maximum")
    match low, high:
        case None, None:
            return "whole number"
        case _, None:
            return f"whole number from {low}"
        case _:
            return f"whole number, {low} to {high}"


def _one_line(node: Node) -> str:
    return " ".join(str(node.get("description", "")).split())


def _described(field: Node) -> str:
    text = _one_line(field)
    return "" if text == "such as 30s, 5m, 1h30m" else text
