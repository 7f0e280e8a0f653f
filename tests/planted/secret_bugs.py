"""Bugs of the secrets of an installation: made anew, taken for good, brought along by a program, or shown."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Final

from fleet.adapters.nats_login import PasswordLogin
from fleet.capabilities.secrets import Make, Secret, SecretStore
from fleet.contracts.errors import InvalidValue, NotFound
from fleet.contracts.ids import ObjectName
from fleet.roots.logins import OPERATOR_PASSWORD, StoredPassword
from fleet.secrets import codec, file, registry
from fleet.secrets.documents import Kept
from fleet.secrets.file import FileDocuments
from fleet.secrets.steps import Seen, Steps
from fleet.secrets.store import Secrets
from tests.planted.plant import CHECK, STUCK, Bug, Patch

AGAIN: Final = "secrets/installed-three-times.toml"
CORRUPTED: Final = "secrets/one-secret-corrupted.toml"
GIVEN_AWAY: Final = "secrets/secret-of-another-owner.toml"
REPLACED: Final = "secrets/operator-replaced-while-secrets-stay.toml"
STAY: Final = "secrets-stay"


def _corrupt_made_anew(patch: Patch) -> None:
    real = Secrets.ensure

    async def unchecked(store: SecretStore, name: ObjectName) -> None:
        """Nobody looks first."""

    async def ensure(store: Secrets, name: ObjectName, make: Make) -> Secret:
        try:
            return await real(store, name, make)
        except InvalidValue:
            documents = store._documents
            assert isinstance(documents, FileDocuments)
            with documents._open() as steps:
                content = documents._content(steps, name)
            assert content is not None
            await documents.replace(Kept(Secret(name, 1, store._now(), make())), file._token(content))
            return await store.read(name)

    patch.setattr(registry, "_check", unchecked)
    patch.setattr(Secrets, "ensure", ensure)


def _made_at_each_installation(patch: Patch) -> None:
    real = Secrets.ensure

    async def ensure(store: Secrets, name: ObjectName, make: Make) -> Secret:
        try:
            last = (await store.read(name)).version
        except NotFound:
            return await real(store, name, make)
        return await store.rotate(name, make, last)

    patch.setattr(Secrets, "ensure", ensure)


def _last_one_wins(patch: Patch) -> None:
    async def create(documents: FileDocuments, kept: Kept) -> None:
        with documents._open(make=True) as steps:
            await documents._lock(steps)
            documents._stage(steps, codec.to_json(codec.encode(kept)))
            steps.move_over(file.TEMPORARY, documents._path(kept.name).name)
            steps.sync_folder()

    patch.setattr(FileDocuments, "create", create)


def _checksum_not_compared(patch: Patch) -> None:
    real = codec._digest

    def digest(fields: dict[str, bytes]) -> bytes:
        return fields.get("sha256") or real(fields)

    patch.setattr(codec, "_digest", digest)


def _not_looked_at(patch: Patch, what: str) -> None:
    real = FileDocuments._check

    def check(documents: FileDocuments, path: Path, seen: Seen, mode: int) -> None:
        blind = replace(seen, mode=mode) if what == "mode" else replace(seen, owner=documents._owner)
        real(documents, path, blind, mode)

    patch.setattr(FileDocuments, "_check", check)


def _written_into_the_log(patch: Patch) -> None:
    real = Secrets.ensure

    async def ensure(store: Secrets, name: ObjectName, make: Make) -> Secret:
        secret = await real(store, name, make)
        logging.getLogger("fleet.secrets").info("%s stands: %s", name, secret.value)
        return secret

    patch.setattr(Secrets, "ensure", ensure)


def _error_quotes_the_file(patch: Patch) -> None:
    real = FileDocuments._content

    def content(documents: FileDocuments, steps: Steps, name: ObjectName) -> bytes | None:
        try:
            return real(documents, steps, name)
        except InvalidValue as error:
            text = steps.read(documents._path(name).name, file.LARGEST_FILE)
            raise InvalidValue(f"{error}; it says {text!r}") from error

    patch.setattr(FileDocuments, "_content", content)


def _operator_brings_its_own(patch: Patch) -> None:
    real = StoredPassword.read
    reads: list[str] = []

    async def read(source: StoredPassword) -> PasswordLogin:
        login = await real(source)
        if source.secret != OPERATOR_PASSWORD:
            return login
        reads.append(source.user)
        return login if len(reads) == 1 else PasswordLogin(login.user, f"made at start {len(reads)}")

    patch.setattr(StoredPassword, "read", read)


BUGS: Final = (
    Bug(
        "corrupt secret made anew",
        "an installation that takes what it cannot read for what is missing",
        CORRUPTED,
        (STAY,),
        _corrupt_made_anew,
    ),
    Bug(
        "secrets made at each installation",
        "a second installation that locks everybody out",
        AGAIN,
        (STAY,),
        _made_at_each_installation,
    ),
    Bug(
        "last installation wins",
        "two first installations at once, of which each is set up with secrets of its own",
        AGAIN,
        (STAY,),
        _last_one_wins,
    ),
    Bug(
        "checksum of a secret not compared",
        "a flipped bit in a password that is used for good",
        CORRUPTED,
        (STAY,),
        _checksum_not_compared,
    ),
    Bug(
        "mode of a secret not looked at",
        "a password that everybody may read",
        CORRUPTED,
        (STAY,),
        lambda patch: _not_looked_at(patch, "mode"),
    ),
    Bug(
        "owner of a secret not looked at",
        "a secret that somebody else has put there",
        GIVEN_AWAY,
        (STAY,),
        lambda patch: _not_looked_at(patch, "owner"),
    ),
    Bug(
        "secret written into the log",
        "a line for debugging that was left in",
        AGAIN,
        (STAY,),
        _written_into_the_log,
        shows_secrets=True,
    ),
    Bug(
        "error quotes the file of a secret",
        "an error that helps more than it should",
        CORRUPTED,
        (STAY,),
        _error_quotes_the_file,
        shows_secrets=True,
    ),
    Bug(
        "operator brings a password of its own",
        "a control plane that is replaced, and that the bus does not know any more",
        REPLACED,
        (CHECK, STUCK),
        _operator_brings_its_own,
    ),
)
