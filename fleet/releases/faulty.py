"""Builds releases that misbehave, for real devices: something is wrong with the program, or with the file.

A file that is not what was announced comes as two: the release to announce, whole, and below `damaged/` what to serve
in its place. The operator serves releases by their content, so that it never serves such a file: any web server does.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from fleet.contracts.ids import Architecture, Release, Version
from fleet.releases.build import RUNNING_PYTHON, BuiltRelease, build
from fleet.releases.defects.catalogue import Defect, Misbehaviour

SERVED: Final = "damaged"
"""The folder beside a release to let a web server serve: it holds `releases/<announced sha256>`."""


def build_faulty(
    version: Version,
    architecture: Architecture,
    folder: Path,
    misbehaviour: Misbehaviour,
    *,
    python: str = RUNNING_PYTHON,
    cache: Path | None = None,
) -> BuiltRelease:
    """As `fleet.releases.build.build`, with one thing wrong. The answer is what to announce. Raises as that."""
    match misbehaviour.defect:
        case Defect.WRONG_ARCHITECTURE:
            other = next(item for item in Architecture if item is not architecture)
            return _renamed(build(version, other, folder, python=python, cache=cache), architecture)
        case Defect.CORRUPT | Defect.TRUNCATED:
            built = build(version, architecture, folder, python=python, cache=cache)
            served = served_file(folder, built.release)
            served.parent.mkdir(parents=True, exist_ok=True)
            served.write_bytes(damaged(misbehaviour.defect, built.path.read_bytes()))
            return built
        case _:
            return build(version, architecture, folder, misbehaviour=misbehaviour, python=python, cache=cache)


def served_file(folder: Path, release: Release) -> Path:
    """Where the file is that is served in place of a release that was built into `folder`."""
    return folder / SERVED / "releases" / release.sha256


def damaged(defect: Defect, data: bytes) -> bytes:
    """What is served in place of `data`."""
    half = len(data) // 2
    match defect:
        case Defect.CORRUPT:
            return data[:half] + bytes(byte ^ 0xFF for byte in data[half : half + 16]) + data[half + 16 :]
        case Defect.TRUNCATED:
            return data[:half]
        case _:
            return data


def _renamed(built: BuiltRelease, architecture: Architecture) -> BuiltRelease:
    """The same file under the name of another architecture."""
    path = built.path.with_name(f"fleet-agent-v{built.release.version}-{architecture.value}")
    built.path.replace(path)
    return replace(built, path=path, architecture=architecture)
