"""A release is one file that starts with nothing but Python, and the same input gives the same bytes."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import sys
import tomllib
import zipfile
from importlib.util import MAGIC_NUMBER
from pathlib import Path, PurePosixPath

import pytest

from fleet.contracts.errors import InvalidValue, Refused
from fleet.contracts.ids import Architecture, Version
from fleet.releases import build as module
from fleet.releases.build import RUNNING_PYTHON, BuiltRelease, build, default_cache, running_architecture
from fleet.releases.layer import DEPENDENCIES, LayerSpec, layer

ROOT = Path(__file__).parents[3]
ELF_AARCH64 = b"\xb7\x00"
"""What a compiled module says of its machine: not every file name tells."""
HASHED_AND_NOT_COMPARED = 0b01
"""The flags of a compiled module that is used whatever its source is (PEP 552)."""
VERSION = Version("1.2.3")
BASE_PYTHON = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"

pytestmark = pytest.mark.real


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache without finished releases that shares the installed layers: only those cost the network."""
    layers = default_cache() / "layers"
    layers.mkdir(parents=True, exist_ok=True)
    own = tmp_path / "cache"
    own.mkdir()
    (own / "layers").symlink_to(layers)
    return own


@pytest.fixture
def probe(tmp_path: Path) -> Path:
    """A package that tells what it sees when it runs inside a release."""
    package = tmp_path / "probe"
    package.mkdir()
    (package / "__init__.py").write_text(
        "import json, sys\n"
        "def main():\n"
        "    import httpx2, nats, pydantic, agent, fleet.contracts.layout\n"
        "    names = sorted(name for name in sys.modules if name.split('.')[0] in ('fleet', 'sim', 'harness'))\n"
        "    print(json.dumps([sys.argv[1:], pydantic.__file__, names]))\n"
    )
    return package


