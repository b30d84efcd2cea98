"""Key states: what each operation does in each state, in one table.

Source: https://docs.aws.amazon.com/kms/latest/developerguide/key-state.html. Where AWS leaves two answers open for a
key that is pending deletion, it is KMSInvalidStateException.
"""

from __future__ import annotations

from typing import Final, NamedTuple, TypeAlias

from envfs.errors import Disabled, InvalidState, KmsError, UnsupportedOperation
from envfs.kms.model import ORIGIN_EXTERNAL, KeyState

_Refusal: TypeAlias = type[KmsError] | None


class _Row(NamedTuple):
    operations: tuple[str, ...]
    enabled: _Refusal
    disabled: _Refusal
    pending_deletion: _Refusal
    pending_import: _Refusal
    external_only: bool = False


_NO: Final = InvalidState
_NEVER: Final = UnsupportedOperation

_TABLE: Final = (
    #     operations                                                      Enabled  Disabled  Pending-   Pending-
    #                                                                                        Deletion   Import
    _Row(("Encrypt", "Decrypt", "ReEncryptFrom", "ReEncryptTo", "GenerateDataKey", "GenerateDataKeyWithoutPlaintext",
          "GenerateDataKeyPair", "GenerateDataKeyPairWithoutPlaintext", "DeriveSharedSecret", "Encapsulate",
          "Decapsulate", "Sign", "Verify", "GetPublicKey", "GenerateMac", "VerifyMac", "CreateGrant", "ReplicateKey",
          "UpdatePrimaryRegion"),                                         None,    Disabled, _NO,       _NO),
    _Row(("EnableKey", "DisableKey"),                                     None,    None,     _NO,       _NO),
    _Row(("RotateKeyOnDemand",),                                          None,    Disabled, _NO,       _NO),
    _Row(("EnableKeyRotation", "DisableKeyRotation"),                     None,    Disabled, _NO,       _NEVER),
    _Row(("ScheduleKeyDeletion", "CreateAlias", "UpdateAlias", "TagResource", "UntagResource",
          "UpdateKeyDescription"),                                        None,    None,     _NO,       None),
    _Row(("CancelKeyDeletion",),                                          _NO,     _NO,      None,      _NO),
    _Row(("DescribeKey", "GetKeyLastUsage", "GetKeyPolicy", "PutKeyPolicy", "ListKeyPolicies", "ListAliases",
          "ListGrants", "ListKeyRotations", "ListResourceTags", "RetireGrant", "RevokeGrant",
          "DeleteAlias"),                                                 None,    None,     None,      None),
    _Row(("GetKeyRotationStatus",),                                       None,    None,     None,      _NEVER),
    _Row(("ImportKeyMaterial", "GetParametersForImport"),                 None,    None,     _NO,       None,
         external_only=True),
    _Row(("DeleteImportedKeyMaterial",),                                  None,    None,     None,      None,
         external_only=True),
)  # fmt: skip

_BY_OPERATION: Final = {operation: row for row in _TABLE for operation in row.operations}

_EXPLANATIONS: Final[dict[KeyState, tuple[str, str]]] = {
    KeyState.ENABLED: ("is not pending deletion", ""),
    KeyState.DISABLED: ("is disabled", "enable it with: envfs key enable"),
    KeyState.PENDING_DELETION: ("is pending deletion", "cancel its deletion first"),
    KeyState.PENDING_IMPORT: ("is pending import", "import its key material first"),
}


def has_rule(operation: str) -> bool:
    """Whether `operation` is one on keys, for which there is a rule."""
    return operation in _BY_OPERATION


def refusal(operation: str, state: KeyState, origin: str) -> type[KmsError] | None:
    """The error with which `operation` is refused on a key in `state`, or None. `origin` decides about imports."""
    row = _BY_OPERATION[operation]
    if row.external_only and origin != ORIGIN_EXTERNAL:
        return UnsupportedOperation
    if state is KeyState.ENABLED:
        return row.enabled
    if state is KeyState.DISABLED:
        return row.disabled
    return row.pending_deletion if state is KeyState.PENDING_DELETION else row.pending_import


def check_state(operation: str, state: KeyState, origin: str, key_arn: str) -> None:
    """Raises what `refusal` says, with a message that names the key."""
    error = refusal(operation, state, origin)
    if error is None:
        return
    if error is UnsupportedOperation:
        raise error(f"{operation} is not possible for {key_arn}, whose origin is {origin}")
    condition, hint = _EXPLANATIONS[KeyState.ENABLED if operation == "CancelKeyDeletion" else state]
    raise error(f"{key_arn} {condition}", hint=hint)
