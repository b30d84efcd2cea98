"""Values of the engine as members of answers: base64, epoch seconds, pages."""

from __future__ import annotations

import binascii
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from envfs.kms.model import KeyManager

if TYPE_CHECKING:
    from envfs.crypto.secret import Secret
    from envfs.kms.model import KeyMetadata

# Specs that the older member CustomerMasterKeySpec has no word for are in KeySpec alone.
NEWER_SPECS = ("ML_", "ECC_NIST_EDWARDS25519")


def base64(raw: bytes | bytearray) -> str:
    return binascii.b2a_base64(raw, newline=False).decode("ascii")


def base64_of_secret(secret: Secret) -> str:
    """The text that the caller gets; the secret is wiped, the text cannot be."""
    with secret:
        return base64(secret.expose())


def present(**members: Any) -> dict[str, Any]:
    """The members that there are: AWS leaves out what does not apply."""
    return {name: value for name, value in members.items() if value is not None and value not in ((), "")}


def seconds(value: float | None) -> float | None:
    """A time as JSON has it: seconds since 1970, with a fraction."""
    return None if value is None else float(value)


def page(name: str, items: Iterable[Any], marker: str | None) -> dict[str, Any]:
    """One page of a list: `marker` leads to the next one."""
    answer: dict[str, Any] = {name: list(items), "Truncated": marker is not None}
    if marker is not None:
        answer["NextMarker"] = marker
    return answer


def paging(members: Mapping[str, Any]) -> dict[str, Any]:
    """What a request says about its page, for the engine; each operation has a limit of its own where it says none."""
    found = {}
    if "Limit" in members:
        found["limit"] = members["Limit"]
    if "Marker" in members:
        found["marker"] = members["Marker"]
    return found


def key_metadata(key: KeyMetadata) -> dict[str, Any]:
    """KeyMetadata of DescribeKey. Who manages a key has two words in AWS: those that envfs manages are `AWS`."""
    return {
        "AWSAccountId": key.account,
        "KeyId": key.key_id,
        "Arn": key.arn,
        "CreationDate": float(key.created),
        "Enabled": key.enabled,
        "Description": key.description,
        "KeyUsage": key.usage,
        "KeyState": key.state.value,
        "Origin": key.origin,
        "KeyManager": "CUSTOMER" if key.manager is KeyManager.CUSTOMER else "AWS",
        "KeySpec": key.spec,
        "MultiRegion": False,
        **present(
            CustomerMasterKeySpec=None if key.spec.startswith(NEWER_SPECS) else key.spec,
            DeletionDate=seconds(key.deletion_date),
            ValidTo=seconds(key.valid_to),
            ExpirationModel=key.expiration_model,
            CurrentKeyMaterialId=key.current_material_id,
            EncryptionAlgorithms=list(key.encryption_algorithms) or None,
            SigningAlgorithms=list(key.signing_algorithms) or None,
            MacAlgorithms=list(key.mac_algorithms) or None,
            KeyAgreementAlgorithms=list(key.key_agreement_algorithms) or None,
            EncapsulationAlgorithms=list(key.encapsulation_algorithms) or None,
            XksKeyConfiguration=None if key.foreign_key is None else {"Id": key.foreign_key},
        ),
    }
