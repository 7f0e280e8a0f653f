"""The scenario file: one strict value, read from TOML, that cannot name its target.

Reading ends in a `Scenario` or in one `ScenarioError` that names the file, the line and the nearest name that would
have been right. `cast` gives the scenario its devices: a run may have another number of them than the file says, and
groups keep their share of the whole.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field, ValidationError

from fleet.contracts.errors import InvalidValue
from fleet.contracts.ids import DeviceId, ObjectName, Version
from fleet.contracts.time import Duration
from fleet.secrets.registry import GENERATED
from harness.releases import Defect, Misbehaviour, ReleasePlan
from harness.schema_base import (
    EVERY_DEVICE,
    TRIGGERING,
    DeploymentRef,
    DeviceRef,
    GroupRef,
    Length,
    Part,
    Reference,
    ReleaseRef,
    RolloutRef,
    SecretRef,
    StepRef,
    TargetDeviceRef,
    exactly_one,
)
from harness.schema_checks import Check
from harness.schema_errors import ScenarioError, first, located, nearest, syntax
from harness.schema_facts import Count, DeviceFact, LeaderIs, OperatorStarts
from harness.schema_fault_blocks import OnIdentities, OnOperator
from harness.schema_faults import KIND, FaultSpec
from harness.schema_lines import Place, lines_of
from harness.schema_steps import Deploy, OnIdentity, Step, Upgrade
from harness.targets.port import FleetPlan, Logins

SCHEMA = 1
"""The version of the file format."""
GROUP_LABEL = "group"
"""The label that every device of a group carries."""


class Group(Part):
    """Some devices under one name. They carry the label `group` with that name, and these `labels`.

    A size in `count` is read as a share of `fleet.devices`: another number of devices scales it.
    """

    name: ObjectName
    count: Annotated[int, Field(ge=1)] | None = None
    percent: Annotated[int, Field(ge=1, le=100)] | None = None
    labels: dict[str, str] = Field(default_factory=dict)

    def model_post_init(self, context: object) -> None:
        """Exactly one size."""
        exactly_one("count and percent", self.count, self.percent)
        if self.name == EVERY_DEVICE:
            raise InvalidValue(f"{EVERY_DEVICE!r} is the group of every device and needs no definition")
        if GROUP_LABEL in self.labels:
            raise InvalidValue(f"the label {GROUP_LABEL!r} is set by the group's name")

    def share(self, devices: int) -> Fraction:
        """The share of a fleet that is written for `devices`."""
        return Fraction(self.count, devices) if self.count is not None else Fraction(self.percent or 0, 100)


class Fleet(Part):
    """How many devices there are. Groups take theirs in file order; what is left over belongs to `all` alone."""

    devices: Annotated[int, Field(ge=1, le=100_000)]
    operators: Annotated[int, Field(ge=1, le=9)] = 1
    """Replicas of the operator, numbered from 0. One of them acts at a time."""
    groups: tuple[Group, ...] = ()
    installs: Annotated[int, Field(ge=1, le=9)] = 1
    """So many installations make the secrets at the same time when a run is set up; all get the same ones."""
    logins: Logins = Logins.PASSWORD
    """How devices log in: by a `password`, or by a `token` of an identity provider, which an auth callout verifies."""

    def model_post_init(self, context: object) -> None:
        """Groups are distinct and fit into the fleet."""
        _refuse_twice("group", [group.name for group in self.groups])
        if sum(group.share(self.devices) for group in self.groups) > 1:
            raise InvalidValue(f"the groups have more devices together than the {self.devices} of the fleet")


class ReleaseSpec(Part):
    """A release that exists, and how it misbehaves, if it does."""

    version: Version
    defect: Defect = Defect.NONE
    """How it misbehaves; each word is explained under [defects](defects.md)."""
    after: Length | None = None
    """With defects that show after a time only: after how long."""

    def model_post_init(self, context: object) -> None:
        """A time goes with a defect that takes one."""
        _ = self.misbehaviour

    @property
    def misbehaviour(self) -> Misbehaviour:
        """The two as one value."""
        return Misbehaviour(self.defect, self.after)


class About(Part):
    """What the scenario is called, and what it proves when it holds."""

    name: ObjectName
    proves: Annotated[str, Field(min_length=1)]
    guards_against: Annotated[str, Field(min_length=1)] | None = None
    """The failure that this file exists for, in one sentence: what happened to somebody, or would."""
    set_up_within: Length = Duration.minutes(10)
    """Every device is ready this long after the start."""
    drive_within: Length = Duration.minutes(360)
    """Steps and faults are over this long after the drive began."""
    converge_within: Length = Duration.minutes(30)
    """What is observed equals what is desired this long after everything healed."""


class Scenario(Part):
    """A fleet, a timeline of steps, faults, and checks."""

    schema_version: Annotated[Literal[1], Field(alias="schema")]
    scenario: About
    fleet: Fleet
    installed: ReleaseRef
    """The release that every device has, verified, when the run begins."""
    releases: Annotated[tuple[ReleaseSpec, ...], Field(min_length=1)]
    steps: tuple[Step, ...] = ()
    faults: tuple[FaultSpec, ...] = ()
    checks: Annotated[tuple[Check, ...], Field(min_length=1)]

    @property
    def name(self) -> str:
        """The scenario's name."""
        return self.scenario.name

    def model_post_init(self, context: object) -> None:
        """Versions are distinct."""
        _refuse_twice("release", [release.version for release in self.releases])


