"""The values that the KMS's callers see."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from envfs.crypto.secret import Secret

Access: TypeAlias = Literal["read", "write", "create"]

SYMMETRIC_DEFAULT = "SYMMETRIC_DEFAULT"
ENCRYPT_DECRYPT = "ENCRYPT_DECRYPT"
ORIGIN_KMS = "AWS_KMS"  # AWS's word for material that the KMS made itself
ORIGIN_EXTERNAL = "EXTERNAL"
ORIGIN_FOREIGN = "EXTERNAL_KEY_STORE"  # of another KMS

ROTATED_AUTOMATICALLY = "AUTOMATIC"
ROTATED_ON_DEMAND = "ON_DEMAND"

EXPIRES = "KEY_MATERIAL_EXPIRES"  # AWS's expiration models of imported material
DOES_NOT_EXPIRE = "KEY_MATERIAL_DOES_NOT_EXPIRE"


class KeyState(enum.StrEnum):
    """AWS KMS's key states, as far as envfs has them."""

    ENABLED = "Enabled"
    DISABLED = "Disabled"
    PENDING_DELETION = "PendingDeletion"
    PENDING_IMPORT = "PendingImport"


class KeyManager(enum.StrEnum):
    """Whose key it is: an administrator's, made by the filesystem and visible, or the filesystem's own and
    invisible.
    """

    CUSTOMER = "CUSTOMER"
    SERVICE = "SERVICE"
    OWNED = "OWNED"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls. `arn` is the user's ARN, `group_arns` those of his groups; `is_account_root`: he owns the KMS."""

    uid: int
    gid: int
    pid: int
    name: str
    arn: str
    group_arns: frozenset[str]
    is_account_root: bool


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """What comes with a request beside its parameters and its encryption context.

    A mount passes "envfs" as `via_service`. `grant_tokens` (at most 10) are checked and otherwise not needed, since a
    grant counts from the moment that it is made. With `dry_run` a request that would succeed raises DryRunOperation.
    `request_id` (a UUID) names the request in its audit record, if it has a name outside already. Where
    `path_is_proven` is false, `path` is for the record alone: statements that ask for it cannot be evaluated.
    """

    via_service: str | None = None
    path: str | None = None
    access: Access | None = None
    source_ip: str | None = None
    user_agent: str | None = None
    grant_tokens: tuple[str, ...] = ()
    dry_run: bool = False
    request_id: str = ""
    path_is_proven: bool = True


NO_FACTS = RequestFacts()


@dataclass(frozen=True, slots=True)
class DataKey:
    """A data key in both forms; the caller wipes `plaintext`. `material_id` (hexadecimal) names the key material."""

    plaintext: Secret
    blob: bytes
    key_arn: str
    material_id: str


@dataclass(frozen=True, slots=True)
class DataKeyBlob:
    """A data key that nobody has seen."""

    blob: bytes
    key_arn: str
    material_id: str


@dataclass(frozen=True, slots=True)
class Encrypted:
    """What Encrypt gives."""

    blob: bytes
    key_arn: str
    algorithm: str


@dataclass(frozen=True, slots=True)
class Decrypted:
    """What Decrypt gives; the caller wipes `plaintext`. `material_id` is empty for asymmetric keys."""

    plaintext: Secret
    key_arn: str
    algorithm: str
    material_id: str


@dataclass(frozen=True, slots=True)
class ReEncrypted:
    """What ReEncrypt gives. A material id is empty where that key is asymmetric."""

    blob: bytes
    source_arn: str
    arn: str
    source_algorithm: str
    destination_algorithm: str
    source_material_id: str
    material_id: str


@dataclass(frozen=True, slots=True)
class KeyMetadata:
    """What DescribeKey tells. Times are in seconds since 1970; what does not apply is None or empty.

    `valid_to`: the earliest expiry of the imported material. `foreign_key`: the ARN of the key in another KMS.
    """

    key_id: str
    arn: str
    account: str
    created: int
    state: KeyState
    description: str
    manager: KeyManager
    spec: str
    usage: str
    origin: str
    deletion_date: int | None = None
    valid_to: int | None = None
    expiration_model: str | None = None
    current_material_id: str | None = None
    encryption_algorithms: tuple[str, ...] = ()
    signing_algorithms: tuple[str, ...] = ()
    mac_algorithms: tuple[str, ...] = ()
    key_agreement_algorithms: tuple[str, ...] = ()
    encapsulation_algorithms: tuple[str, ...] = ()
    foreign_key: str | None = None

    @property
    def enabled(self) -> bool:
        return self.state is KeyState.ENABLED


@dataclass(frozen=True, slots=True)
class KeyListEntry:
    """One key in ListKeys."""

    key_id: str
    arn: str


@dataclass(frozen=True, slots=True)
class Alias:
    """One alias in ListAliases; `name` begins with `alias/`. `updated`: when it got its present key. Times are in
    seconds since 1970.
    """

    name: str
    arn: str
    target_key_id: str
    created: int
    updated: int


@dataclass(frozen=True, slots=True)
class GrantConstraints:
    """What the encryption context of a request must be for a grant to allow it: `equals`, exactly these pairs;
    `subset`, these among others. One of the two.
    """

    equals: Mapping[str, str] | None = None
    subset: Mapping[str, str] | None = None

    @property
    def types(self) -> tuple[str, ...]:
        """The names that AWS has for those that are there."""
        named = (("EncryptionContextEquals", self.equals), ("EncryptionContextSubset", self.subset))
        return tuple(name for name, pairs in named if pairs is not None)

    @property
    def pairs(self) -> Mapping[str, str]:
        """The pairs, whichever the kind."""
        return {**(self.subset or {}), **(self.equals or {})}


