"""The watch over secret values sees each kind of leak, in each form, and nothing where there is none."""

from __future__ import annotations

import asyncio
import base64
import subprocess
import sys
from pathlib import Path

from fleet.adapters.clock import WallClock
from fleet.secrets.file import FileDocuments
from fleet.secrets.registry import GENERATED, ensure_all
from fleet.secrets.store import Secrets
from tests.secret_watch import SecretWatch

ROOT = Path(__file__).parents[3]
LEAKS = {
    "log": "logging.getLogger('x').warning('made %s', secret.value)",
    "debug": "logging.getLogger('x').debug(secret.value.hex())",
    "error": "pytest.raises(Refused, refuse, secret)",
    "cause": "pytest.raises(Refused, refuse_with_cause, secret)",
    "file": "(tmp_path / 'report.html').write_bytes(b'<p>' + base64.b64encode(secret.value))",
}
HEAD = """
import asyncio, base64, logging
import pytest
from fleet.adapters.clock import WallClock
from fleet.contracts.errors import Refused
from fleet.contracts.ids import ObjectName
from fleet.secrets.file import FileDocuments
from fleet.secrets.store import Secrets
from tests.secret_watch import watched_secrets

def refuse(secret):
    raise Refused(f"no: {secret.value!r}")

def refuse_with_cause(secret):
    try:
        raise KeyError(secret.value)
    except KeyError as error:
        raise Refused("no") from error

@pytest.fixture
def secret(tmp_path):
    clock = WallClock()
    store = Secrets(FileDocuments(tmp_path / "secrets", clock), clock)
    return asyncio.run(store.ensure(ObjectName("a"), lambda: b"planted-" + b"value"))

def test_none(tmp_path, secret):
    assert secret.value not in repr(secret).encode()
"""


def test_a_planted_leak_fails_its_test_without_quoting_the_value(tmp_path: Path) -> None:
    tests = [f"\ndef test_{name}(tmp_path, secret):\n    {leak}\n" for name, leak in LEAKS.items()]
    file = tmp_path / "test_planted.py"
    file.write_text(HEAD + "".join(tests), encoding="utf-8")
    settings = ("-c", str(ROOT / "pyproject.toml"), f"--rootdir={ROOT}", "--show-capture=no", "-rE")
    command = (sys.executable, "-m", "pytest", "-q", *settings, str(file))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert f"{len(LEAKS) + 1} passed, {len(LEAKS)} errors" in done.stdout, done.stdout
    assert done.stdout.count("\na secret value appears in") == len(LEAKS)
    assert all(f"teardown of test_{name} " in done.stdout for name in LEAKS)
    assert "planted-value" not in done.stdout


def test_all_forms_are_found_and_nothing_else() -> None:
    watch = SecretWatch()
    value = b"Aa1-\x00\xff\xfe" + bytes(range(20))
    watch.register(value)
    watch.register(b"short")
    for text, form in (
        (b"..." + value + b"...", "raw"),
        (f"x={value!r}", "repr"),
        (f"x={value.hex()}", "hexadecimal"),
        (f"x={value.hex().upper()}", "hexadecimal"),
        (f"x={base64.b64encode(value).decode()}", "base64"),
        (f"x={base64.urlsafe_b64encode(value).decode()}", "base64"),
    ):
        assert form in watch.found_in(text), form
    assert watch.found_in("nothing, short of a value") == []


def test_what_an_installation_makes_is_registered(tmp_path: Path, watched_secrets: SecretWatch) -> None:
    before, clock = watched_secrets.values, WallClock()
    for secret in asyncio.run(ensure_all(Secrets(FileDocuments(tmp_path / "secrets", clock), clock))):
        assert watched_secrets.found_in(secret.value) != []
    assert watched_secrets.values - before == len(GENERATED)
