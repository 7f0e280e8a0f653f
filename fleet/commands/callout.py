"""The configuration file of the auth callout: JSON, closed against unknown fields, its paths relative to itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from fleet.commands.config import SecretsConfig, explain, rooted_secrets
from fleet.contracts.auth import Name, Url
from fleet.contracts.errors import InvalidValue
from fleet.contracts.ids import Frozen
from fleet.identity.callout.tokens import TokenRules


class CalloutConfig(Frozen):
    """Everything the callout is told by its file.

    Args:
        url: the NATS server, `nats://host:port`.
        issuer: the identity provider, letter by letter as in its tokens.
        project: the provider's project; its id is in the audience of a device's token.
        role: what a device was granted in that project.
        secrets: where the secrets of the installation are kept. The callout reads three of them and writes none.
        pace: all timers run this many times as fast. 1 in production.
    """

    url: Annotated[str, Field(pattern=r"^nats://[^\s/]+:[0-9]{1,5}$")]
    issuer: Url
    project: Name
    role: Name = "fleet-device"
    secrets: SecretsConfig
    pace: Annotated[float, Field(gt=0, le=1000)] = 1.0

    @property
    def rules(self) -> TokenRules:
        """What a device's token has to say."""
        return TokenRules(self.issuer, self.project, self.role)


def load(path: Path) -> CalloutConfig:
    """Read the file. Raises: InvalidValue when it is missing or malformed; names the fields."""
    try:
        config = CalloutConfig.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InvalidValue(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise InvalidValue(f"{path} is not a configuration of the callout: {explain(error)}") from None
    return config.model_copy(update={"secrets": rooted_secrets(config.secrets, path.parent)})
