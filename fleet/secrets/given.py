"""Secrets that the installation does not make but is given: kept beside its own, and never in place of another."""

from __future__ import annotations

import hmac
from pathlib import Path

from fleet.capabilities.secrets import Secret, SecretStore
from fleet.contracts.errors import Conflict, InvalidValue
from fleet.contracts.ids import ObjectName
from fleet.secrets.registry import GENERATED


def content_of(file: Path) -> bytes:
    """What a file holds. Raises: InvalidValue when it cannot be read or is empty."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise InvalidValue(f"{file} cannot be read: {error.strerror}") from error
    if not content:
        raise InvalidValue(f"{file} is empty")
    return content


async def keep(store: SecretStore, name: ObjectName, content: bytes) -> Secret:
    """Keep it under the name; nothing happens when exactly that is kept there.

    Raises:
        InvalidValue: the installation makes the secret of that name itself.
        Conflict: another one is kept under it. Otherwise as `SecretStore.ensure`.
    """
    if any(item.name == name for item in GENERATED):
        raise InvalidValue(f"the installation makes {name} itself: `fleet secret prepare` does that")
    kept = await store.ensure(name, lambda: content)
    if not hmac.compare_digest(kept.value, content):
        raise Conflict(f"another secret is kept as {name}: choose another name, or remove that one on purpose")
    return kept