@dataclass(frozen=True, slots=True)
class Grant:
    """One grant, as ListGrants tells it. `grantee` and `retiring` (may be empty) are ARNs, `created` is in
    seconds since 1970.
    """

    grant_id: str
    key_arn: str
    name: str
    grantee: str
    retiring: str
    issuing_account: str
    operations: tuple[str, ...]
    constraints: GrantConstraints | None
    created: int


@dataclass(frozen=True, slots=True)
class CreatedGrant:
    """What CreateGrant answers. The token is told here and nowhere else."""

    grant_id: str
    token: str


@dataclass(frozen=True, slots=True)
class IdentityPolicy:
    """One policy of a user or group (`target`, an ARN). `put`: when it got this text, in seconds since 1970."""

    target: str
    name: str
    document: str
    put: int


@dataclass(frozen=True, slots=True)
class DataKeyPair:
    """A data key pair; the caller wipes `private_plaintext` (PKCS #8 in DER). `public_key` is SubjectPublicKeyInfo in
    DER, `material_id` (hexadecimal) names the key material that encrypted.
    """

    private_plaintext: Secret
    private_blob: bytes
    public_key: bytes
    key_arn: str
    pair_spec: str
    material_id: str


@dataclass(frozen=True, slots=True)
class DataKeyPairBlob:
    """A data key pair whose private key nobody has seen."""

    private_blob: bytes
    public_key: bytes
    key_arn: str
    pair_spec: str
    material_id: str


@dataclass(frozen=True, slots=True)
class Signed:
    """What Sign gives."""

    signature: bytes
    key_arn: str
    algorithm: str


@dataclass(frozen=True, slots=True)
class GeneratedMac:
    """What GenerateMac gives."""

    mac: bytes
    key_arn: str
    algorithm: str


@dataclass(frozen=True, slots=True)
class Verified:
    """What Verify and VerifyMac give, if they find nothing wrong."""

    key_arn: str
    algorithm: str


@dataclass(frozen=True, slots=True)
class PublicKeyInfo:
    """What GetPublicKey gives; `der` is SubjectPublicKeyInfo. Only the algorithms of the key's usage are there."""

    key_arn: str
    der: bytes
    spec: str
    usage: str
    encryption_algorithms: tuple[str, ...] = ()
    signing_algorithms: tuple[str, ...] = ()
    key_agreement_algorithms: tuple[str, ...] = ()
    encapsulation_algorithms: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SharedSecret:
    """What DeriveSharedSecret and Decapsulate give; the caller wipes `secret`."""

    secret: Secret
    key_arn: str
    algorithm: str
    origin: str


@dataclass(frozen=True, slots=True)
class Encapsulated:
    """What Encapsulate gives; the caller wipes `secret`."""

    secret: Secret
    ciphertext: bytes
    key_arn: str
    algorithm: str


@dataclass(frozen=True, slots=True)
class ImportParameters:
    """What GetParametersForImport gives: `public_key` (SubjectPublicKeyInfo in DER) wraps the material, `token` goes
    with it. Both are good until `valid_to` (seconds since 1970).
    """

    key_arn: str
    token: bytes
    public_key: bytes
    valid_to: int


@dataclass(frozen=True, slots=True)
class ImportedMaterial:
    """What ImportKeyMaterial and DeleteImportedKeyMaterial give: the material's id in hexadecimal, empty where there
    was none.
    """

    key_arn: str
    material_id: str


@dataclass(frozen=True, slots=True)
class AccessKey:
    """One access key of a Unix user, as ListAccessKeys tells it. `created` is in seconds since 1970."""

    access_key_id: str
    user: str
    uid: int
    created: int


@dataclass(frozen=True, slots=True)
class NewAccessKey:
    """What CreateAccessKey gives; the caller wipes `secret`."""

    key: AccessKey
    secret: Secret


@dataclass(frozen=True, slots=True)
class ScheduledDeletion:
    """What ScheduleKeyDeletion gives; `deletion_date` is in seconds since 1970."""

    arn: str
    deletion_date: int
    state: KeyState
    days: int


@dataclass(frozen=True, slots=True)
class RotationStatus:
    """What GetKeyRotationStatus gives: the period in days and the next date (seconds since 1970), where rotation is
    on.
    """

    arn: str
    enabled: bool
    period_days: int | None = None
    next_rotation: int | None = None


@dataclass(frozen=True, slots=True)
class Rotation:
    """One piece of key material in ListKeyRotations. `rotated` (seconds since 1970) and `rotation_type` are None for
    the first one, and for one that waits for a rotation. The last four are None unless it was imported.
    """

    key_id: str
    material_id: str
    material_state: str
    rotated: int | None = None
    rotation_type: str | None = None
    description: str | None = None
    import_state: str | None = None
    expiration_model: str | None = None
    valid_to: int | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """The last successful cryptographic operation on a key: its name, when (seconds since 1970), and which record."""

    operation: str
    timestamp: int
    event_id: str
    request_id: str


@dataclass(frozen=True, slots=True)
class LastUsage:
    """What GetKeyLastUsage gives. `usage` is None if the key was not used since `tracking_start`."""

    arn: str
    created: int
    tracking_start: int
    usage: Usage | None


@dataclass(frozen=True, slots=True)
class ResourceTag:
    """One tag in ListResourceTags."""

    name: str
    value: str
