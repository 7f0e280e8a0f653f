"""What a misbehaving release says of itself in its self-test."""

from __future__ import annotations

from typing import Final

from fleet.contracts.ids import Release, Version
from fleet.releases.defects.catalogue import Defect
from fleet.releases.defects.wrappers import another

COMPLAINT: Final = "self-test: fails on purpose"


def named(defect: Defect, own: Release) -> Release:
    """The release that a passed self-test names."""
    if defect is not Defect.SELF_TEST_LIES:
        return own
    lie = Version("9.9.9") if own.version != "9.9.9" else Version("9.9.8")
    return Release(version=lie, sha256=another(own.sha256))
