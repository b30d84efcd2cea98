"""The key-state table against AWS's own, written out once more: a line for each operation, as the page has them.

https://docs.aws.amazon.com/kms/latest/developerguide/key-state.html; the marks are those of its footnotes.
"""

from __future__ import annotations

import pytest
from botocore.loaders import Loader

from envfs.errors import Disabled, InvalidState, KmsError, UnsupportedOperation
from envfs.kms.actions import KEYLESS_ACTIONS, PERMISSIONS
from envfs.kms.model import ORIGIN_EXTERNAL, ORIGIN_KMS, KeyState
from envfs.kms.states import check_state, has_rule, refusal

# Enabled, Disabled, PendingImport, PendingDeletion. "ok"; 1: is disabled; 2/3: is pending deletion; 4: is not pending
# deletion; 5: is pending import; 6: the origin is EXTERNAL; 8/9: for imported material only.
AWS = """
CancelKeyDeletion                    4   4   4   ok
CreateAlias                          ok  ok  ok  3
CreateGrant                          ok  1   5   2/3
Decapsulate                          ok  1   5   2/3
Decrypt                              ok  1   5   2/3
DeleteAlias                          ok  ok  ok  ok
DeleteImportedKeyMaterial            9   9   ok  9
DeriveSharedSecret                   ok  1   5   2/3
DescribeKey                          ok  ok  ok  ok
DisableKey                           ok  ok  5   3
DisableKeyRotation                   ok  1   6   3
EnableKey                            ok  ok  5   3
EnableKeyRotation                    ok  1   6   3
Encapsulate                          ok  1   5   2/3
Encrypt                              ok  1   5   2/3
GenerateDataKey                      ok  1   5   2/3
GenerateDataKeyPair                  ok  1   5   2/3
GenerateDataKeyPairWithoutPlaintext  ok  1   5   2/3
GenerateDataKeyWithoutPlaintext      ok  1   5   2/3
GenerateMac                          ok  1   5   2/3
GetKeyLastUsage                      ok  ok  ok  ok
GetKeyPolicy                         ok  ok  ok  ok
GetKeyRotationStatus                 ok  ok  6   ok
GetParametersForImport               9   9   ok  8/9
GetPublicKey                         ok  1   5   2/3
ImportKeyMaterial                    9   9   ok  8/9
ListAliases                          ok  ok  ok  ok
ListGrants                           ok  ok  ok  ok
ListKeyPolicies                      ok  ok  ok  ok
ListKeyRotations                     ok  ok  ok  ok
ListResourceTags                     ok  ok  ok  ok
PutKeyPolicy                         ok  ok  ok  ok
ReEncryptFrom                        ok  1   5   2/3
ReEncryptTo                          ok  1   5   2/3
ReplicateKey                         ok  1   5   2/3
RetireGrant                          ok  ok  ok  ok
RevokeGrant                          ok  ok  ok  ok
RotateKeyOnDemand                    ok  1   5   3
ScheduleKeyDeletion                  ok  ok  ok  3
Sign                                 ok  1   5   2/3
TagResource                          ok  ok  ok  3
UntagResource                        ok  ok  ok  3
UpdateAlias                          ok  ok  ok  3
UpdateKeyDescription                 ok  ok  ok  3
UpdatePrimaryRegion                  ok  1   5   2/3
Verify                               ok  1   5   2/3
VerifyMac                            ok  1   5   2/3
"""
STATES = (KeyState.ENABLED, KeyState.DISABLED, KeyState.PENDING_IMPORT, KeyState.PENDING_DELETION)
ROWS = [line.split() for line in AWS.strip().splitlines()]


def meaning(mark: str, origin: str) -> type[KmsError] | None:
    """What a footnote says about a key of this origin."""
    if mark == "ok":
        return None
    if mark == "9":
        return None if origin == ORIGIN_EXTERNAL else UnsupportedOperation
    if mark == "8/9":
        return InvalidState if origin == ORIGIN_EXTERNAL else UnsupportedOperation
    return {"1": Disabled, "6": UnsupportedOperation}.get(mark, InvalidState)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_each_operation_in_each_state(row: list[str]) -> None:
    operation, *marks = row
    for state, mark in zip(STATES, marks, strict=True):
        for origin in (ORIGIN_KMS, ORIGIN_EXTERNAL):
            if state is KeyState.PENDING_IMPORT and origin == ORIGIN_KMS:
                continue  # only keys of external origin wait for material
            assert refusal(operation, state, origin) is meaning(mark, origin), (state, origin)


def test_every_operation_of_the_newest_model_has_its_row() -> None:
    """But those that are on no key, and those on custom key stores."""
    model = Loader().load_service_model("kms", "service-2")
    on_keys = {name for name in model["operations"] if "CustomKeyStore" not in name} - KEYLESS_ACTIONS
    on_keys = on_keys - {"ReEncrypt"} | {"ReEncryptFrom", "ReEncryptTo"}
    assert {row[0] for row in ROWS} == on_keys | {"ListAliases"}
    assert all(has_rule(operation) for operation in on_keys)
    assert set(model["operations"]) - {"ReEncrypt"} <= PERMISSIONS
    assert {"ReEncryptFrom", "ReEncryptTo"} <= PERMISSIONS


def test_a_refusal_names_key_and_remedy() -> None:
    with pytest.raises(Disabled, match="arn:x is disabled") as caught:
        check_state("Decrypt", KeyState.DISABLED, ORIGIN_KMS, "arn:x")
    assert "envfs key enable" in caught.value.hint
    with pytest.raises(InvalidState, match="arn:x is not pending deletion"):
        check_state("CancelKeyDeletion", KeyState.DISABLED, ORIGIN_KMS, "arn:x")
    check_state("DescribeKey", KeyState.DISABLED, ORIGIN_KMS, "arn:x")
