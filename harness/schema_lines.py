"""Where things stand in a TOML file: the line of every key and array item.

`tomllib` reads values without their places, and a person who misspelt a key needs the line. This scanner reads
only files that `tomllib` has accepted already, so it never has to judge syntax, only to follow it.
"""

from __future__ import annotations

import re

Place = tuple[str | int, ...]
"""The path to a value: keys, and the indices of array items from 0."""

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR = re.compile(r"[^,\]}#\n]+")
_BLANK = re.compile(r"[ \t]*")


def lines_of(text: str) -> dict[Place, int]:
    """The line (from 1) of each key path; array items and tables of arrays have their index as a component."""
    return _Scanner(text.replace("\r\n", "\n")).scan()


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._lines: dict[Place, int] = {(): 1}
        self._counts: dict[Place, int] = {}

    def scan(self) -> dict[Place, int]:
        table: Place = ()
        while self._skip_space():
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)
        return self._lines

    def _line(self) -> int:
        return self._text.count("\n", 0, self._at) + 1

    def _mark(self, path: Place) -> None:
        for depth in range(1, len(path) + 1):
            self._lines.setdefault(path[:depth], self._line())

    def _skip_space(self) -> bool:
        """Go to the next thing that is neither blank nor comment; false at the end."""
        while self._at < len(self._text):
            sign = self._text[self._at]
            if sign == "#":
                end = self._text.find("\n", self._at)
                self._at = len(self._text) if end < 0 else end
            elif sign in " \t\n":
                self._at += 1
            else:
                return True
        return False

    def _blank(self) -> None:
        match = _BLANK.match(self._text, self._at)
        assert match is not None
        self._at = match.end()

    def _header(self) -> Place:
        array = self._text.startswith("[[", self._at)
        line_start = self._at
        self._at += 2 if array else 1
        keys = self._key()
        self._at = self._text.index("]]" if array else "]", self._at) + (2 if array else 1)
        path = (*self._resolve(keys[:-1]), keys[-1])
        here, self._at = self._at, line_start
        if array:
            index = self._counts.get(path, 0)
            self._counts[path] = index + 1
            path = (*path, index)
        elif path in self._counts:
            path = (*path, self._counts[path] - 1)
        self._mark(path)
        self._at = here
        return path

    def _resolve(self, keys: Place) -> Place:
        """Put the index of the latest element after each name that is an array of tables."""
        path: Place = ()
        for key in keys:
            path = (*path, key)
            if path in self._counts:
                path = (*path, self._counts[path] - 1)
        return path

    def _key(self) -> Place:
        """A dotted key, bare or quoted."""
        parts: list[str] = []
        while True:
            self._blank()
            if self._text[self._at] in "\"'":
                parts.append(self._string())
            else:
                match = _BARE.match(self._text, self._at)
                assert match is not None
                parts.append(match[0])
                self._at = match.end()
            self._blank()
            if self._text[self._at] != ".":
                return tuple(parts)
            self._at += 1

    def _pair(self, table: Place) -> None:
        line_start = self._at
        path = table + self._key()
        here, self._at = self._at, line_start
        self._mark(path)
        self._at = here + 1  # the equals sign
        self._blank()
        self._value(path)

    def _value(self, path: Place) -> None:
        match self._text[self._at]:
            case '"' | "'":
                self._string()
            case "[":
                self._array(path)
            case "{":
                self._inline_table(path)
            case _:
                match = _SCALAR.match(self._text, self._at)
                assert match is not None
                self._at = match.end()

    def _array(self, path: Place) -> None:
        self._at += 1
        index = 0
        while self._skip_space() and self._text[self._at] != "]":
            if self._text[self._at] == ",":
                self._at += 1
                continue
            self._mark((*path, index))
            self._value((*path, index))
            index += 1
        self._at += 1

    def _inline_table(self, path: Place) -> None:
        self._at += 1
        while self._skip_space() and self._text[self._at] != "}":
            if self._text[self._at] == ",":
                self._at += 1
                continue
            self._pair(path)
        self._at += 1

    def _string(self) -> str:
        """Go past a string; the answer is its text, which matters where the string is a key."""
        quote = self._text[self._at]
        if self._text.startswith(quote * 3, self._at):
            return self._long_string(quote)
        begin = self._at + 1
        end = begin
        while self._text[end] != quote:
            end += 2 if quote == '"' and self._text[end] == "\\" else 1
        self._at = end + 1
        raw = self._text[begin:end]
        return raw if quote == "'" else _unescaped(raw)

    def _long_string(self, quote: str) -> str:
        begin = end = self._at + 3
        while not self._text.startswith(quote * 3, end):
            end += 2 if quote == '"' and self._text[end] == "\\" else 1
        while self._text.startswith(quote * 4, end):  # up to two quotes may stand before the closing three
            end += 1
        self._at = end + 3
        return self._text[begin:end]


_ESCAPES = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", '"': '"', "\\": "\\"}


def _unescaped(raw: str) -> str:
    def one(match: re.Match[str]) -> str:
        code = match[1]
        return _ESCAPES[code] if code in _ESCAPES else chr(int(code[1:], 16))

    return re.sub(r"\\(u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", one, raw)
