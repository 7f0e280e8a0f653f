"""Looks for the values of secrets in what a run says. What is found is named, and never quoted."""

from __future__ import annotations

import base64
from typing import Final

SHORTEST: Final = 8
"""A shorter value is found in anything by chance."""


class SecretSearch:
    """The values that must appear nowhere, each under the name of its secret."""

    def __init__(self) -> None:
        self._forms: dict[bytes, str] = {}

    def add(self, name: str, value: bytes) -> None:
        """Look for this value from now on: as it is, in hexadecimal and in base64."""
        if len(value) >= SHORTEST:
            for form in _forms(value):
                self._forms.setdefault(form, name)

    def found_in(self, text: bytes) -> tuple[str, ...]:
        """The names of the secrets whose value stands in the text, sorted."""
        found = {name for form, name in self._forms.items() if form in text}
        return tuple(sorted(found)) if found else ()


def _forms(value: bytes) -> tuple[bytes, ...]:
    codes = (base64.b64encode(value), base64.urlsafe_b64encode(value))
    return (value, value.hex().encode(), *(code.rstrip(b"=")[:-1] for code in codes))
