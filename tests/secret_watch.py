"""Greps everything that the tests say for every secret value that they made.

Nothing filters secrets out of logs: they must not get there. So each password, key and token that is made, by a store,
by enrolment, by a provider or for a run on real processes, is registered, and each log record, each error of the
project with all its causes, each journal, each output of a command, each log of a run on real processes and each file
that a test leaves is searched for it: as it is, in base64 and in hexadecimal.
"""

from __future__ import annotations

import base64
import logging
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from fleet.adapters.nats_login import PasswordLogin, TokenLogin
from fleet.capabilities.identity import PrivateKey, Token
from fleet.capabilities.secrets import Make
from fleet.contracts.errors import FleetError
from fleet.contracts.ids import ObjectName
from fleet.scores.nats_server import StaticUser
from fleet.secrets import store
from harness.targets.local_parts import RunFolder
from sim import journal

SHORTEST = 8
"""Shorter values are found in anything by chance. No store of an installation holds one."""
PRIVATE = frozenset({"secrets", "token", "openbao-token"})
"""Folders and files of tests that are there to hold secrets."""
COUNTED = "secret values made, texts searched"
"""The property of each test that says how much was done."""
OTHERS = stat.S_IRWXG | stat.S_IRWXO
"""A file that its owner alone may read is there to hold secrets, too."""
LARGEST = 4 * 1024 * 1024
"""Releases are larger; nothing that a program says is."""
SECRET_FIELDS: tuple[tuple[type, str], ...] = (
    (PasswordLogin, "password"),
    (TokenLogin, "text"),
    (Token, "text"),
    (PrivateKey, "pem"),
    (StaticUser, "password"),
)
"""The types whose every value holds a secret."""


class SecretWatch:
    """The values that are looked for now, and how much was searched in all.

    Made in a test: looked for until it ends. Made outside of one, by a fixture that several share: for good.
    """

    def __init__(self) -> None:
        self.values = 0
        self.searched = 0
        self.in_test = False
        self._shared: dict[bytes, str] = {}
        self._forms: dict[bytes, str] = {}

    @property
    def awake(self) -> bool:
        """Whether there is anything to look for."""
        return bool(self._forms or self._shared)

    def register(self, value: bytes) -> None:
        """Look for this value from now on."""
        if len(value) < SHORTEST or value in self._forms or value in self._shared:
            return
        self.values += 1
        known = self._forms if self.in_test else self._shared
        for form, name in forms(value):
            known[form] = name

    def forget(self) -> None:
        """The test is over."""
        self._forms.clear()

    def found_in(self, text: str | bytes) -> list[str]:
        """In which forms a value stands in the text. Names the forms and quotes nothing."""
        self.searched += 1
        searched = text.encode("utf-8", "backslashreplace") if isinstance(text, str) else text
        known = {**self._shared, **self._forms}
        return sorted({name for form, name in known.items() if form in searched})


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
        if SESSION.awake:
            self.texts.append(logging.Formatter().format(record))


@dataclass
class _Said:
    """What a test has said, beside its log."""

    errors: list[FleetError] = field(default_factory=list)
    journals: bytearray = field(default_factory=bytearray)
    outputs: list[str] = field(default_factory=list)
    run_logs: dict[str, bytes] = field(default_factory=dict)


@pytest.fixture(autouse=True)
def watched_secrets(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[SecretWatch]:
    """Registers what the test makes, and fails it when any of it is seen."""
    said, listening = _Said(), _Listening()
    SESSION.in_test, values, searched = True, SESSION.values, SESSION.searched
    _register_what_is_made(monkeypatch)
    _keep_what_is_said(monkeypatch, said)
    root = logging.getLogger()
    level = root.level
    root.addHandler(listening)
    root.setLevel(logging.DEBUG)
    yield SESSION
    root.setLevel(level)
    root.removeHandler(listening)
    leaks = _leaks(said, listening.texts, tmp_path) if SESSION.awake else []
    SESSION.in_test = False
    SESSION.forget()
    shows = request.node.get_closest_marker("shows_secrets") is not None
    request.node.user_properties.append((COUNTED, (SESSION.values - values, SESSION.searched - searched)))
    if shows:
        assert leaks, "this test is to show a secret, and none was seen"
    elif leaks:
        pytest.fail(f"a secret value appears in {'; '.join(leaks)}", pytrace=False)


def _leaks(said: _Said, log: list[str], folder: Path) -> list[str]:
    seen: dict[str, str | bytes] = {
        "the log": "\n".join(log),
        "a journal": bytes(said.journals),
        **{f"output {number}": text for number, text in enumerate(said.outputs)},
        **said.run_logs,
        **{f"error {number}: {type(error).__name__}": _told(error) for number, error in enumerate(said.errors)},
        **{str(path.relative_to(folder)): path.read_bytes() for path in _open_files(folder)},
    }
    return [f"{place} ({', '.join(found)})" for place, text in seen.items() if (found := SESSION.found_in(text))]


def _register_what_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    real = store._made

    def made(name: ObjectName, make: Make) -> bytes:
        value = real(name, make)
        SESSION.register(value)
        return value

    monkeypatch.setattr(store, "_made", made)
    for kind, name in SECRET_FIELDS:
        _register_each(monkeypatch, kind, name)


def _register_each(monkeypatch: pytest.MonkeyPatch, kind: type, name: str) -> None:
    """Look for that field of every value of a type."""
    real = vars(kind)["__init__"]

    def init(self: object, *args: object, **named: object) -> None:
        real(self, *args, **named)
        value = getattr(self, name)
        SESSION.register(value if isinstance(value, bytes) else value.encode())

    monkeypatch.setattr(kind, "__init__", init)


def _keep_what_is_said(monkeypatch: pytest.MonkeyPatch, said: _Said) -> None:
    def new(kind: type[FleetError], *args: object) -> FleetError:
        error = Exception.__new__(kind, *args)
        if SESSION.awake:
            said.errors.append(error)
        return error

    def event_bytes(event: journal.Event) -> bytes:
        data = real_bytes(event)
        if SESSION.awake:
            said.journals.extend(data)
        return data

    def invoke(*args: object, **named: object) -> Result:
        result: Result = real_invoke(*args, **named)  # type: ignore[arg-type]  # handed on as they came
        said.outputs.append(result.output)
        return result

    def last_words(folder: RunFolder) -> None:
        for path in folder.logs():
            said.run_logs[str(path.relative_to(folder.path))] = path.read_bytes()
        real_remove(folder)

    real_bytes, real_invoke, real_remove = journal._bytes, CliRunner.invoke, RunFolder.remove
    monkeypatch.setattr(FleetError, "__new__", new, raising=False)
    monkeypatch.setattr(journal, "_bytes", event_bytes)
    monkeypatch.setattr(CliRunner, "invoke", invoke)
    monkeypatch.setattr(RunFolder, "remove", last_words)


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
        if PRIVATE & {*path.relative_to(folder).parts} or path.is_symlink() or not path.is_file():
            continue
        about = path.stat()
        if about.st_mode & OTHERS and about.st_size <= LARGEST:
            yield path
