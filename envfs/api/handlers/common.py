"""What the handlers share: their type, and checks of members that hang together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias

from envfs.errors import InvalidTag, NotFound, UnsupportedOperation, Validation
from envfs.kms.engine import Engine
from envfs.kms.model import SYMMETRIC_DEFAULT, Principal, RequestFacts

Members: TypeAlias = Mapping[str, Any]
Answer: TypeAlias = dict[str, Any]
Handler: TypeAlias = Callable[[Engine, Principal, Members, RequestFacts], Answer]

DEFAULT_POLICY: Final = "default"
_DATA_KEY_SIZES: Final = {"AES_256": 32, "AES_128": 16}


def required(members: Members, name: str) -> Any:
    """A member that AWS's model calls optional, and without which the request means nothing here."""
    value = members.get(name)
    if value is None:
        own = name[:1].lower() + name[1:]
        raise Validation(
            f"1 validation error detected: Value null at '{own}' failed to satisfy constraint: Member must not be null"
        )
    return value


def data_key_size(members: Members) -> int:
    """The number of bytes of a data key, which a request gives in one of two ways."""
    size, spec = members.get("NumberOfBytes"), members.get("KeySpec")
    if (size is None) == (spec is None):
        raise Validation("Please specify either number of bytes or key spec.")
    return int(size) if size is not None else _DATA_KEY_SIZES[spec or ""]


def tag_mapping(tags: Iterable[Members]) -> dict[str, str]:
    found: dict[str, str] = {}
    for tag in tags:
        if tag["TagKey"] in found:
            raise InvalidTag(f"the tag key {tag['TagKey']!r} is given twice")
        found[tag["TagKey"]] = tag["TagValue"]
    return found


def algorithm(members: Members, name: str = "EncryptionAlgorithm") -> str:
    return str(members.get(name, SYMMETRIC_DEFAULT))


def check_policy_name(members: Members) -> None:
    """Each key has one policy."""
    if members.get("PolicyName", DEFAULT_POLICY) != DEFAULT_POLICY:
        raise NotFound("No such policy exists", hint=f"the policy of a key is called {DEFAULT_POLICY!r}")


def refuse_modifiers(members: Members) -> None:
    if members.get("DryRunModifiers"):
        raise UnsupportedOperation("a dry run without a ciphertext is not supported")
