"""Greps everything a test session says for every secret value it made.

Nothing filters secrets out of logs: they must not get there. So each value that any store makes is registered, and each
log record, each error of the project with all its causes, and each file that a test leaves outside a store is searched
for it: as it is, in base64 and in hexadecimal. Import `watched_secrets` into a conftest or a test file to use it.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from fleet.capabilities.secrets import Make
from fleet.contracts.errors import FleetError
from fleet.contracts.ids import ObjectName
from fleet.secrets import store

SHORTEST = 8
"""Shorter values are found in anything by chance. No store of an installation holds one."""
PRIVATE = frozenset({"secrets", "token", "openbao-token"})
"""Folders and files of tests that are there to hold secrets."""


class SecretWatch:
    """The values made so far, and where one was seen."""

    def __init__(self) -> None:
        self.values = 0
        self.searched = 0
        self._forms: dict[bytes, str] = {}

    def register(self, value: bytes) -> None:
        """Look for this value from now on."""
        if len(value) < SHORTEST or value in self._forms:
            return
        self.values += 1
        for form, name in forms(value):
            self._forms[form] = name

    def found_in(self, text: str | bytes) -> list[str]:
        """In which forms a value stands in the text. Names the forms and quotes nothing."""
        self.searched += 1
        searched = text.encode("utf-8", "backslashreplace") if isinstance(text, str) else text
        return sorted({name for form, name in self._forms.items() if form in searched})


def forms(value: bytes) -> Iterable[tuple[bytes, str]]:
    """Every spelling of a value that is looked for."""
    yield value, "raw"
    yield repr(value)[2:-1].encode(), "repr"
    yield value.hex().encode(), "hexadecimal"
    yield value.hex().upper().encode(), "hexadecimal"
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        yield encode(value).rstrip(b"="), "base64"


SESSION = SecretWatch()


class _Listening(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(logging.Formatter().format(record))


@pytest.fixture(autouse=True)
def watched_secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[SecretWatch]:
    """Registers what the test makes, and fails it when any of it, or of an earlier test, is seen."""
    errors: list[FleetError] = []
    listening = _Listening()
    _register_what_is_made(monkeypatch)
    _keep_errors(monkeypatch, errors)
    root = logging.getLogger()
    level = root.level
    root.addHandler(listening)
    root.setLevel(logging.DEBUG)
    yield SESSION
    root.setLevel(level)
    root.removeHandler(listening)
    seen: dict[str, str | bytes] = {
        **{f"log line {number}": text for number, text in enumerate(listening.texts)},
        **{f"error {number}: {type(error).__name__}": _told(error) for number, error in enumerate(errors)},
        **{str(path.relative_to(tmp_path)): path.read_bytes() for path in _open_files(tmp_path)},
    }
    leaks = [f"{place} ({', '.join(found)})" for place, text in seen.items() if (found := SESSION.found_in(text))]
    if leaks:
        pytest.fail(f"a secret value appears in {'; '.join(leaks)}", pytrace=False)


def _register_what_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    real = store._made

    def made(name: ObjectName, make: Make) -> bytes:
        value = real(name, make)
        SESSION.register(value)
        return value

    monkeypatch.setattr(store, "_made", made)


def _keep_errors(monkeypatch: pytest.MonkeyPatch, errors: list[FleetError]) -> None:
    def new(kind: type[FleetError], *args: object) -> FleetError:
        error = Exception.__new__(kind, *args)
        errors.append(error)
        return error

    monkeypatch.setattr(FleetError, "__new__", new, raising=False)


def _told(error: BaseException) -> str:
    """The error and all its causes, as text and in full, each once."""
    texts: list[str] = []
    queue: list[BaseException] = [error]
    seen: set[int] = set()
    while queue:
        one = queue.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        texts += [str(one), repr(one), repr(vars(one))]
        queue += [cause for cause in (one.__cause__, one.__context__) if cause is not None]
    return "\n".join(texts)


def _open_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if not PRIVATE & {*path.relative_to(folder).parts} and path.is_file() and not path.is_symlink():
            yield path
