"""Which secrets an installation makes for itself, what each is for, and how it is made.

Whoever needs another one adds it here and nowhere else: `fleet secret prepare` makes what is missing, and running it
again changes nothing.
"""

from __future__ import annotations

import base64
import hmac
import secrets  # noqa: TID251 - this is where the secrets of an installation are made
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from fleet.capabilities.secrets import Secret, SecretStore
from fleet.contracts.errors import NotFound
from fleet.contracts.ids import ObjectName
from fleet.contracts.nkeys import SECRET_BYTES, KeyKind, encode_seed

Entropy = Callable[[int], bytes]
"""Gives that many bytes that nobody can guess. In a simulated world, a stream of its own."""

SYSTEM_ENTROPY: Final[Entropy] = secrets.token_bytes


@dataclass(frozen=True, slots=True)
class GeneratedSecret:
    """A secret that the installation makes.

    Args:
        purpose: who uses it for what, in a few words.
        make: makes its value from unguessable bytes.
    """

    name: ObjectName
    purpose: str
    make: Callable[[Entropy], bytes]


def password(entropy: Entropy) -> bytes:
    """36 characters with 192 bits of chance, and one of each class that password rules ask for."""
    return b"Aa1-" + base64.urlsafe_b64encode(entropy(24))


def master_key(entropy: Entropy) -> bytes:
    """Exactly 32 printable characters, as Zitadel asks of its master key: 160 bits of chance."""
    return base64.b32encode(entropy(20))


def nkey_seed(kind: KeyKind, entropy: Entropy) -> bytes:
    """The seed of a NATS key."""
    return encode_seed(kind, entropy(SECRET_BYTES))


GENERATED: Final = tuple(
    GeneratedSecret(ObjectName(name), purpose, make)
    for name, purpose, make in (
        ("idp-admin-password", "the first administrator of the identity provider", password),
        ("idp-master-key", "what the identity provider encrypts its own database with", master_key),
        ("nats-admin-password", "the NATS user that prepares buckets and looks after the server", password),
        ("nats-callout-issuer", "signs the answers of the auth callout", partial(nkey_seed, KeyKind.ACCOUNT)),
        ("nats-callout-password", "the NATS user of the auth callout, which cannot ask itself", password),
        ("nats-callout-xkey", "encrypts what server and callout tell each other", partial(nkey_seed, KeyKind.CURVE)),
        ("nats-enrolment-password", "the NATS user that writes who is which device", password),
        ("nats-operator-password", "the NATS user of the operator", password),
    )
)
"""Every secret of an installation, sorted by name."""


def generated(name: ObjectName) -> GeneratedSecret:
    """What the registry says about that name. Raises: NotFound, which names those there are."""
    for item in GENERATED:
        if item.name == name:
            return item
    raise NotFound(f"no secret is called {name}: there are {', '.join(item.name for item in GENERATED)}")


@dataclass(frozen=True, slots=True)
class SecretMade:
    """There was none, and this installation made it."""

    secret: Secret


@dataclass(frozen=True, slots=True)
class SecretKept:
    """It stands, from an installation before or beside this one."""

    secret: Secret


async def install(store: SecretStore, entropy: Entropy = SYSTEM_ENTROPY) -> tuple[SecretMade | SecretKept, ...]:
    """Make what is missing and keep the rest, in the order of the registry. Part of every installation.

    All that stand are read before any is made: where one is not as it should be, nothing changes.

    Raises: what `SecretStore.ensure` raises, at the first secret that is not as it should be.
    """
    for item in GENERATED:
        await _check(store, item.name)
    return tuple([await _installed(store, item, entropy) for item in GENERATED])


async def ensure_all(store: SecretStore, entropy: Entropy = SYSTEM_ENTROPY) -> tuple[Secret, ...]:
    """As `install`, for who does not ask what was made."""
    return tuple(item.secret for item in await install(store, entropy))


async def rotate(store: SecretStore, name: ObjectName, last: int, entropy: Entropy = SYSTEM_ENTROPY) -> Secret:
    """A new value after version `last`. Raises: NotFound, and what `SecretStore.rotate` raises."""
    return await store.rotate(name, partial(generated(name).make, entropy), last)


async def _check(store: SecretStore, name: ObjectName) -> None:
    """Raises: what reading it raises, unless there is none."""
    try:
        await store.read(name)
    except NotFound:
        return


async def _installed(store: SecretStore, item: GeneratedSecret, entropy: Entropy) -> SecretMade | SecretKept:
    made: list[bytes] = []

    def make() -> bytes:
        made.append(item.make(entropy))
        return made[-1]

    secret = await store.ensure(item.name, make)
    is_ours = any(hmac.compare_digest(value, secret.value) for value in made)
    return SecretMade(secret) if is_ours else SecretKept(secret)
