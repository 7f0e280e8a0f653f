"""The lease says what `coordination.k8s.io/v1` says, with the same words."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from fleet.contracts.ids import ObjectName
from fleet.contracts.lease import OPERATOR_LEASE, Lease, LeaseSpec, identity, micro_time, replica_of
from fleet.contracts.object_changes import to_json
from fleet.contracts.objects import Metadata
from fleet.contracts.time import Instant

AT = Instant(1_800_000_000_123_456_789)


def spec(**fields: object) -> LeaseSpec:
    now = micro_time(AT)
    return LeaseSpec.model_validate(
        {"lease_duration_seconds": 15, "acquire_time": now, "renew_time": now, "holder_identity": "a", **fields}
    )


def test_its_wire_form_is_that_of_kubernetes() -> None:
    lease = json.loads(to_json(Lease(metadata=Metadata(name=OPERATOR_LEASE), spec=spec(lease_transitions=2))))
    assert (lease["apiVersion"], lease["kind"]) == ("coordination.k8s.io/v1", "Lease")
    assert lease["spec"] == {
        "holderIdentity": "a",
        "leaseDurationSeconds": 15,
        "acquireTime": "2027-01-15T08:00:00.123456Z",
        "renewTime": "2027-01-15T08:00:00.123456Z",
        "leaseTransitions": 2,
    }


def test_times_that_kubernetes_would_refuse_are_refused() -> None:
    with pytest.raises(ValidationError):
        spec(renew_time="2027-01-15T08:00:00Z")
    with pytest.raises(ValidationError):
        spec(lease_duration_seconds=0)


def test_the_replica_can_be_read_from_the_holder() -> None:
    assert replica_of(identity(ObjectName("operator-1"), "0123456789abcdef")) == "operator-1"
    assert replica_of("") is None
    assert replica_of("Not A Name_0") is None
