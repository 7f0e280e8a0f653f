"""The invariants: what must hold at every moment of every scenario, whether its file names it or not.

One file each. `ALL` is the registry; a test plants a bug for each entry, and another one finds files missing here.
"""

from __future__ import annotations

from harness.invariants.base import Ground, Invariant
from harness.invariants.current_link_complete import CurrentLinkComplete
from harness.invariants.desired_equals_observed import DesiredEqualsObserved
from harness.invariants.every_attempt_terminal import EveryAttemptTerminal
from harness.invariants.health_gate import HealthGate
from harness.invariants.no_clone_imagined import NoCloneImagined
from harness.invariants.no_foreign_keys import NoForeignKeys
from harness.invariants.no_lower_revision import NoLowerRevision
from harness.invariants.no_release_erased import NoReleaseErased
from harness.invariants.one_manager import OneManager
from harness.invariants.one_operator_acts import OneOperatorActs
from harness.invariants.operator_never_restarts_because_of_data import OperatorNeverRestartsBecauseOfData
from harness.invariants.quarantined_not_retried import QuarantinedNotRetried
from harness.invariants.revoked_stay_out import RevokedStayOut
from harness.invariants.rollout_limits import RolloutLimits
from harness.invariants.secrets_stay import SecretsStay
from harness.invariants.slot_stored_first import SlotStoredFirst
from harness.invariants.stop_only_after_verified import StopOnlyAfterVerified
from harness.invariants.unaffected_containers_not_restarted import UnaffectedContainersNotRestarted

ALL: tuple[type[Invariant], ...] = (
    CurrentLinkComplete,
    NoReleaseErased,
    OneManager,
    StopOnlyAfterVerified,
    UnaffectedContainersNotRestarted,
    OperatorNeverRestartsBecauseOfData,
    NoForeignKeys,
    OneOperatorActs,
    EveryAttemptTerminal,
    QuarantinedNotRetried,
    RolloutLimits,
    HealthGate,
    SlotStoredFirst,
    NoLowerRevision,
    RevokedStayOut,
    NoCloneImagined,
    SecretsStay,
    DesiredEqualsObserved,
)

__all__ = ["ALL", "Ground", "Invariant"]
