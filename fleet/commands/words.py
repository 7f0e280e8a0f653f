"""The small languages of the command line: `name=value`, groups of a rollout, and releases named by their files."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from fleet.contracts.errors import InvalidValue
from fleet.contracts.ids import Architecture, ObjectName, Percent, Release, Sha256, Version
from fleet.contracts.objects import MaxFailed, MaxUnavailable, RolloutGroup, Selector
from fleet.contracts.records import Artefact
from fleet.contracts.time import ZERO, Duration
from fleet.contracts.windows import MaintenanceWindows, Weekday, Window, known_zone
from fleet.releases.defects.catalogue import AFTER, DAMAGED, Misbehaviour
from fleet.releases.faulty import served_file

_LIMIT = re.compile(r"([0-9]{1,6})(%?)")
_WINDOW = re.compile(r"(?:([a-z,-]+) )?((?:[01][0-9]|2[0-3]):[0-5][0-9]) ([0-9a-z.]+)")
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


def group(text: str, soak: Duration = ZERO) -> RolloutGroup:
    """`NAME[:label=value[,label=value …]][@LIMIT][+SOAK]`.

    LIMIT is a count or a share such as `25%` (10% if not given), SOAK a length such as `30m` (`soak` if not given).

    Raises:
        InvalidValue.
    """
    rest, plus, length = text.partition("+")
    rest, at, limit = rest.partition("@")
    name, colon, labels = rest.partition(":")
    if colon and not labels:
        raise InvalidValue(f"{text!r} names no label after its colon")
    return RolloutGroup(
        name=ObjectName(name),
        selector=Selector(match_labels=pairs(labels.split(",")) if colon else {}),
        max_unavailable=_limit(limit) if at else MaxUnavailable(percent=Percent(10)),
        soak=Duration.parse(length) if plus else soak,
    )


def _limit(text: str) -> MaxUnavailable:
    match = _LIMIT.fullmatch(text)
    if match is None or (not match[2] and int(match[1]) == 0):
        raise InvalidValue(f"{text!r} is not a limit: write a count from 1, or a share such as 25%")
    return MaxUnavailable(percent=Percent(int(match[1]))) if match[2] else MaxUnavailable(count=int(match[1]))


def tolerance(text: str) -> MaxFailed:
    """How many devices of a group may fail: a count, or a share such as `5%`.

    Raises:
        InvalidValue.
    """
    match = _LIMIT.fullmatch(text)
    if match is None:
        raise InvalidValue(f"{text!r} is not a number of devices: write a count from 0, or a share such as 5%")
    return MaxFailed(percent=Percent(int(match[1]))) if match[2] else MaxFailed(count=int(match[1]))


def window(text: str) -> Window:
    """`[DAYS ]HH:MM LENGTH`: `mon-fri 22:00 4h`, `sat,sun 01:00 6h`, or `22:00 4h` for every day.

    Raises:
        InvalidValue.
    """
    match = _WINDOW.fullmatch(text)
    if match is None:
        raise InvalidValue(f"{text!r} is not a window: write its days, start and length, such as 'mon-fri 22:00 4h'")
    days = tuple(Weekday) if match[1] is None else _days(match[1])
    length = Duration.parse(match[3])
    if not ZERO < length <= Duration.minutes(7 * 24 * 60):
        raise InvalidValue(f"{text!r} lasts {length}: use more than nothing, and a week at most")
    return Window(days=days, start=match[2], length=length)


def windows(texts: list[str], time_zone: str) -> MaintenanceWindows | None:
    """Several windows in one zone; None when there are none.

    Raises:
        InvalidValue: one of them is none, or the zone is unknown.
    """
    weekly = tuple(window(text) for text in texts)
    known_zone(time_zone)
    return MaintenanceWindows(time_zone=time_zone, weekly=weekly) if weekly else None


def _days(text: str) -> tuple[Weekday, ...]:
    week, found = list(Weekday), list[Weekday]()
    for word in text.split(","):
        first, dash, last = word.partition("-")
        begin, end = _day(first), _day(last) if dash else _day(first)
        for step in range((week.index(end) - week.index(begin)) % len(week) + 1):
            found.append(week[(week.index(begin) + step) % len(week)])
    return tuple(dict.fromkeys(found))


def _day(text: str) -> Weekday:
    try:
        return Weekday(text)
    except ValueError:
        raise InvalidValue(f"{text!r} is not a day: use {', '.join(Weekday)}") from None


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
