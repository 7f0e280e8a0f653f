"""Real RSA keys, from the operating system's randomness."""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from fleet.capabilities.identity import PrivateKey
from fleet.contracts.errors import InvalidValue

BITS: Final = 2048
_EXPONENT: Final = 65537


class RsaKeyMaker:
    """The KeyMaker port."""

    def make(self) -> PrivateKey:
        """As the port says. Takes from a tenth of a second to seconds on a small machine."""
        key = generate_private_key(_EXPONENT, BITS)
        return PrivateKey(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    def public(self, key: PrivateKey) -> bytes:
        """As the port says."""
        try:
            loaded = load_pem_private_key(key.pem, None)
        except (ValueError, TypeError):
            raise InvalidValue("that is no private key in PEM") from None
        if not isinstance(loaded, RSAPrivateKey):
            raise InvalidValue("that is no RSA key")
        return loaded.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
