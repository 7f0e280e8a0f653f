"""The journal of a run as a file: JSON lines, one event each, after a header line that names the run.

A file may hold several runs, one after the other; each begins with its header, the only lines without an `event`.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Self

from sim.journal import Event, Journal, to_json


class JournalFile:
    """Appends one run to a file. Use it as a context around the run.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, path: Path, header: dict[str, str | int]) -> None:
        self._path = path
        self._header = header

    def __enter__(self) -> Self:
        self._file = self._path.open("a", encoding="utf-8")
        self._file.write(json.dumps(self._header) + "\n")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def attach(self, journal: Journal) -> None:
        """Write every later event of the journal, until the context ends (a tear-down may go on recording)."""
        journal.subscribe_all(self._write)

    def _write(self, event: Event) -> None:
        if not self._file.closed:
            self._file.write(to_json(event) + "\n")


def join(parts: list[Path], whole: Path) -> None:
    """Append the parts to the whole, in order, and remove them."""
    with whole.open("ab") as target:
        for part in parts:
            if part.exists():
                target.write(part.read_bytes())
                part.unlink()
