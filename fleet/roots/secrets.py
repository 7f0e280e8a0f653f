"""The secret store that a configuration names."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import assert_never

from fleet.adapters.clock import WallClock
from fleet.adapters.openbao import OpenBaoKv
from fleet.commands.config import FileSecretsConfig, KubernetesSecretsConfig, OpenBaoSecretsConfig, SecretsConfig
from fleet.contracts.errors import InvalidValue
from fleet.secrets.file import FileDocuments
from fleet.secrets.openbao import OpenBaoDocuments
from fleet.secrets.store import Secrets


@asynccontextmanager
async def secret_store(config: SecretsConfig | None) -> AsyncIterator[Secrets]:
    """The store, closed in the end. Raises: InvalidValue when none is named, or one that cannot be reached."""
    clock = WallClock()
    match config:
        case None:
            raise InvalidValue('nothing says where secrets are kept: add "secrets" to --config')
        case FileSecretsConfig(folder=folder):
            yield Secrets(FileDocuments(folder, clock), clock)
        case OpenBaoSecretsConfig(url=url, mount=mount, path=path, token_file=token_file):
            engine = OpenBaoKv(url, mount, token_file, clock)
            try:
                yield Secrets(OpenBaoDocuments(engine, path), clock)
            finally:
                await engine.close()
        case KubernetesSecretsConfig():
            raise InvalidValue('this version reaches no cluster: set "store" of "secrets" to "file" or "openbao"')
        case _:
            assert_never(config)
