"""Choosing the CMK of files: whether the KMS lets somebody name a key for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from envfs.errors import AccessDenied, ConfigError
from envfs.kms.foreign.exchange import Pending
from envfs.kms.model import ENCRYPT_DECRYPT, SYMMETRIC_DEFAULT, RequestFacts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from envfs.kms.engine import Engine
    from envfs.kms.model import Principal

VIA_SERVICE = "envfs"


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
