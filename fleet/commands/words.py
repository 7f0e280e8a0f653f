"""The small languages of the command line: `name=value`, groups of a rollout, and releases named by their files."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from fleet.contracts.errors import InvalidValue
from fleet.contracts.ids import Architecture, ObjectName, Percent, Release, Sha256, Version
from fleet.contracts.objects import MaxUnavailable, RolloutGroup, Selector
from fleet.contracts.records import Artefact
from fleet.releases.defects.catalogue import AFTER, DAMAGED, Misbehaviour
from fleet.releases.faulty import served_file

_LIMIT = re.compile(r"([0-9]{1,6})(%?)")
_FILE = re.compile(r"fleet-agent-v(.+)-(x86_64|aarch64)")


def pairs(words: list[str]) -> dict[str, str]:
    """`["a=1", "b=2"]` as a mapping.

    Raises:
        InvalidValue: a word without `=`, without a name, or a name twice.
    """
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise InvalidValue(f"{word!r} is not of the form name=value")
        if name in found:
            raise InvalidValue(f"{name!r} is given twice")
        found[name] = value
    return found


def group(text: str) -> RolloutGroup:
    """`NAME[:label=value[,label=value …]][@LIMIT]`, LIMIT being a count or a share such as `25%` (10% if not given).

    Raises:
        InvalidValue.
    """
    rest, at, limit = text.partition("@")
    name, colon, labels = rest.partition(":")
    if colon and not labels:
        raise InvalidValue(f"{text!r} names no label after its colon")
    selector = Selector(match_labels=pairs(labels.split(",")) if colon else {})
    if not at:
        return RolloutGroup(name=ObjectName(name), selector=selector)
    return RolloutGroup(name=ObjectName(name), selector=selector, max_unavailable=_limit(limit))


def _limit(text: str) -> MaxUnavailable:
    match = _LIMIT.fullmatch(text)
    if match is None or (not match[2] and int(match[1]) == 0):
        raise InvalidValue(f"{text!r} is not a limit: write a count from 1, or a share such as 25%")
    return MaxUnavailable(percent=Percent(int(match[1]))) if match[2] else MaxUnavailable(count=int(match[1]))


def artefact(file: Path, served_at: str) -> Artefact:
    """A release file as an artefact: its name says version and architecture, its contents say the rest.

    Args:
        file: `fleet-agent-v<version>-<architecture>`, as `fleet release build` writes it.
        served_at: where the operator serves releases.

    Raises:
        InvalidValue: another name, empty, or not readable.
    """
    match = _FILE.fullmatch(file.name)
    if match is None:
        raise InvalidValue(f"{file.name!r} is not named like a release: fleet-agent-v<version>-<architecture>")
    try:
        with file.open("rb") as content:
            sha256 = Sha256(hashlib.file_digest(content, "sha256").hexdigest())
        size = file.stat().st_size
    except OSError as error:
        raise InvalidValue(f"{file} cannot be read: {error.strerror}") from error
    if size == 0:
        raise InvalidValue(f"{file} is empty")
    return Artefact(
        release=Release(version=Version(match[1]), sha256=sha256),
        architecture=Architecture(match[2]),
        size=size,
        url=f"{served_at}/releases/{sha256}",
    )


def warning(misbehaviour: Misbehaviour, folder: Path, release: Release) -> str:
    """What to know of a release that misbehaves, before anybody rolls it out."""
    after = f" (after {misbehaviour.delay})" if misbehaviour.defect in AFTER else ""
    text = f"WARNING: THIS RELEASE MISBEHAVES ON PURPOSE: {misbehaviour.defect}{after}. For fleets under test only."
    if misbehaviour.defect in DAMAGED:
        served = served_file(folder, release).parents[1]
        text += f"\nAnnounce the file below, and let a web server serve {served} as --releases-url."
    return text
