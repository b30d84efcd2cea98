"""Key states: what each operation does in each state, in one table.

Source: https://docs.aws.amazon.com/kms/latest/developerguide/key-state.html
"""

from __future__ import annotations

from typing import Final, NamedTuple, TypeAlias

from envfs.errors import Disabled, InvalidState, KmsError, UnsupportedOperation
from envfs.kms.model import ORIGIN_EXTERNAL, KeyState

_Refusal: TypeAlias = type[KmsError] | None


class _Row(NamedTuple):
    operations: tuple[str, ...]
    disabled: _Refusal
    pending_deletion: _Refusal
    pending_import: _Refusal
    external_only: bool = False


_TABLE: Final = (
    #     operations                                          Disabled  PendingDeletion  PendingImport
    _Row(("Encrypt", "Decrypt", "ReEncryptFrom", "ReEncryptTo", "GenerateDataKey", "GenerateDataKeyWithoutPlaintext",
          "GenerateDataKeyPair", "GenerateDataKeyPairWithoutPlaintext", "DeriveSharedSecret", "Sign", "Verify",
          "GetPublicKey", "GenerateMac", "VerifyMac", "CreateGrant", "ReplicateKey"),
                                                              Disabled, InvalidState,    InvalidState),
    _Row(("EnableKey", "DisableKey"),                         None,     InvalidState,    InvalidState),
    _Row(("EnableKeyRotation", "DisableKeyRotation", "RotateKeyOnDemand"),
                                                              Disabled, InvalidState,    UnsupportedOperation),
    _Row(("ScheduleKeyDeletion", "CreateAlias", "UpdateAlias", "TagResource", "UntagResource", "UpdateKeyDescription"),
                                                              None,     InvalidState,    None),
    _Row(("DescribeKey", "GetKeyPolicy", "PutKeyPolicy", "ListKeyPolicies", "ListAliases", "ListGrants",
          "ListKeyRotations", "ListResourceTags", "RetireGrant", "RevokeGrant", "DeleteAlias"),
                                                              None,     None,            None),
    _Row(("ImportKeyMaterial", "GetParametersForImport"),     None,     InvalidState,    None,    external_only=True),
)  # fmt: skip

# The one operation that a key permits only while its deletion is pending.
_ONLY_PENDING_DELETION: Final = "CancelKeyDeletion"

_BY_OPERATION: Final = {operation: row for row in _TABLE for operation in row.operations}

_EXPLANATIONS: Final[dict[KeyState, tuple[str, str]]] = {
    KeyState.ENABLED: ("is enabled", ""),
    KeyState.DISABLED: ("is disabled", "enable it with: envfs key enable"),
    KeyState.PENDING_DELETION: ("is pending deletion", "cancel its deletion first"),
    KeyState.PENDING_IMPORT: ("has no key material yet", "import its key material first"),
}


def has_rule(operation: str) -> bool:
    """Whether `operation` is one on keys, for which there is a rule."""
    return operation in _BY_OPERATION or operation == _ONLY_PENDING_DELETION


def refusal(operation: str, state: KeyState, origin: str) -> type[KmsError] | None:
    """The error with which `operation` is refused on a key in `state`, or None. `origin` decides about imports."""
    if operation == _ONLY_PENDING_DELETION:
        return None if state is KeyState.PENDING_DELETION else InvalidState
    row = _BY_OPERATION[operation]
    if state is KeyState.PENDING_DELETION:
        return row.pending_deletion
    if row.external_only and origin != ORIGIN_EXTERNAL:
        return UnsupportedOperation
    if state is KeyState.ENABLED:
        return None
    return row.disabled if state is KeyState.DISABLED else row.pending_import


def check_state(operation: str, state: KeyState, origin: str, key_arn: str) -> None:
    """Raises what `refusal` says, with a message that names the key."""
    error = refusal(operation, state, origin)
    if error is None:
        return
    condition, hint = _EXPLANATIONS[state]
    if error is UnsupportedOperation:
        raise error(f"{operation} is not possible for {key_arn}, which {condition} and has the origin {origin}")
    raise error(f"{key_arn} {condition}", hint=hint)
