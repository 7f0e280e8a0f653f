"""Checked by mypy, never run: identifiers, instants and durations cannot stand in for one another."""

from __future__ import annotations

from typing import assert_type

from fleet.contracts import layout
from fleet.contracts.ids import DeploymentName, DeviceId
from fleet.contracts.records import DesiredAgent, LockDenied, LockGranted, LockReply
from fleet.contracts.time import Duration, Instant


def a_deployment_is_no_device(deployment: DeploymentName) -> None:
    layout.desired_agent(deployment)  # type: ignore[arg-type]  # mypy must object, or this comment is reported as unused


def text_is_no_device(text: str) -> None:
    layout.desired_agent(text)  # type: ignore[arg-type]  # as above


def times_subtract_to_lengths(earlier: Instant, later: Instant, length: Duration) -> None:
    assert_type(later - earlier, Duration)
    assert_type(later - length, Instant)
    assert_type(later + length, Instant)
    assert_type(length + length, Duration)
    assert_type(length * 2, Duration)


def an_address_knows_its_record(device: DeviceId) -> None:
    assert_type(layout.desired_agent(device), layout.Address[DesiredAgent])
    assert_type(layout.decode(DesiredAgent, b""), DesiredAgent)


def an_answer_is_one_of_two(reply: LockReply) -> Duration:
    match reply.answer:
        case LockGranted(lease=lease):
            return lease
        case LockDenied(retry_after=retry_after):
            return retry_after
