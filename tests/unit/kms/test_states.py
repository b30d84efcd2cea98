"""The key-state table against AWS's own, written out once more."""

from __future__ import annotations

import pytest

from envfs.errors import Disabled, InvalidState, KmsError, UnsupportedOperation
from envfs.kms.model import ORIGIN_EXTERNAL, ORIGIN_KMS, KeyState
from envfs.kms.states import check_state, refusal

D, P, I = KeyState.DISABLED, KeyState.PENDING_DELETION, KeyState.PENDING_IMPORT  # noqa: E741
CRYPTOGRAPHIC = [
    "Encrypt", "Decrypt", "ReEncryptFrom", "ReEncryptTo", "GenerateDataKey", "GenerateDataKeyWithoutPlaintext",
    "GenerateDataKeyPair", "GenerateDataKeyPairWithoutPlaintext", "Sign", "Verify", "GenerateMac", "VerifyMac",
    "DeriveSharedSecret", "GetPublicKey",
]  # fmt: skip
EXPECTED: dict[str, tuple[type[KmsError] | None, type[KmsError] | None, type[KmsError] | None]] = {
    **dict.fromkeys([*CRYPTOGRAPHIC, "CreateGrant", "ReplicateKey"], (Disabled, InvalidState, InvalidState)),
    **dict.fromkeys(["EnableKey", "DisableKey"], (None, InvalidState, InvalidState)),
    **dict.fromkeys(["EnableKeyRotation", "DisableKeyRotation"], (Disabled, InvalidState, UnsupportedOperation)),
    **dict.fromkeys(
        ["ScheduleKeyDeletion", "CreateAlias", "TagResource", "UntagResource", "UpdateKeyDescription", "UpdateAlias"],
        (None, InvalidState, None),
    ),
    "CancelKeyDeletion": (InvalidState, None, InvalidState),
    **dict.fromkeys(
        ["DescribeKey", "GetKeyPolicy", "PutKeyPolicy", "ListAliases", "ListGrants", "ListResourceTags", "RetireGrant",
         "RevokeGrant", "DeleteAlias"],
        (None, None, None),
    ),
}  # fmt: skip


@pytest.mark.parametrize("operation", sorted(EXPECTED))
def test_each_operation_in_each_state(operation: str) -> None:
    assert tuple(refusal(operation, state, ORIGIN_KMS) for state in (D, P, I)) == EXPECTED[operation]


@pytest.mark.parametrize("operation", sorted(set(EXPECTED) - {"CancelKeyDeletion"}))
def test_an_enabled_key_refuses_nothing(operation: str) -> None:
    assert refusal(operation, KeyState.ENABLED, ORIGIN_KMS) is None


def test_cancelling_a_deletion_needs_one() -> None:
    assert refusal("CancelKeyDeletion", KeyState.ENABLED, ORIGIN_KMS) is InvalidState


@pytest.mark.parametrize("operation", ["ImportKeyMaterial", "GetParametersForImport"])
def test_only_keys_of_external_origin_import(operation: str) -> None:
    assert refusal(operation, KeyState.DISABLED, ORIGIN_KMS) is UnsupportedOperation
    assert refusal(operation, KeyState.ENABLED, ORIGIN_KMS) is UnsupportedOperation
    assert refusal(operation, KeyState.DISABLED, ORIGIN_EXTERNAL) is None
    assert refusal(operation, KeyState.PENDING_IMPORT, ORIGIN_EXTERNAL) is None
    assert refusal(operation, KeyState.PENDING_DELETION, ORIGIN_EXTERNAL) is InvalidState


def test_a_refusal_names_key_and_remedy() -> None:
    with pytest.raises(Disabled, match="arn:x is disabled") as caught:
        check_state("Decrypt", KeyState.DISABLED, ORIGIN_KMS, "arn:x")
    assert "envfs key enable" in caught.value.hint
    check_state("DescribeKey", KeyState.DISABLED, ORIGIN_KMS, "arn:x")
