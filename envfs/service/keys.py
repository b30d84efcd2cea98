"""Choosing the CMK of files: whether the KMS lets somebody name a key for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from envfs.errors import AccessDenied, ConfigError
from envfs.format.context import encode_context
from envfs.format.header import MAX_VARIABLE_SIZE, PREVIOUS_KEY_SIZE
from envfs.kms.foreign.exchange import Pending
from envfs.kms.model import ENCRYPT_DECRYPT, SYMMETRIC_DEFAULT, RequestFacts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from envfs.kms.engine import Engine
    from envfs.kms.model import Principal

VIA_SERVICE = "envfs"

# Bytes of encoded labels in a header slot: beside them the blob of a DEK must fit (116 bytes; under a foreign key 270,
# if its KMS makes ciphertexts as long as AWS's), and the previous key while `envfs rekey` is at work. Under a foreign
# key there is not room for all three: rekey then needs labels of at most 24 bytes.
MAX_LABELS = MAX_VARIABLE_SIZE - PREVIOUS_KEY_SIZE - 116
MAX_LABELS_UNDER_FOREIGN_KEY = MAX_VARIABLE_SIZE - 270


def check_labels_fit(engine: Engine, key_arn: str, labels: Mapping[str, str]) -> None:
    """ConfigError if the headers of files under that key have no room for the labels: no file could be made."""
    outline = engine.outline_key(key_arn)
    is_foreign = outline is not None and outline.is_foreign
    room = MAX_LABELS_UNDER_FOREIGN_KEY if is_foreign else MAX_LABELS
    size = len(encode_context(labels))
    if size > room:
        whose = "the header of a file whose key another KMS holds" if is_foreign else "the header of a file"
        raise ConfigError(
            f"the labels take {size} bytes, those inherited included; {whose} has room for {room}",
            hint="shorter names and values; each label takes 4 bytes beside them",
        )


def usable_key(
    engine: Engine, principal: Principal, key: str, context: Mapping[str, str], path: str | None = None
) -> str:
    """The ARN of `key` (id, ARN or alias), if files may be encrypted under it and `principal` may say so.

    He may if he may describe the key (an administrator who does not use it himself), or else if he may encrypt under
    it, which is then tried, in his name and with its audit record. Raises KmsErrors, ConfigError for a key that does
    not fit.
    """
    try:
        found = engine.describe_key(principal, key)
    except AccessDenied:
        facts = RequestFacts(via_service=VIA_SERVICE, path=path, access="create")
        try:
            data_key = engine.generate_data_key(principal, key, context, facts)
        except Pending:  # a mount does not wait for a foreign KMS here
            raise AccessDenied(
                f"{key} is a key of a foreign KMS, and you may not describe it", hint="kms:DescribeKey is needed"
            ) from None
        data_key.plaintext.wipe()
        return data_key.key_arn
    if found.spec != SYMMETRIC_DEFAULT or found.usage != ENCRYPT_DECRYPT:
        raise ConfigError(
            f"{found.arn} is a key for {found.usage} ({found.spec})",
            hint=f"files need a key with spec {SYMMETRIC_DEFAULT}",
        )
    if not found.enabled:
        raise ConfigError(f"{found.arn} is {found.state}", hint=f"envfs key enable {found.key_id}")
    return found.arn
