"""A kept secret as named fields, with a digest over all of them: the same content wherever it is kept.

A place keeps fields as it likes best: a file as JSON, a Kubernetes Secret as its data, OpenBao as the data of a KV
entry. Whoever reads `value` there finds the newest value under that name. Decoding is strict to the byte, so that one
that was flipped anywhere is noticed; and no error quotes what was read, because it may be a secret.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from typing import Final

from fleet.capabilities.secrets import LARGEST_VALUE, Secret
from fleet.contracts.errors import InvalidValue
from fleet.contracts.ids import ObjectName
from fleet.contracts.time import Instant
from fleet.secrets.documents import Kept

SCHEMA: Final = 1
REMEDY: Final = "restore it from a backup or remove it on purpose; it is never replaced by a new secret"
BINARY: Final = frozenset({"value", "previous-value"})
_NOT_JSON: Final = object()
_ALWAYS: Final = frozenset({"schema", "name", "version", "made", "value", "sha256"})
_ROTATED: Final = _ALWAYS | {"previous-version", "previous-made", "previous-value"}
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,18}")


def encode(kept: Kept) -> dict[str, bytes]:
    """The fields of a secret. Only those in `BINARY` hold anything but ASCII text."""
    fields = {
        "schema": b"%d" % SCHEMA,
        "name": kept.name.encode(),
        "version": b"%d" % kept.current.version,
        "made": b"%d" % kept.current.made,
        "value": kept.current.value,
    }
    if kept.previous is not None:
        fields["previous-version"] = b"%d" % kept.previous.version
        fields["previous-made"] = b"%d" % kept.previous.made
        fields["previous-value"] = kept.previous.value
    return {**fields, "sha256": _digest(fields)}


def decode(where: str, name: ObjectName, fields: Mapping[str, bytes]) -> Kept:
    """The secret in the fields.

    Raises:
        InvalidValue: they are not what `encode` makes of a secret of that name. Says where, why and what to do.
    """
    _check_schema(where, fields)
    if set(fields) not in (_ALWAYS, _ROTATED):
        raise damaged(where, "its fields are not those of a secret")
    if not hmac.compare_digest(fields["sha256"], _digest(fields)):
        raise damaged(where, "its content does not match its checksum")
    if fields["name"] != name.encode():
        raise damaged(where, "the secret inside has another name")
    current = _version(where, name, fields, "")
    previous = _version(where, name, fields, "previous-") if "previous-value" in fields else None
    if current.version != (1 if previous is None else previous.version + 1):
        raise damaged(where, "its versions do not follow each other")
    return Kept(current, previous)


def to_text(fields: Mapping[str, bytes]) -> dict[str, str]:
    """The fields for a place that takes text alone: values in base64."""
    return {key: base64.b64encode(field).decode() if key in BINARY else field.decode() for key, field in fields.items()}


def from_text(where: str, texts: Mapping[str, str]) -> dict[str, bytes]:
    """The reverse of `to_text`. Raises: InvalidValue."""
    return {key: _bytes_of(where, key, text) for key, text in texts.items()}


def to_json(fields: Mapping[str, bytes]) -> bytes:
    """The fields as one JSON object, in the one spelling that `from_json` takes."""
    return json.dumps(to_text(fields), indent=1, sort_keys=True, ensure_ascii=True).encode() + b"\n"


def from_json(where: str, content: bytes) -> dict[str, bytes]:
    """The reverse of `to_json`. Raises: InvalidValue."""
    texts = _parsed(content)
    if texts is _NOT_JSON:
        raise damaged(where, "it is not JSON")
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise damaged(where, "it is not a JSON object of texts")
    fields = from_text(where, texts)
    _check_schema(where, fields)
    if to_json(fields) != content:
        raise damaged(where, "it is not spelt as this program writes it")
    return fields


def _parsed(content: bytes) -> object:
    """What the JSON says. An error of the parser holds the whole document, so it must not become a cause of ours."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return _NOT_JSON


def damaged(where: str, why: str) -> InvalidValue:
    """The error for a secret that stands there and cannot be used."""
    return InvalidValue(f"the secret in {where} is damaged: {why}; {REMEDY}")


def _check_schema(where: str, fields: Mapping[str, bytes]) -> None:
    schema = fields.get("schema", b"").decode("ascii", "replace")
    if not _NUMBER.fullmatch(schema):
        raise damaged(where, "it does not say its format")
    if int(schema) > SCHEMA:
        formats = f"format {schema}, this one knows {SCHEMA}"
        raise InvalidValue(f"the secret in {where} was written by a newer version ({formats}): use that one")
    if int(schema) < SCHEMA:
        raise damaged(where, f"format {schema} never existed")


def _version(where: str, name: ObjectName, fields: Mapping[str, bytes], prefix: str) -> Secret:
    version = _number(where, fields, f"{prefix}version")
    made = _number(where, fields, f"{prefix}made")
    value = fields[f"{prefix}value"]
    if version < 1 or not 1 <= len(value) <= LARGEST_VALUE:
        raise damaged(where, "its version or its size is out of bounds")
    return Secret(name, version, Instant(made), value)


def _number(where: str, fields: Mapping[str, bytes], key: str) -> int:
    text = fields[key].decode("ascii", "replace")
    if not _NUMBER.fullmatch(text):
        raise damaged(where, f"{key} is not a number")
    return int(text)


def _digest(fields: Mapping[str, bytes]) -> bytes:
    """Over names and contents with their lengths, so that no two different sets of fields are one text."""
    digest = hashlib.sha256()
    for key in sorted(fields.keys() - {"sha256"}):
        for part in (key.encode("utf-8", "surrogatepass"), fields[key]):
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)
    return digest.hexdigest().encode()


def _bytes_of(where: str, key: str, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True) if key in BINARY else text.encode("ascii")
    except (binascii.Error, ValueError):
        raise damaged(where, "a field is not in its encoding") from None