def _refuse_twice(kind: str, names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise InvalidValue(f"{kind} {name} is defined twice")


@dataclass(frozen=True, slots=True)
class Cast:
    """A scenario with its devices: who is there, and who belongs to which group."""

    scenario: Scenario
    plan: FleetPlan
    groups: dict[str, tuple[DeviceId, ...]]

    @property
    def devices(self) -> tuple[DeviceId, ...]:
        """Every device, in order."""
        return self.plan.devices

    def members(self, group: str | None) -> tuple[DeviceId, ...]:
        """The devices of a group; every device for None."""
        return self.groups[group or EVERY_DEVICE]

    def labels_of(self, group: str) -> dict[str, str]:
        """The labels that select a group's devices and no other."""
        return {} if group == EVERY_DEVICE else {GROUP_LABEL: group}


def device_names(count: int) -> tuple[DeviceId, ...]:
    """`device-001` and so on."""
    return tuple(DeviceId(f"device-{number:03d}") for number in range(1, count + 1))


@dataclass(frozen=True, slots=True)
class Loaded:
    """A scenario and the file it came from, for errors that show only when the number of devices is known."""

    scenario: Scenario
    path: Path
    lines: dict[Place, int]

    def cast(self, devices: int | None = None) -> Cast:
        """Give the scenario `devices` devices (None: as many as the file says).

        Each group keeps its share, rounded down at its upper boundary, and at least one device.

        Raises:
            ScenarioError: the fleet is too small for its groups, or the file names a device that does not exist.
        """
        count = devices or self.scenario.fleet.devices
        if devices is not None and devices < 1:
            raise ScenarioError(f"{self.path}: a fleet needs at least one device, not {devices}")
        names = device_names(count)
        groups = self._groups(names)
        self._check_references(names)
        self._check_counts(groups)
        labels = {name: dict[str, str]() for name in names}
        for group in self.scenario.fleet.groups:
            for member in groups[group.name]:
                labels[member] = {GROUP_LABEL: group.name, **group.labels}
        releases = tuple(ReleasePlan(release.version, release.misbehaviour) for release in self.scenario.releases)
        self._check_replicas()
        operators = self.scenario.fleet.operators
        faults = frozenset(KIND[type(fault)] for fault in self.scenario.faults)
        installed = Version(self.scenario.installed)
        self._check_identities()
        logins = self.scenario.fleet.logins
        installs = self.scenario.fleet.installs
        plan = FleetPlan(names, tuple(labels.values()), releases, installed, operators, faults, logins, installs)
        return Cast(self.scenario, plan, groups)

    def _groups(self, names: tuple[DeviceId, ...]) -> dict[str, tuple[DeviceId, ...]]:
        groups = {EVERY_DEVICE: names}
        begin, share = 0, Fraction(0)
        for index, group in enumerate(self.scenario.fleet.groups):
            share += group.share(self.scenario.fleet.devices)
            end = max(begin + 1, int(share * len(names)))
            if end > len(names):
                raise self._error(
                    ("fleet", "groups", index), f"a fleet of {len(names)} is too small for group {group.name}"
                )
            groups[group.name] = names[begin:end]
            begin = end
        return groups

    def _check_references(self, names: tuple[DeviceId, ...]) -> None:
        known = _known(self.scenario, names)
        for place, value in _references(self.scenario, ()):
            if isinstance(value, TargetDeviceRef) and value == TRIGGERING:
                continue
            if isinstance(value, StepRef):
                if value > len(self.scenario.steps):
                    raise self._error(place, f"there is no step {value:d}: the file has {len(self.scenario.steps)}")
                continue
            if value in known[value.refers]:
                continue
            if isinstance(value, DeviceRef) and value in device_names(self.scenario.fleet.devices):
                raise self._error(place, f"{value} does not exist in a fleet of {len(names)} devices")
            raise self._error(place, f"there is no {value.refers} {str(value)!r}{nearest(value, known[value.refers])}")

    def _check_replicas(self) -> None:
        operators = self.scenario.fleet.operators
        for place, value in _walk(self.scenario, ()):
            if not isinstance(value, OnOperator | LeaderIs | OperatorStarts):
                continue
            number = value.replica
            if isinstance(number, int) and number >= operators:
                text = f"there is no operator replica {number}: fleet.operators is {operators}, they count from 0"
                raise self._error((*place, "replica"), text)
            if number == "standby" and operators == 1:
                raise self._error((*place, "replica"), "no replica stands by: fleet.operators is 1")

    def _check_identities(self) -> None:
        if self.scenario.fleet.logins is Logins.TOKEN:
            return
        for place, value in _walk(self.scenario, ()):
            if isinstance(value, OnIdentities | OnIdentity):
                what = f"a {type(value).__name__}"
                raise self._error(place, f'{what} needs devices that log in by tokens: set fleet.logins = "token"')

    def _check_counts(self, groups: dict[str, tuple[DeviceId, ...]]) -> None:
        for place, fact in _facts(self.scenario, ()):
            total = len(fact.devices) if fact.devices is not None else len(groups[fact.group or EVERY_DEVICE])
            if not isinstance(fact.over, Count):
                continue
            wanted = fact.over.count or fact.over.at_least or 0
            if wanted > total:
                raise self._error(
                    (*place, "over"), f"{wanted} devices cannot do this: there are {total} ({fact.where})"
                )

    def _error(self, place: Place, text: str) -> ScenarioError:
        return located(self.path, self.lines, place, text)


def _known(scenario: Scenario, devices: tuple[DeviceId, ...]) -> dict[str, tuple[str, ...]]:
    return {
        GroupRef.refers: (EVERY_DEVICE, *(group.name for group in scenario.fleet.groups)),
        DeviceRef.refers: devices,
        ReleaseRef.refers: tuple(release.version for release in scenario.releases),
        DeploymentRef.refers: tuple(step.name for step in scenario.steps if isinstance(step, Deploy)),
        RolloutRef.refers: tuple(step.name for step in scenario.steps if isinstance(step, Upgrade)),
        SecretRef.refers: tuple(item.name for item in GENERATED),
    }


def _walk(value: object, place: Place) -> Iterator[tuple[Place, object]]:
    yield place, value
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _walk(getattr(value, name), (*place, name))
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from _walk(item, (*place, index))


def _references(scenario: Scenario, place: Place) -> Iterator[tuple[Place, Reference | StepRef]]:
    for where, value in _walk(scenario, place):
        if isinstance(value, Reference | StepRef):
            yield where, value


def _facts(scenario: Scenario, place: Place) -> Iterator[tuple[Place, DeviceFact]]:
    for where, value in _walk(scenario, place):
        if isinstance(value, DeviceFact):
            yield where, value


def load(path: Path) -> Loaded:
    """Read a scenario file and check it at the number of devices it states.

    Raises:
        ScenarioError: it cannot be read, is not TOML, or does not say what a scenario has to.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path}: cannot be read: {error}") from None
    loaded = parse(text, path)
    loaded.cast()
    return loaded


def parse(text: str, path: Path) -> Loaded:
    """As `load`, from text, without the check of names that need the devices.

    Raises:
        ScenarioError: as `load`.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise syntax(path, text, error) from None
    lines = lines_of(text)
    try:
        scenario = Scenario.model_validate_json(json.dumps(data, default=_not_json))
    except ValidationError as error:
        raise first(Scenario, path, lines, data, error) from None
    return Loaded(scenario, path, lines)


def _not_json(value: object) -> object:
    return {"date or time": str(value)}  # no field of a scenario takes one: the schema refuses it at its place


def json_schema() -> str:
    """The JSON Schema of a scenario file, for editors; ends with a newline."""
    schema = Scenario.model_json_schema(by_alias=True)
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}, indent=2) + "\n"
