"""The actions of the KMS: what a policy can speak about, and how each is authorised."""

from __future__ import annotations

from typing import Final

PREFIX: Final = "kms:"

# Decided by identity policies alone, since no key (and so no key policy) is involved; the account root always has them.
KEYLESS_ACTIONS: Final = frozenset({"CreateKey", "ListKeys", "ListAliases", "GenerateRandom", "ListRetirableGrants"})

READ_ONLY: Final = frozenset({
    "CheckpointAudit", "GetGroupPolicy", "GetUserPolicy", "IdentifyCaller", "ListAccessKeys", "ListGroupPolicies",
    "ListRootSlots", "ListUserPolicies", "QueryAudit", "VerifyAudit", "VerifyStore",
    "Decapsulate", "Decrypt", "DeriveSharedSecret", "DescribeCustomKeyStores", "DescribeKey", "Encapsulate",
    "Encrypt", "GenerateDataKey",
    "GenerateDataKeyPair", "GenerateDataKeyPairWithoutPlaintext", "GenerateDataKeyWithoutPlaintext",
    "GenerateMac", "GenerateRandom", "GetKeyLastUsage", "GetKeyPolicy", "GetKeyRotationStatus",
    "GetParametersForImport", "GetPublicKey", "ListAliases", "ListGrants", "ListKeyPolicies",
    "ListKeyRotations", "ListKeys", "ListResourceTags", "ListRetirableGrants", "ReEncrypt", "Sign", "Verify",
    "VerifyMac",
})  # fmt: skip

# Those that GetKeyLastUsage tells of: a key is in use if one of them succeeded.
CRYPTOGRAPHIC: Final = frozenset({
    "Decapsulate", "Decrypt", "DeriveSharedSecret", "Encapsulate", "Encrypt", "GenerateDataKey",
    "GenerateDataKeyPair", "GenerateDataKeyPairWithoutPlaintext", "GenerateDataKeyWithoutPlaintext",
    "GenerateMac", "ReEncrypt", "Sign", "Verify", "VerifyMac",
})  # fmt: skip

# What the KMS does by itself: CloudTrail's names of AWS KMS's own events.
SERVICE_EVENTS: Final = frozenset({
    "DeleteExpiredKeyMaterial", "DeleteKey", "IntegrityFailure", "OpenFileRevoked", "RotateKey",
})  # fmt: skip

# A policy is checked against these when it is put, because a misspelt Deny would deny nothing.
PERMISSIONS: Final = frozenset({
    "CancelKeyDeletion", "ConnectCustomKeyStore", "CreateAlias", "CreateCustomKeyStore", "CreateGrant",
    "CreateKey", "Decapsulate", "Decrypt", "DeleteAlias", "DeleteCustomKeyStore", "DeleteImportedKeyMaterial",
    "DeriveSharedSecret", "DescribeCustomKeyStores", "DescribeKey", "DisableKey", "DisableKeyRotation",
    "DisconnectCustomKeyStore", "EnableKey", "EnableKeyRotation", "Encapsulate", "Encrypt", "GenerateDataKey",
    "GenerateDataKeyPair", "GenerateDataKeyPairWithoutPlaintext", "GenerateDataKeyWithoutPlaintext",
    "GenerateMac", "GenerateRandom", "GetKeyLastUsage", "GetKeyPolicy", "GetKeyRotationStatus",
    "GetParametersForImport", "GetPublicKey", "ImportKeyMaterial", "ListAliases", "ListGrants",
    "ListKeyPolicies", "ListKeyRotations", "ListKeys", "ListResourceTags", "ListRetirableGrants",
    "PutKeyPolicy", "ReEncryptFrom", "ReEncryptTo", "ReplicateKey", "RetireGrant", "RevokeGrant",
    "RotateKeyOnDemand", "ScheduleKeyDeletion", "Sign", "SynchronizeMultiRegionKey", "TagResource",
    "UntagResource", "UpdateAlias", "UpdateCustomKeyStore", "UpdateKeyDescription", "UpdatePrimaryRegion",
    "Verify", "VerifyMac",
})  # fmt: skip
