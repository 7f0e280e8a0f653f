"""The scanner finds the line of everything that `tomllib` reads, whatever the file looks like."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from harness.schema_lines import Place, lines_of

ROOT = Path(__file__).parents[2]
HARD = '''\
# a comment with [brackets] and "quotes"
top = "a # not a comment ] }" # a comment
"quoted.key" = 'literal \\'
a.b."c d" = [ 1, # one
  [ 2, 3 ],
  { x = "}", y.z = """
multi " line ] #
""" },
]
lit = \'\'\'
''two quotes\'\'\'\'\'
esc = "a \\" b \\\\"
date = 1979-05-27 07:32:00Z
"sm\\u00f8rgås" = 1
[ table . sub ]
k = true
[[list]]
k = { p = { q = [ "1", "]" ] } }
[[list.inner]]
m = 1
[[list.inner]]
m = 2
[list.inner.deep]
n = 3
[[list]]
k = 2
[[list.inner]]
m = 4
'''


def places(value: object, place: Place = ()) -> Iterator[Place]:
    yield place
    if isinstance(value, dict):
        for key, item in value.items():
            yield from places(item, (*place, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from places(item, (*place, index))


def test_a_file_with_every_kind_of_thing() -> None:
    lines = lines_of(HARD)
    expected: dict[Place, int] = {
        ("top",): 2,
        ("quoted.key",): 3,
        ("a", "b", "c d"): 4,
        ("a", "b", "c d", 0): 4,
        ("a", "b", "c d", 1, 1): 5,
        ("a", "b", "c d", 2, "x"): 6,
        ("a", "b", "c d", 2, "y", "z"): 6,
        ("lit",): 10,
        ("esc",): 12,
        ("date",): 13,
        ("smørgås",): 14,
        ("table", "sub"): 15,
        ("table", "sub", "k"): 16,
        ("list", 0): 17,
        ("list", 0, "k", "p", "q", 1): 18,
        ("list", 0, "inner", 0, "m"): 20,
        ("list", 0, "inner", 1, "m"): 22,
        ("list", 0, "inner", 1, "deep", "n"): 24,
        ("list", 1, "k"): 26,
        ("list", 1, "inner", 0, "m"): 28,
    }
    assert {place: lines.get(place) for place in expected} == expected
    assert set(places(tomllib.loads(HARD))) == set(lines)


@pytest.mark.parametrize("path", sorted((ROOT / "scenarios").rglob("*.toml")), ids=lambda path: path.stem)
def test_scenarios_of_the_repository(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    lines = lines_of(text)
    assert set(places(tomllib.loads(text))) == set(lines)
    for place, line in lines.items():
        if place and isinstance(place[-1], str):
            assert place[-1] in text.splitlines()[line - 1]


def test_line_ends_of_another_system() -> None:
    assert lines_of(HARD.replace("\n", "\r\n")) == lines_of(HARD)


KEYS = st.text("ab-_1", min_size=1, max_size=3) | st.sampled_from(['"x.y"', "'#z'", '"q]"'])
SCALARS = st.sampled_from(["1", "-2.5", "true", '"s"', "'] # }'", '"\\"}"', '"""\n"]\n"""', "'''a\n'b'''", "07:32:00"])
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: "[" + ", # c ]\n ".join(items) + "]")
        | st.dictionaries(KEYS, inner, max_size=2).map(
            lambda pairs: "{" + ", ".join(f"{key} = {value}" for key, value in pairs.items()) + "}"
        )
    ),
    max_leaves=6,
)


@given(st.dictionaries(KEYS, VALUES, max_size=4), st.lists(st.dictionaries(KEYS, VALUES, max_size=2), max_size=3))
def test_nothing_that_is_read_has_no_line(top: dict[str, str], tables: list[dict[str, str]]) -> None:
    parts = [f"{key} = {value}" for key, value in top.items()]
    for table in tables:
        parts += ["[[zz.list]]", *(f"{key} = {value}" for key, value in table.items())]
    text = "\n# between\n".join(parts) + "\n"
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        reject()  # two spellings of one key, or a comment in what has to stand on one line
    assert set(places(data)) == set(lines_of(text))
