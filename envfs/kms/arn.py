"""Names of keys, aliases and principals: ARNs, and what a caller may write where a key is meant.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference-arns.html; `group/…` as a principal is an extension of envfs.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from typing import Final

from envfs.errors import ConfigError, InvalidAliasName, InvalidArn, NotFound

ALIAS_PREFIX: Final = "alias/"
SERVICE_ALIAS_PREFIX: Final = "alias/envfs/"
RESERVED_ALIAS_PREFIXES: Final = (SERVICE_ALIAS_PREFIX, "alias/aws/")

_ALIAS: Final = re.compile(r"alias/[A-Za-z0-9/_-]{1,250}")
_PARTITION: Final = re.compile(r"[a-z][a-z0-9-]{0,31}")
_REGION: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_ACCOUNT: Final = re.compile(r"[0-9]{12}")
# Whatever a user database may hold, except what could be mistaken for an ARN's structure, and control characters.
_NAME: Final = re.compile(r"[^\x00-\x20\x7f:/*?$\ud800-\udfff]{1,128}")


def check_alias_name(name: str) -> None:
    """InvalidAliasName unless `name` is `alias/` and 1 to 250 of the characters that AWS KMS allows."""
    if not _ALIAS.fullmatch(name):
        raise InvalidAliasName(
            f"{name!r} is no alias name",
            hint="an alias is 'alias/' followed by at most 250 letters, digits, '/', '_' or '-'",
        )


def is_principal_name(name: str) -> bool:
    """Whether a Unix user or group of this name can be named in an ARN without ambiguity."""
    return _NAME.fullmatch(name) is not None


def key_id_text(key_id: bytes) -> str:
    """The UUID that callers see."""
    return str(uuid.UUID(bytes=key_id))


@dataclass(frozen=True, slots=True)
class KeyReference:
    """A key as a caller names it: by id (16 bytes) or by alias (with `alias/`)."""

    key_id: bytes | None
    alias: str | None


@dataclass(frozen=True, slots=True)
class Account:
    """Where the keys of a KMS live: partition, region and account id (12 digits)."""

    partition: str
    region: str
    account_id: str

    def __post_init__(self) -> None:
        for what, value, pattern in (
            ("partition", self.partition, _PARTITION),
            ("region", self.region, _REGION),
            ("account id", self.account_id, _ACCOUNT),
        ):
            if not pattern.fullmatch(value):
                raise ConfigError(
                    f"{value!r} is no {what}",
                    hint="an account id has 12 digits; partition and region are lower-case letters, digits and '-'",
                )

    @property
    def principal_prefix(self) -> str:
        """What the ARN of each principal of this account begins with."""
        return f"arn:{self.partition}:iam::{self.account_id}:"

    @property
    def root_arn(self) -> str:
        return f"{self.principal_prefix}root"

    def user_arn(self, name: str) -> str:
        return f"{self.principal_prefix}user/{name}"

    def group_arn(self, name: str) -> str:
        return f"{self.principal_prefix}group/{name}"

    def key_arn(self, key_id: bytes) -> str:
        return f"{self._resource_prefix}key/{key_id_text(key_id)}"

    def alias_arn(self, name: str) -> str:
        return f"{self._resource_prefix}{name}"

    @property
    def _resource_prefix(self) -> str:
        return f"arn:{self.partition}:kms:{self.region}:{self.account_id}:"

    def parse_reference(self, text: str) -> KeyReference:
        """Key id, key ARN, alias name or alias ARN. InvalidArn or NotFound for anything else."""
        name = text
        if text.startswith("arn:"):
            parts = text.split(":", 5)
            if len(parts) != 6 or parts[2] != "kms":
                raise InvalidArn(f"{text!r} is no ARN of a key", hint="write a key id, a key ARN, or alias/NAME")
            if not text.startswith(self._resource_prefix):
                raise NotFound(
                    f"{text!r} belongs to another KMS", hint=f"the keys of this one begin with {self._resource_prefix}"
                )
            name = parts[5]
            if name.startswith("key/"):
                name = name[4:]
            elif not name.startswith(ALIAS_PREFIX):
                raise InvalidArn(f"{text!r} is neither a key nor an alias")
        if name.startswith(ALIAS_PREFIX):
            check_alias_name(name)
            return KeyReference(None, name)
        try:
            key_id = uuid.UUID(name)
        except ValueError:
            key_id = None
        if key_id is None or str(key_id) != name:
            raise NotFound(
                f"there is no key {text!r}", hint="write a key id, a key ARN, or alias/NAME; see envfs key list"
            )
        return KeyReference(key_id.bytes, None)
