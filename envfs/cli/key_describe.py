"""CMKs as the command line describes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from envfs.cli.answers import every, time_text
from envfs.errors import AccessDenied

if TYPE_CHECKING:
    from collections.abc import Mapping

    from envfs.cli.backend import Backend

SYMMETRIC = "SYMMETRIC_DEFAULT"
# What only some keys have, shown where it is: member of DescribeKey's answer → name.
_TIMES = {"DeletionDate": "deletion_date", "ValidTo": "valid_to"}
_PLACE = {"Region": "foreign_region", "EndpointUrl": "foreign_endpoint", "Profile": "foreign_profile"}
_ALGORITHMS = {
    "EncryptionAlgorithms": "encryption_algorithms",
    "SigningAlgorithms": "signing_algorithms",
    "MacAlgorithms": "mac_algorithms",
    "KeyAgreementAlgorithms": "key_agreement_algorithms",
    "EncapsulationAlgorithms": "encapsulation_algorithms",
}


def described(backend: Backend, key_id: str) -> dict[str, Any]:
    """All of one key, its aliases included."""
    found = metadata(backend, key_id)
    if "foreign_key" in found:
        place = backend.call("EnvfsKms.GetForeignKey", {"KeyId": key_id})
        found |= {name: place[member] for member, name in _PLACE.items() if member in place}
    return with_aliases(backend, found)


def with_aliases(backend: Backend, found: dict[str, Any]) -> dict[str, Any]:
    """`found` and its aliases; without, if the caller may not list them: that is not the same as having none."""
    aliases = aliases_by_key(backend)
    return found if aliases is None else found | {"aliases": aliases.get(found["key_id"], [])}


def metadata(backend: Backend, key_id: str) -> dict[str, Any]:
    """What DescribeKey tells."""
    return fields(backend.call("DescribeKey", {"KeyId": key_id})["KeyMetadata"])


def fields(found: Mapping[str, Any]) -> dict[str, Any]:
    """KeyMetadata, with the names of the command line."""
    shown = {
        "key_id": found["KeyId"],
        "arn": found["Arn"],
        "state": found["KeyState"],
        # AWS's word for the service-managed keys is that it manages them itself.
        "manager": "SERVICE" if found["KeyManager"] == "AWS" else found["KeyManager"],
        "description": found.get("Description", ""),
        "created": time_text(found["CreationDate"]),
        "spec": found["KeySpec"],
        "usage": found["KeyUsage"],
        "origin": found["Origin"],
    }
    shown |= {name: time_text(found[member]) for member, name in _TIMES.items() if member in found}
    if "XksKeyConfiguration" in found:
        shown["foreign_key"] = found["XksKeyConfiguration"]["Id"]
    if found["KeySpec"] != SYMMETRIC:
        shown |= {name: found[member] for member, name in _ALGORITHMS.items() if found.get(member)}
    return shown


def aliases_by_key(backend: Backend) -> dict[str, list[str]] | None:
    """Key id → its aliases; None if the caller may not list them."""
    found: dict[str, list[str]] = {}
    try:
        for alias in every(backend, "ListAliases", {}, "Aliases"):
            found.setdefault(alias["TargetKeyId"], []).append(alias["AliasName"])
    except AccessDenied:
        return None
    return found