def run(built: BuiltRelease, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Start a release on the base interpreter: no virtual environment, no site-packages, no environment variables."""
    command = [str(BASE_PYTHON), "-I", "-S", str(built.path), *arguments]
    environment = {"SHIV_ROOT": str(home), "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, timeout=60, check=False)


def test_it_starts_without_any_installed_package(tmp_path: Path, cache: Path, probe: Path) -> None:
    built = build(VERSION, running_architecture(), tmp_path, entry="probe:main", extra=(probe,), cache=cache)
    done = run(built, tmp_path / "unpacked", "--hello")
    assert (done.returncode, done.stderr) == (0, "")
    arguments, pydantic, names = json.loads(done.stdout)
    assert arguments == ["--hello"]
    assert pydantic.startswith(str(tmp_path / "unpacked"))
    assert [name for name in names if name.startswith(("fleet.operator", "sim", "harness"))] == []


def test_the_file_is_what_the_answer_says(tmp_path: Path, cache: Path) -> None:
    built = build(VERSION, running_architecture(), tmp_path, cache=cache)
    data = built.path.read_bytes()
    assert built.release.version == VERSION
    assert built.release.sha256 == hashlib.sha256(data).hexdigest()
    assert built.size == len(data)
    assert built.path.parent == tmp_path
    assert data.startswith(b"#!/usr/bin/env python3\n")
    assert os.access(built.path, os.X_OK)


def test_the_same_input_gives_the_same_bytes(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build(VERSION, running_architecture(), tmp_path / "one", cache=cache)
    (cache / "finished").rename(cache / "put-aside")
    other = tmp_path / "elsewhere" / "with a longer name"
    other.mkdir(parents=True)
    monkeypatch.setenv("TMPDIR", str(other))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    previous = os.umask(0o077)
    try:
        second = build(VERSION, running_architecture(), tmp_path / "two", cache=cache)
    finally:
        os.umask(previous)
    assert first.release == second.release
    assert first.path.read_bytes() == second.path.read_bytes()


def test_a_fresh_layer_gives_the_same_bytes(tmp_path: Path, cache: Path) -> None:
    first = build(VERSION, running_architecture(), tmp_path / "one", cache=cache)
    second = build(VERSION, running_architecture(), tmp_path / "two", cache=tmp_path / "empty")
    assert first.release == second.release


def test_versions_and_entries_have_their_own_sha256(tmp_path: Path, cache: Path, probe: Path) -> None:
    here = running_architecture()
    plain = build(VERSION, here, tmp_path / "a", cache=cache)
    newer = build(Version("1.2.4"), here, tmp_path / "a", cache=cache)
    other = build(VERSION, here, tmp_path / "b", entry="probe:main", extra=(probe,), cache=cache)
    assert len({plain.release.sha256, newer.release.sha256, other.release.sha256}) == 3


def test_nothing_inside_names_the_building_machine(tmp_path: Path, cache: Path) -> None:
    built = build(VERSION, running_architecture(), tmp_path, cache=cache)
    places = [str(place).encode() for place in (ROOT, tmp_path, cache, Path(sys.prefix), BASE_PYTHON)]
    with zipfile.ZipFile(built.path) as archive:
        entries = archive.infolist()
        assert [entry.filename for entry in entries] == sorted(entry.filename for entry in entries)
        assert {entry.date_time for entry in entries} == {(1980, 1, 1, 0, 0, 0)}
        assert {entry.external_attr >> 16 for entry in entries} == {stat.S_IFREG | 0o644}
        for entry in entries:
            content = archive.read(entry)
            assert [place for place in places if place in content] == [], entry.filename


def test_every_module_comes_compiled_and_a_start_writes_none(tmp_path: Path, cache: Path, probe: Path) -> None:
    """On a full disk a start would write a part of a compiled module, and no later one would get past it."""
    built = build(VERSION, running_architecture(), tmp_path, entry="probe:main", extra=(probe,), cache=cache)
    with zipfile.ZipFile(built.path) as archive:
        packed = {name: archive.read(name) for name in archive.namelist() if name.startswith("site-packages/")}
    sources = [PurePosixPath(name) for name in packed if name.endswith(".py") and not name.endswith("bin/preamble.py")]
    assert len(sources) > 200
    for source in sources:
        compiled = packed[str(source.parent / "__pycache__" / f"{source.stem}.{sys.implementation.cache_tag}.pyc")]
        assert compiled[:4] == MAGIC_NUMBER
        assert int.from_bytes(compiled[4:8], "little") == HASHED_AND_NOT_COMPARED, source
    home = tmp_path / "unpacked"
    assert run(built, home).returncode == 0
    (unpacked,) = (path for path in home.iterdir() if path.is_dir())
    found = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file()}
    assert found == set(packed)


def test_a_part_of_a_compiled_module_is_what_a_full_disk_leaves_of_one(tmp_path: Path, cache: Path) -> None:
    """Why: with such a part in its place, the release does not start. What staging mends, by comparing it."""
    built = build(VERSION, running_architecture(), tmp_path, cache=cache)
    home = tmp_path / "unpacked"
    assert run(built, home, "--self-test").returncode == 0
    (compiled,) = home.glob(f"*/site-packages/agent/__pycache__/selftest.{sys.implementation.cache_tag}.pyc")
    compiled.write_bytes(compiled.read_bytes()[:-10])
    assert "marshal" in run(built, home, "--self-test").stderr


def test_a_release_for_another_python_is_compiled_at_each_start(tmp_path: Path, cache: Path) -> None:
    other = "3.12" if RUNNING_PYTHON != "3.12" else "3.13"
    built = build(VERSION, Architecture.AARCH64, tmp_path, python=other, cache=cache)
    with zipfile.ZipFile(built.path) as archive:
        assert [name for name in archive.namelist() if name.endswith(".pyc")] == []


def test_a_release_tells_what_it_is(tmp_path: Path, cache: Path) -> None:
    built = build(VERSION, Architecture.AARCH64, tmp_path, python="3.11", cache=cache)
    with zipfile.ZipFile(built.path) as archive:
        about = json.loads(archive.read("site-packages/agent/release.json"))
        libraries = [archive.read(name) for name in archive.namelist() if name.endswith(".so")]
    assert about == {"version": "1.2.3", "architecture": "aarch64", "python": "3.11"}
    assert libraries
    assert {library[18:20] for library in libraries} == {ELF_AARCH64}


@pytest.mark.skipif(running_architecture() is not Architecture.X86_64, reason="starts a release of the other machine")
def test_it_refuses_another_machine(tmp_path: Path, cache: Path) -> None:
    built = build(VERSION, Architecture.AARCH64, tmp_path, cache=cache)
    done = run(built, tmp_path / "unpacked", "--version")
    assert done.returncode == 1
    assert done.stderr == "release 1.2.3 is built for aarch64; this is x86_64\n"


def test_it_refuses_another_python(tmp_path: Path, cache: Path) -> None:
    python = "3.13" if sys.version_info[:2] != (3, 13) else "3.12"
    built = build(VERSION, running_architecture(), tmp_path, python=python, cache=cache)
    done = run(built, tmp_path / "unpacked", "--version")
    assert done.returncode == 1
    assert done.stderr.startswith(f"release 1.2.3 is built for Python {python}; this is Python 3.")


def test_a_finished_release_is_a_copy(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build(VERSION, running_architecture(), tmp_path / "one", cache=cache)
    monkeypatch.delattr(module, "_make")
    second = build(VERSION, running_architecture(), tmp_path / "two", cache=cache)
    assert first.release == second.release


def test_a_damaged_finished_release_is_made_anew(tmp_path: Path, cache: Path) -> None:
    first = build(VERSION, running_architecture(), tmp_path / "one", cache=cache)
    (kept,) = (cache / "finished").glob("*/*")
    kept.write_bytes(b"#!/bin/false\n")
    assert build(VERSION, running_architecture(), tmp_path / "two", cache=cache).release == first.release


def test_pip_has_the_last_word_when_it_fails(tmp_path: Path) -> None:
    spec = LayerSpec(running_architecture(), module.RUNNING_PYTHON, b"pydantic==0.0.0\n")
    with pytest.raises(Refused, match=r"could not install the agent's dependencies .*(?s:.*)pydantic") as caught:
        layer(spec, tmp_path)
    assert "pip ended with code 1" in str(caught.value)
    assert [path.name for path in (tmp_path / "layers").iterdir()] == []


@pytest.mark.parametrize("entry", ["agent.__main__", "agent main:go", "os:system;rm", ""])
def test_a_wrong_entry_is_refused(tmp_path: Path, cache: Path, entry: str) -> None:
    with pytest.raises(InvalidValue, match="entry point"):
        build(VERSION, running_architecture(), tmp_path, entry=entry, cache=cache)


def test_a_wrong_python_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="minor version"):
        build(VERSION, running_architecture(), tmp_path, python="3.11.7")


def test_an_extra_that_is_no_package_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="nowhere"):
        build(VERSION, running_architecture(), tmp_path, extra=(tmp_path / "nowhere",))


def test_the_bounds_are_those_of_the_project() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert [requirement for requirement in DEPENDENCIES if requirement not in declared] == []
