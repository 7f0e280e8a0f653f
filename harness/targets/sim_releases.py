"""Releases of the virtual world: small real zips with the layout of the real ones, so that staging runs as it is.

What a virtual process does with one is decided by what stands inside it, never by its name: a byte that the
world damaged is a damaged release.
"""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256

from fleet.contracts.errors import InvalidValue
from fleet.contracts.ids import Architecture, Release, Sha256, Version
from fleet.contracts.records import Artefact
from fleet.contracts.time import Duration
from fleet.releases.faulty import damaged
from harness.releases import Defect, Misbehaviour, ReleasePlan

WEIGHT = 16 * 1024
"""How many bytes of the virtual wire one byte of a virtual release stands for (a real release has about 25 MB)."""
SIZE = 1024
ORIGIN = "http://releases.fleet.internal"
_EPOCH = (1980, 1, 1, 0, 0, 0)
_CONTENT = "site-packages/agent/release.json"


@dataclass(frozen=True, slots=True)
class VirtualRelease:
    """A release as the virtual world holds it."""

    plan: ReleasePlan
    release: Release
    data: bytes

    @property
    def served(self) -> bytes:
        """What devices are given when they fetch it."""
        return damaged(self.plan.defect, self.data)

    @property
    def url(self) -> str:
        """Where devices fetch it."""
        return f"{ORIGIN}/releases/{self.release.sha256}"

    @property
    def artefact(self) -> Artefact:
        """As an `AgentRollout` names it."""
        return Artefact(release=self.release, architecture=Architecture.AARCH64, size=len(self.data), url=self.url)


def build(plan: ReleasePlan) -> VirtualRelease:
    """Make the zip: the same bytes for the same plan, in every process."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        _add(
            archive,
            "environment.json",
            json.dumps({"build_id": f"v{plan.version}", "entry_point": "agent.__main__:main"}),
        )
        _add(archive, _CONTENT, json.dumps(_content(plan)))
        _add(archive, "site-packages/agent/ballast", "0" * SIZE)
    data = packed.getvalue()
    return VirtualRelease(plan, Release(version=plan.version, sha256=Sha256(sha256(data).hexdigest())), data)


@lru_cache(maxsize=64)
def read(data: bytes) -> ReleasePlan:
    """What a release file is.

    Raises:
        InvalidValue: the file is damaged; on a real machine the interpreter would refuse it.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            content = json.loads(archive.read(_CONTENT))
        after = content.get("after")
        misbehaviour = Misbehaviour(Defect(content["defect"]), None if after is None else Duration(after))
        return ReleasePlan(Version(content["version"]), misbehaviour)
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise InvalidValue(f"not a release: {error}") from error


def _content(plan: ReleasePlan) -> dict[str, object]:
    after = plan.misbehaviour.after
    return {"version": plan.version, "defect": plan.defect.value, **({} if after is None else {"after": after.ns})}


@lru_cache(maxsize=64)
def unpacked(data: bytes) -> dict[str, bytes]:
    """The files that are unpacked of a virtual release, by name."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist() if name.startswith("site-packages/")}


def _add(archive: zipfile.ZipFile, name: str, text: str) -> None:
    archive.writestr(zipfile.ZipInfo(name, _EPOCH), text)
