"""The input of every operation: members, which of them are required, types and limits.

Source: the pages of the operations in https://docs.aws.amazon.com/kms/latest/APIReference/API_Operations.html; a test
compares all of it with the service model that AWS's own SDK carries.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from envfs.api.validation import Blob, Boolean, Integer, Kind, ListOf, StringMap, Structure, Text, Timestamp
from envfs.format.directory import MAX_DIRECTORY_FILE_SIZE
from envfs.format.evidence import MAX_DEPTH
from envfs.format.geometry import HEADER_SIZE
from envfs.format.names import CIPHER_NAME_MAX
from envfs.format.volume import MAX_VOLUME_FILE_SIZE

#: Bytes of sealed blocks in one request: with base64 and the evidence beside them they stay below what HTTP takes.
MAX_BLOCKS_SIZE: Final = 256 << 10

NO_MEMBERS: Final[Mapping[str, Kind]] = MappingProxyType({})


def _enum(words: str) -> Text:
    return Text(enum=tuple(words.split()))


def _input(required: Mapping[str, Kind] = NO_MEMBERS, /, **optional: Kind) -> Structure:
    return Structure({**required, **optional}, frozenset(required))


BOOLEAN: Final = Boolean()
TIME: Final = Timestamp()
CONTEXT: Final = StringMap()
KEY_ID: Final = Text(1, 2048)
PLAINTEXT: Final = Blob(1, 4096)
CIPHERTEXT: Final = Blob(1, 6144)
PUBLIC_KEY: Final = Blob(1, 8192)
NUMBER_OF_BYTES: Final = Integer(1, 1024)
DESCRIPTION: Final = Text(0, 8192)
ALIAS_NAME: Final = Text(1, 256, "^[a-zA-Z0-9:/_-]+$")
POLICY: Final = Text(1, 131072, r"[\u0009\u000A\u000D\u0020-\u00FF]+")
POLICY_NAME: Final = Text(1, 128, r"[\w]+")
GRANT_TOKEN: Final = Text(1, 8192, secret=True)
GRANT_TOKENS: Final = ListOf(GRANT_TOKEN, 0, 10)
GRANT_ID: Final = Text(1, 128)
PRINCIPAL_ID: Final = Text(1, 256, r"^[\w+=,.@:/-]+$")
SERVICE_PRINCIPAL: Final = Text(1, 128, r"^([A-Za-z0-9\-]+)\.([A-Za-z0-9\-]+)(\.[A-Za-z0-9\-]+)+$")
REGION: Final = Text(1, 32, r"^([a-z]+-){2,3}\d+$")
TAG_KEY: Final = Text(1, 128)
TAGS: Final = ListOf(_input({"TagKey": TAG_KEY, "TagValue": Text(0, 256)}))
MATERIAL_ID: Final = Text(64, 64, "^[a-f0-9]+$")
KEY_STORE_ID: Final = Text(1, 64)
KEY_STORE_NAME: Final = Text(1, 256)

KEY_USAGE: Final = _enum("SIGN_VERIFY ENCRYPT_DECRYPT GENERATE_VERIFY_MAC KEY_AGREEMENT ENCAPSULATE_DECAPSULATE")
MASTER_KEY_SPEC: Final = _enum(
    "RSA_2048 RSA_3072 RSA_4096 ECC_NIST_P256 ECC_NIST_P384 ECC_NIST_P521 ECC_SECG_P256K1 SYMMETRIC_DEFAULT"
    " HMAC_224 HMAC_256 HMAC_384 HMAC_512 SM2"
)
KEY_SPEC: Final = Text(
    enum=(
        *MASTER_KEY_SPEC.enum,
        *("ML_DSA_44", "ML_DSA_65", "ML_DSA_87", "ECC_NIST_EDWARDS25519", "ML_KEM_512", "ML_KEM_768", "ML_KEM_1024"),
    )
)
KEY_PAIR_SPEC: Final = _enum(
    "RSA_2048 RSA_3072 RSA_4096 ECC_NIST_P256 ECC_NIST_P384 ECC_NIST_P521 ECC_SECG_P256K1 SM2 ECC_NIST_EDWARDS25519"
    " ML_KEM_512 ML_KEM_768 ML_KEM_1024"
)
DATA_KEY_SPEC: Final = _enum("AES_256 AES_128")
ORIGIN: Final = _enum("AWS_KMS EXTERNAL AWS_CLOUDHSM EXTERNAL_KEY_STORE")
ENCRYPTION_ALGORITHM: Final = _enum("SYMMETRIC_DEFAULT RSAES_OAEP_SHA_1 RSAES_OAEP_SHA_256 SM2PKE")
SIGNING_ALGORITHM: Final = _enum(
    "RSASSA_PSS_SHA_256 RSASSA_PSS_SHA_384 RSASSA_PSS_SHA_512 RSASSA_PKCS1_V1_5_SHA_256 RSASSA_PKCS1_V1_5_SHA_384"
    " RSASSA_PKCS1_V1_5_SHA_512 ECDSA_SHA_256 ECDSA_SHA_384 ECDSA_SHA_512 SM2DSA ML_DSA_SHAKE_256 ED25519_SHA_512"
    " ED25519_PH_SHA_512"
)
MAC_ALGORITHM: Final = _enum("HMAC_SHA_224 HMAC_SHA_256 HMAC_SHA_384 HMAC_SHA_512")
ENCAPSULATION_ALGORITHM: Final = _enum("ML_KEM")
KEY_AGREEMENT_ALGORITHM: Final = _enum("ECDH")
MESSAGE_TYPE: Final = _enum("RAW DIGEST EXTERNAL_MU")
WRAPPING_ALGORITHM: Final = _enum(
    "RSAES_PKCS1_V1_5 RSAES_OAEP_SHA_1 RSAES_OAEP_SHA_256 RSA_AES_KEY_WRAP_SHA_1 RSA_AES_KEY_WRAP_SHA_256 SM2PKE"
)
WRAPPING_KEY_SPEC: Final = _enum("RSA_2048 RSA_3072 RSA_4096 SM2")
GRANT_OPERATION: Final = _enum(
    "Decrypt Encrypt GenerateDataKey GenerateDataKeyWithoutPlaintext ReEncryptFrom ReEncryptTo Sign Verify GetPublicKey"
    " CreateGrant RetireGrant DescribeKey GenerateDataKeyPair GenerateDataKeyPairWithoutPlaintext GenerateMac VerifyMac"
    " DeriveSharedSecret Encapsulate Decapsulate"
)
DRY_RUN_MODIFIERS: Final = ListOf(_enum("IGNORE_CIPHERTEXT"))
RECIPIENT: Final = _input(KeyEncryptionAlgorithm=_enum("RSAES_OAEP_SHA_256"), AttestationDocument=Blob(1, 262144))
GRANT_CONSTRAINTS: Final = _input(
    EncryptionContextSubset=CONTEXT,
    EncryptionContextEquals=CONTEXT,
    SourceArn=Text(20, 512, "^arn:aws[a-z0-9-]*:[a-z0-9-]+:[a-z0-9-]*:[0-9]{12}:.+$"),
)
_PAGE: Final[Mapping[str, Kind]] = {
    "Limit": Integer(1, 1000),
    "Marker": Text(1, 1024, r"[\u0020-\u00FF]*"),
}
_CALL: Final[Mapping[str, Kind]] = {"GrantTokens": GRANT_TOKENS, "DryRun": BOOLEAN}
_KEY: Final = _input({"KeyId": KEY_ID})
_ALIAS: Final = _input({"AliasName": ALIAS_NAME, "TargetKeyId": KEY_ID})
_KEY_STORE: Final = _input({"CustomKeyStoreId": KEY_STORE_ID})
_EXTERNAL_STORE: Final[Mapping[str, Kind]] = {
    "CloudHsmClusterId": Text(19, 24, "cluster-[2-7a-zA-Z]{11,16}"),
    "KeyStorePassword": Text(7, 32, secret=True),
    "XksProxyUriEndpoint": Text(10, 128, "^https://[a-zA-Z0-9.-]+$"),
    "XksProxyUriPath": Text(10, 128, r"^(/[a-zA-Z0-9\/_-]+/kms/xks/v\d{1,2})$|^(/kms/xks/v\d{1,2})$"),
    "XksProxyVpcEndpointServiceName": Text(
        20, 64, r"^(com|eu)\.amazonaws\.vpce\.([a-z]+-){2,3}\d+\.vpce-svc-[0-9a-z]+$"
    ),
    "XksProxyVpcEndpointServiceOwner": Text(12, 12, "[0-9]{12}"),
    "XksProxyAuthenticationCredential": _input(
        {
            "AccessKeyId": Text(20, 30, "^[A-Z2-7]+$", secret=True),
            "RawSecretAccessKey": Text(43, 64, r"^[a-zA-Z0-9\/+=]+$", secret=True),
        }
    ),
    "XksProxyConnectivity": _enum("PUBLIC_ENDPOINT VPC_ENDPOINT_SERVICE"),
}
_DATA_KEY: Final[Mapping[str, Kind]] = {
    "EncryptionContext": CONTEXT,
    "KeySpec": DATA_KEY_SPEC,
    "NumberOfBytes": NUMBER_OF_BYTES,
    **_CALL,
}
_DATA_KEY_PAIR: Final[Mapping[str, Kind]] = {"EncryptionContext": CONTEXT, **_CALL}

OPERATIONS: Final[Mapping[str, Structure]] = {
    "CancelKeyDeletion": _KEY,
    "ConnectCustomKeyStore": _KEY_STORE,
    "CreateAlias": _ALIAS,
    "CreateCustomKeyStore": _input(
        {"CustomKeyStoreName": KEY_STORE_NAME},
        TrustAnchorCertificate=Text(1, 5000),
        CustomKeyStoreType=_enum("AWS_CLOUDHSM EXTERNAL_KEY_STORE"),
        **_EXTERNAL_STORE,
    ),
    "CreateGrant": _input(
        {"KeyId": KEY_ID, "Operations": ListOf(GRANT_OPERATION)},
        GranteePrincipal=PRINCIPAL_ID,
        RetiringPrincipal=PRINCIPAL_ID,
        Constraints=GRANT_CONSTRAINTS,
        Name=Text(1, 256, "^[a-zA-Z0-9:/_-]+$"),
        GranteeServicePrincipal=SERVICE_PRINCIPAL,
        RetiringServicePrincipal=SERVICE_PRINCIPAL,
        **_CALL,
    ),
    "CreateKey": _input(
        Policy=POLICY,
        Description=DESCRIPTION,
        KeyUsage=KEY_USAGE,
        CustomerMasterKeySpec=MASTER_KEY_SPEC,
        KeySpec=KEY_SPEC,
        Origin=ORIGIN,
        CustomKeyStoreId=KEY_STORE_ID,
        BypassPolicyLockoutSafetyCheck=BOOLEAN,
        Tags=TAGS,
        MultiRegion=BOOLEAN,
        XksKeyId=Text(1, 128, "^[a-zA-Z0-9-_.]+$"),
    ),
    "Decapsulate": _input(
        {
            "KeyId": KEY_ID,
            "SharedSecretCiphertextBlob": CIPHERTEXT,
            "EncapsulationAlgorithm": ENCAPSULATION_ALGORITHM,
        },
        **_CALL,
    ),
    "Decrypt": _input(
        CiphertextBlob=CIPHERTEXT,
        EncryptionContext=CONTEXT,
        KeyId=KEY_ID,
        EncryptionAlgorithm=ENCRYPTION_ALGORITHM,
        Recipient=RECIPIENT,
        DryRunModifiers=DRY_RUN_MODIFIERS,
        **_CALL,
    ),
    "DeleteAlias": _input({"AliasName": ALIAS_NAME}),
    "DeleteCustomKeyStore": _KEY_STORE,
    "DeleteImportedKeyMaterial": _input({"KeyId": KEY_ID}, KeyMaterialId=MATERIAL_ID),
    "DeriveSharedSecret": _input(
        {"KeyId": KEY_ID, "KeyAgreementAlgorithm": KEY_AGREEMENT_ALGORITHM, "PublicKey": PUBLIC_KEY},
        Recipient=RECIPIENT,
        **_CALL,
    ),
    "DescribeCustomKeyStores": _input(CustomKeyStoreId=KEY_STORE_ID, CustomKeyStoreName=KEY_STORE_NAME, **_PAGE),
    "DescribeKey": _input({"KeyId": KEY_ID}, GrantTokens=GRANT_TOKENS),
    "DisableKey": _KEY,
    "DisableKeyRotation": _KEY,
    "DisconnectCustomKeyStore": _KEY_STORE,
    "EnableKey": _KEY,
    "EnableKeyRotation": _input({"KeyId": KEY_ID}, RotationPeriodInDays=Integer(90, 2560)),
    "Encapsulate": _input({"KeyId": KEY_ID, "EncapsulationAlgorithm": ENCAPSULATION_ALGORITHM}, **_CALL),
    "Encrypt": _input(
        {"KeyId": KEY_ID, "Plaintext": PLAINTEXT},
        EncryptionContext=CONTEXT,
        EncryptionAlgorithm=ENCRYPTION_ALGORITHM,
        **_CALL,
    ),
    "GenerateDataKey": _input({"KeyId": KEY_ID}, Recipient=RECIPIENT, **_DATA_KEY),
    "GenerateDataKeyPair": _input(
        {"KeyId": KEY_ID, "KeyPairSpec": KEY_PAIR_SPEC}, Recipient=RECIPIENT, **_DATA_KEY_PAIR
    ),
    "GenerateDataKeyPairWithoutPlaintext": _input({"KeyId": KEY_ID, "KeyPairSpec": KEY_PAIR_SPEC}, **_DATA_KEY_PAIR),
    "GenerateDataKeyWithoutPlaintext": _input({"KeyId": KEY_ID}, **_DATA_KEY),
    "GenerateMac": _input({"Message": PLAINTEXT, "KeyId": KEY_ID, "MacAlgorithm": MAC_ALGORITHM}, **_CALL),
    "GenerateRandom": _input(NumberOfBytes=NUMBER_OF_BYTES, CustomKeyStoreId=KEY_STORE_ID, Recipient=RECIPIENT),
    "GetKeyLastUsage": _KEY,
    "GetKeyPolicy": _input({"KeyId": KEY_ID}, PolicyName=POLICY_NAME),
    "GetKeyRotationStatus": _KEY,
    "GetParametersForImport": _input(
        {
            "KeyId": KEY_ID,
            "WrappingAlgorithm": WRAPPING_ALGORITHM,
            "WrappingKeySpec": WRAPPING_KEY_SPEC,
        }
    ),
    "GetPublicKey": _input({"KeyId": KEY_ID}, GrantTokens=GRANT_TOKENS),
    "ImportKeyMaterial": _input(
        {"KeyId": KEY_ID, "ImportToken": CIPHERTEXT, "EncryptedKeyMaterial": CIPHERTEXT},
        ValidTo=TIME,
        ExpirationModel=_enum("KEY_MATERIAL_EXPIRES KEY_MATERIAL_DOES_NOT_EXPIRE"),
        ImportType=_enum("NEW_KEY_MATERIAL EXISTING_KEY_MATERIAL"),
        KeyMaterialDescription=Text(0, 256, r"^[a-zA-Z0-9:/_\s.-]+$"),
        KeyMaterialId=MATERIAL_ID,
    ),
    "ListAliases": _input(KeyId=KEY_ID, **_PAGE),
    "ListGrants": _input(
        {"KeyId": KEY_ID},
        GrantId=GRANT_ID,
        GranteePrincipal=PRINCIPAL_ID,
        GranteeServicePrincipal=SERVICE_PRINCIPAL,
        **_PAGE,
    ),
    "ListKeyPolicies": _input({"KeyId": KEY_ID}, **_PAGE),
    "ListKeyRotations": _input({"KeyId": KEY_ID}, IncludeKeyMaterial=_enum("ALL_KEY_MATERIAL ROTATIONS_ONLY"), **_PAGE),
    "ListKeys": _input(ResourceOwners=ListOf(_enum("SELF OTHER_ACCOUNTS_VIA_RAM"), 1, 2), **_PAGE),
    "ListResourceTags": _input({"KeyId": KEY_ID}, **_PAGE),
    "ListRetirableGrants": _input(RetiringPrincipal=PRINCIPAL_ID, RetiringServicePrincipal=SERVICE_PRINCIPAL, **_PAGE),
    "PutKeyPolicy": _input(
        {"KeyId": KEY_ID, "Policy": POLICY}, PolicyName=POLICY_NAME, BypassPolicyLockoutSafetyCheck=BOOLEAN
    ),
    "ReEncrypt": _input(
        {"DestinationKeyId": KEY_ID},
        CiphertextBlob=CIPHERTEXT,
        SourceEncryptionContext=CONTEXT,
        SourceKeyId=KEY_ID,
        DestinationEncryptionContext=CONTEXT,
        SourceEncryptionAlgorithm=ENCRYPTION_ALGORITHM,
        DestinationEncryptionAlgorithm=ENCRYPTION_ALGORITHM,
        DryRunModifiers=DRY_RUN_MODIFIERS,
        **_CALL,
    ),
    "ReplicateKey": _input(
        {"KeyId": KEY_ID, "ReplicaRegion": REGION},
        Policy=POLICY,
        BypassPolicyLockoutSafetyCheck=BOOLEAN,
        Description=DESCRIPTION,
        Tags=TAGS,
    ),
    "RetireGrant": _input(GrantToken=GRANT_TOKEN, KeyId=KEY_ID, GrantId=GRANT_ID, DryRun=BOOLEAN),
    "RevokeGrant": _input({"KeyId": KEY_ID, "GrantId": GRANT_ID}, DryRun=BOOLEAN),
    "RotateKeyOnDemand": _KEY,
    "ScheduleKeyDeletion": _input({"KeyId": KEY_ID}, PendingWindowInDays=Integer(1, 365)),
    "Sign": _input(
        {"KeyId": KEY_ID, "Message": PLAINTEXT, "SigningAlgorithm": SIGNING_ALGORITHM},
        MessageType=MESSAGE_TYPE,
        **_CALL,
    ),
    "TagResource": _input({"KeyId": KEY_ID, "Tags": TAGS}),
    "UntagResource": _input({"KeyId": KEY_ID, "TagKeys": ListOf(TAG_KEY)}),
    "UpdateAlias": _ALIAS,
    "UpdateCustomKeyStore": _input(
        {"CustomKeyStoreId": KEY_STORE_ID}, NewCustomKeyStoreName=KEY_STORE_NAME, **_EXTERNAL_STORE
    ),
    "UpdateKeyDescription": _input({"KeyId": KEY_ID, "Description": DESCRIPTION}),
    "UpdatePrimaryRegion": _input({"KeyId": KEY_ID, "PrimaryRegion": REGION}),
    "Verify": _input(
        {
            "KeyId": KEY_ID,
            "Message": PLAINTEXT,
            "Signature": CIPHERTEXT,
            "SigningAlgorithm": SIGNING_ALGORITHM,
        },
        MessageType=MESSAGE_TYPE,
        **_CALL,
    ),
    "VerifyMac": _input(
        {"Message": PLAINTEXT, "KeyId": KEY_ID, "MacAlgorithm": MAC_ALGORITHM, "Mac": CIPHERTEXT}, **_CALL
    ),
}

# envfs's own operations, on what AWS has in other services or not at all.
_USER: Final = Text(1, 128)
_TARGET: Final = Text(1, 2048)
_ACCESS_KEY_ID: Final = Text(16, 128, r"[\w]+")
_IDENTITY_POLICY_NAME: Final = Text(1, 128, r"[\w+=,.@-]+")
_IDENTITY_POLICY: Final = _input({"Target": _TARGET, "PolicyName": _IDENTITY_POLICY_NAME})

IAM_OPERATIONS: Final[Mapping[str, Structure]] = {
    "CreateAccessKey": _input(
        {"UserName": _USER}, AccessKeyId=_ACCESS_KEY_ID, SecretAccessKey=Text(16, 128, secret=True)
    ),
    "DeleteAccessKey": _input({"AccessKeyId": _ACCESS_KEY_ID}),
    "DeletePolicy": _IDENTITY_POLICY,
    "GetAccountAuthorizationDetails": _input(Limit=Integer(1, 100), Marker=Text(1, 4096)),
    "GetPolicy": _IDENTITY_POLICY,
    "ListAccessKeys": _input({"UserName": _USER}),
    "ListPolicies": _input({"Target": _TARGET}),
    "PutPolicy": _input(
        {
            "Target": _TARGET,
            "PolicyName": _IDENTITY_POLICY_NAME,
            "PolicyDocument": POLICY,
        }
    ),
    "UnpinUser": _input({"UserName": _USER}),
}
EXTENSION_OPERATIONS: Final[Mapping[str, Structure]] = {
    "OpenBlocks": _input(
        {
            "VolumeFile": Blob(1, MAX_VOLUME_FILE_SIZE),
            "Directories": ListOf(
                _input({"Name": Blob(0, CIPHER_NAME_MAX), "File": Blob(1, MAX_DIRECTORY_FILE_SIZE)}), 1, MAX_DEPTH
            ),
            "Name": Blob(1, CIPHER_NAME_MAX),
            "Header": Blob(0, HEADER_SIZE),
        },
        FirstBlock=Integer(0, 1 << 52),
        Blocks=Blob(0, MAX_BLOCKS_SIZE),
    ),
    "CreateForeignKey": _input(
        {"ForeignKeyId": KEY_ID, "Region": Text(1, 128)},
        EndpointUrl=Text(1, 2048),
        Profile=Text(1, 256),
        Policy=POLICY,
        Description=DESCRIPTION,
        BypassPolicyLockoutSafetyCheck=BOOLEAN,
        Tags=TAGS,
    ),
    "GetForeignKey": _input({"KeyId": KEY_ID}),
    "QueryAudit": _input(
        KeyId=KEY_ID,
        UserName=_USER,
        EventName=Text(1, 128),
        ErrorCode=Text(0, 128),
        StartTime=TIME,
        EndTime=TIME,
        NewestFirst=BOOLEAN,
        Limit=Integer(1, 1000),
        Marker=Text(1, 49152),  # it names a place in each file of the trail
        Path=Text(1, 8192),
        VolumeId=Text(32, 32, "^[0-9a-f]+$"),
    ),
    "CheckpointAudit": _input(),
    "SetAuditDurability": _input(Durable=BOOLEAN),
    "VerifyAudit": _input(Checkpoint=Text(1, 393216)),  # about 200 bytes for each file of the trail
    "VerifyStore": _input(),
    "WhoAmI": _input(),
}
