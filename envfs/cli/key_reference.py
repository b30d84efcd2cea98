"""KEY on the command line may be an alias everywhere; many operations of AWS KMS take a key id or ARN only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from envfs.cli.answers import every
from envfs.errors import AccessDenied

if TYPE_CHECKING:
    from envfs.cli.backend import Backend


def without_alias(backend: Backend, key: str) -> str:
    """`key`, or the key id behind it if it is an alias or an alias's ARN. KmsError if there is none, or the caller may
    neither describe the key nor list the aliases.
    """
    name = key.split(":", 5)[-1]
    if not name.startswith("alias/"):
        return key
    try:
        return str(backend.call("DescribeKey", {"KeyId": key})["KeyMetadata"]["KeyId"])
    except AccessDenied as denied:
        try:
            for alias in every(backend, "ListAliases", {}, "Aliases"):
                if alias["AliasName"] == name and "TargetKeyId" in alias:
                    return str(alias["TargetKeyId"])
        except AccessDenied:
            pass
        denied.hint = "you may neither describe the key nor list the aliases: name the key by its id"
        raise
