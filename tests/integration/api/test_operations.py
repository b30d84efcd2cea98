"""Every operation of AWS KMS through boto3. Each answer is compared with the service model (`conformance`)."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

import boto3
import botocore
import pytest
from botocore.exceptions import ClientError
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding

from envfs.kms.policy.parser import MAX_POLICY_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.api.kms_server import KmsServer

CONTEXT = {"purpose": "test", "größe": "ünïcode"}


def refusal(call: Callable[..., Any], **members: Any) -> str:
    """The error code with which a call is refused."""
    with pytest.raises(ClientError) as caught:
        call(**members)
    return str(caught.value.response["Error"]["Code"])


def make(kms: Any, **members: Any) -> str:
    return str(kms.create_key(**members)["KeyMetadata"]["KeyId"])


def state(kms: Any, key: str) -> str:
    return str(kms.describe_key(KeyId=key)["KeyMetadata"]["KeyState"])


def alias_of(kms: Any, key: str) -> list[str]:
    return [alias["AliasName"] for alias in kms.list_aliases(KeyId=key)["Aliases"]]


@pytest.fixture
def rsa(kms: Any) -> str:
    return make(kms, KeySpec="RSA_2048", KeyUsage="SIGN_VERIFY")


@pytest.fixture
def external(kms: Any) -> str:
    return make(kms, Origin="EXTERNAL")


@pytest.fixture
def granted(kms: Any, key: str, server: KmsServer) -> tuple[str, dict[str, Any]]:
    """A key, and a grant on it."""
    grant = kms.create_grant(
        KeyId=key,
        GranteePrincipal=server.owner_arn,
        RetiringPrincipal=server.owner_arn,
        Operations=["Decrypt", "Encrypt"],
        Constraints={"EncryptionContextSubset": CONTEXT},
        Name="a-grant",
    )
    return key, grant


def test_every_operation_has_a_test() -> None:
    model = botocore.session.get_session().get_service_model("kms")
    wanted = {f"test_{botocore.xform_name(name)}" for name in model.operation_names}
    assert wanted <= set(globals())


def test_cancel_key_deletion(kms: Any, key: str) -> None:
    kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)
    assert kms.cancel_key_deletion(KeyId=key)["KeyId"].endswith(f":key/{key}")
    assert state(kms, key) == "Disabled"
    assert refusal(kms.cancel_key_deletion, KeyId=key) == "KMSInvalidStateException"


def test_connect_custom_key_store(kms: Any) -> None:
    assert refusal(kms.connect_custom_key_store, CustomKeyStoreId="cks-1") == "UnsupportedOperationException"


def test_delete_custom_key_store(kms: Any) -> None:
    assert refusal(kms.delete_custom_key_store, CustomKeyStoreId="cks-1") == "UnsupportedOperationException"


def test_disconnect_custom_key_store(kms: Any) -> None:
    assert refusal(kms.disconnect_custom_key_store, CustomKeyStoreId="cks-1") == "UnsupportedOperationException"


def test_update_custom_key_store(kms: Any) -> None:
    assert refusal(kms.update_custom_key_store, CustomKeyStoreId="cks-1") == "UnsupportedOperationException"


def test_create_custom_key_store(kms: Any) -> None:
    assert refusal(kms.create_custom_key_store, CustomKeyStoreName="store") == "UnsupportedOperationException"


def test_describe_custom_key_stores(kms: Any) -> None:
    answer = kms.describe_custom_key_stores()
    assert (answer["CustomKeyStores"], answer["Truncated"]) == ([], False)
    assert refusal(kms.describe_custom_key_stores, CustomKeyStoreId="cks-1") == "CustomKeyStoreNotFoundException"


def test_create_alias(kms: Any, key: str) -> None:
    kms.create_alias(AliasName=f"alias/{key}", TargetKeyId=key)
    assert kms.describe_key(KeyId=f"alias/{key}")["KeyMetadata"]["KeyId"] == key
    assert refusal(kms.create_alias, AliasName=f"alias/{key}", TargetKeyId=key) == "AlreadyExistsException"
    assert refusal(kms.create_alias, AliasName="no-alias", TargetKeyId=key) in {
        "InvalidAliasNameException",
        "ValidationException",
    }


def test_update_alias(kms: Any, key: str) -> None:
    kms.create_alias(AliasName=f"alias/{key}", TargetKeyId=key)
    other = make(kms)
    kms.update_alias(AliasName=f"alias/{key}", TargetKeyId=other)
    assert alias_of(kms, key) == []
    assert alias_of(kms, other) == [f"alias/{key}"]
    assert refusal(kms.update_alias, AliasName="alias/none", TargetKeyId=other) == "NotFoundException"


def test_delete_alias(kms: Any, key: str) -> None:
    kms.create_alias(AliasName=f"alias/{key}", TargetKeyId=key)
    kms.delete_alias(AliasName=f"alias/{key}")
    assert alias_of(kms, key) == []
    assert refusal(kms.delete_alias, AliasName=f"alias/{key}") == "NotFoundException"


def test_list_aliases(kms: Any, key: str) -> None:
    names = [f"alias/{key}/{number}" for number in range(5)]
    for name in names:
        kms.create_alias(AliasName=name, TargetKeyId=key)
    pages = list(kms.get_paginator("list_aliases").paginate(KeyId=key, PaginationConfig={"PageSize": 2}))
    assert [len(page["Aliases"]) for page in pages] == [2, 2, 1]
    assert [alias["AliasName"] for page in pages for alias in page["Aliases"]] == names
    assert pages[0]["Aliases"][0]["TargetKeyId"] == key
    assert refusal(kms.list_aliases, Marker="nonsense") == "InvalidMarkerException"


def test_create_grant(kms: Any, granted: tuple[str, dict[str, Any]], server: KmsServer) -> None:
    key, grant = granted
    assert grant["GrantToken"]
    again = kms.create_grant(
        KeyId=key,
        GranteePrincipal=server.owner_arn,
        RetiringPrincipal=server.owner_arn,
        Operations=["Decrypt", "Encrypt"],
        Constraints={"EncryptionContextSubset": CONTEXT},
        Name="a-grant",
    )
    assert again["GrantId"] == grant["GrantId"]
    assert (
        refusal(kms.create_grant, KeyId=key, GranteePrincipal=server.owner_arn, Operations=["Sign"])
        == "ValidationException"
    )


def test_list_grants(kms: Any, granted: tuple[str, dict[str, Any]], server: KmsServer) -> None:
    key, grant = granted
    (listed,) = kms.list_grants(KeyId=key)["Grants"]
    assert listed["GrantId"] == grant["GrantId"]
    assert listed["Constraints"] == {"EncryptionContextSubset": CONTEXT}
    assert sorted(listed["Operations"]) == ["Decrypt", "Encrypt"]
    assert kms.list_grants(KeyId=key, GranteePrincipal=server.owner_arn)["Grants"] == [listed]


def test_list_retirable_grants(kms: Any, granted: tuple[str, dict[str, Any]], server: KmsServer) -> None:
    found = kms.list_retirable_grants(RetiringPrincipal=server.owner_arn, Limit=100)
    assert granted[1]["GrantId"] in [grant["GrantId"] for grant in found["Grants"]]


def test_retire_grant(kms: Any, granted: tuple[str, dict[str, Any]]) -> None:
    key, grant = granted
    assert refusal(kms.retire_grant, GrantToken=grant["GrantToken"], DryRun=True) == "DryRunOperationException"
    kms.retire_grant(GrantToken=grant["GrantToken"])
    assert kms.list_grants(KeyId=key)["Grants"] == []


def test_revoke_grant(kms: Any, granted: tuple[str, dict[str, Any]]) -> None:
    key, grant = granted
    kms.revoke_grant(KeyId=key, GrantId=grant["GrantId"])
    assert kms.list_grants(KeyId=key)["Grants"] == []
    assert refusal(kms.revoke_grant, KeyId=key, GrantId=grant["GrantId"]) == "NotFoundException"


def test_create_key(kms: Any) -> None:
    made = kms.create_key(Description="for tests", Tags=[{"TagKey": "team", "TagValue": "blue"}])["KeyMetadata"]
    assert (made["KeySpec"], made["KeyUsage"], made["Origin"]) == ("SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT", "AWS_KMS")
    assert made["EncryptionAlgorithms"] == ["SYMMETRIC_DEFAULT"]
    assert abs(made["CreationDate"] - dt.datetime.now(dt.UTC)) < dt.timedelta(minutes=5)
    assert refusal(kms.create_key, KeySpec="RSA_2048") == "ValidationException"
    assert refusal(kms.create_key, Origin="AWS_CLOUDHSM") == "UnsupportedOperationException"
    assert refusal(kms.create_key, MultiRegion=True) == "UnsupportedOperationException"
    assert refusal(kms.create_key, Policy="{}") == "MalformedPolicyDocumentException"


@pytest.mark.parametrize(
    ("spec", "usage"),
    [
        ("RSA_3072", "ENCRYPT_DECRYPT"),
        ("ECC_NIST_P256", "SIGN_VERIFY"),
        ("ECC_NIST_P384", "KEY_AGREEMENT"),
        ("ECC_NIST_P521", "SIGN_VERIFY"),
        ("ECC_SECG_P256K1", "SIGN_VERIFY"),
        ("ECC_NIST_EDWARDS25519", "SIGN_VERIFY"),
        ("HMAC_224", "GENERATE_VERIFY_MAC"),
        ("HMAC_512", "GENERATE_VERIFY_MAC"),
        ("ML_DSA_65", "SIGN_VERIFY"),
        ("ML_KEM_768", "ENCAPSULATE_DECAPSULATE"),
    ],
)
def test_create_key_of_each_kind(kms: Any, spec: str, usage: str) -> None:
    made = kms.create_key(KeySpec=spec, KeyUsage=usage)["KeyMetadata"]
    assert (made["KeySpec"], made["KeyUsage"]) == (spec, usage)
    assert kms.describe_key(KeyId=made["KeyId"])["KeyMetadata"] == made


def test_describe_key(kms: Any, key: str) -> None:
    described = kms.describe_key(KeyId=key)["KeyMetadata"]
    assert kms.describe_key(KeyId=described["Arn"])["KeyMetadata"] == described
    assert (described["Enabled"], described["KeyState"], described["KeyManager"]) == (True, "Enabled", "CUSTOMER")
    assert refusal(kms.describe_key, KeyId="alias/none") == "NotFoundException"
    assert refusal(kms.describe_key, KeyId="arn:envfs:s3:::bucket") == "InvalidArnException"


def test_list_keys(kms: Any, key: str) -> None:
    pages = list(kms.get_paginator("list_keys").paginate(PaginationConfig={"PageSize": 2}))
    found = [entry["KeyId"] for page in pages for entry in page["Keys"]]
    assert key in found
    assert found == sorted(set(found))
    assert all(len(page["Keys"]) == 2 for page in pages[:-1])


def test_update_key_description(kms: Any, key: str) -> None:
    kms.update_key_description(KeyId=key, Description="another")
    assert kms.describe_key(KeyId=key)["KeyMetadata"]["Description"] == "another"


def test_disable_key(kms: Any, key: str) -> None:
    kms.disable_key(KeyId=key)
    assert state(kms, key) == "Disabled"
    assert refusal(kms.encrypt, KeyId=key, Plaintext=b"x") == "DisabledException"


def test_enable_key(kms: Any, key: str) -> None:
    kms.disable_key(KeyId=key)
    kms.enable_key(KeyId=key)
    assert state(kms, key) == "Enabled"


def test_schedule_key_deletion(kms: Any, key: str) -> None:
    answer = kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)
    assert (answer["KeyState"], answer["PendingWindowInDays"]) == ("PendingDeletion", 7)
    assert answer["DeletionDate"] > dt.datetime.now(dt.UTC) + dt.timedelta(days=6)
    assert refusal(kms.encrypt, KeyId=key, Plaintext=b"x") == "KMSInvalidStateException"
    assert refusal(kms.schedule_key_deletion, KeyId=make(kms), PendingWindowInDays=6) == "ValidationException"


def test_get_key_last_usage(kms: Any, key: str) -> None:
    assert "KeyLastUsage" not in kms.get_key_last_usage(KeyId=key)
    request_id = kms.encrypt(KeyId=key, Plaintext=b"x")["ResponseMetadata"]["RequestId"]
    found = kms.get_key_last_usage(KeyId=key)
    assert found["KeyLastUsage"]["Operation"] == "Encrypt"
    assert found["KeyLastUsage"]["KmsRequestId"] == request_id
    assert found["KeyCreationDate"] >= found["TrackingStartDate"] - dt.timedelta(days=1)


def test_encrypt(kms: Any, key: str) -> None:
    made = kms.encrypt(KeyId=key, Plaintext=b"p" * 4096, EncryptionContext=CONTEXT)
    assert made["EncryptionAlgorithm"] == "SYMMETRIC_DEFAULT"
    assert made["KeyId"].endswith(f":key/{key}")
    assert refusal(kms.encrypt, KeyId=key, Plaintext=b"x", DryRun=True) == "DryRunOperationException"
    assert refusal(kms.encrypt, KeyId=key, Plaintext=b"x", GrantTokens=["wrong"]) == "InvalidGrantTokenException"


def test_decrypt(kms: Any, key: str) -> None:
    blob = kms.encrypt(KeyId=key, Plaintext=b"plaintext", EncryptionContext=CONTEXT)["CiphertextBlob"]
    opened = kms.decrypt(CiphertextBlob=blob, EncryptionContext=CONTEXT)
    assert opened["Plaintext"] == b"plaintext"
    assert refusal(kms.decrypt, CiphertextBlob=blob) == "InvalidCiphertextException"
    wrong = {"CiphertextBlob": blob, "EncryptionContext": CONTEXT, "KeyId": make(kms)}
    assert refusal(kms.decrypt, **wrong) == "IncorrectKeyException"
    recipient = {"KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256", "AttestationDocument": b"x"}
    refused = {"CiphertextBlob": blob, "EncryptionContext": CONTEXT, "Recipient": recipient}
    assert refusal(kms.decrypt, **refused) == "UnsupportedOperationException"
    assert refusal(kms.decrypt, KeyId=key) == "ValidationException"


def test_decrypt_with_rsa(kms: Any) -> None:
    key = make(kms, KeySpec="RSA_2048", KeyUsage="ENCRYPT_DECRYPT")
    members = {"KeyId": key, "EncryptionAlgorithm": "RSAES_OAEP_SHA_256"}
    blob = kms.encrypt(Plaintext=b"plaintext", **members)["CiphertextBlob"]
    opened = kms.decrypt(CiphertextBlob=blob, **members)
    assert (opened["Plaintext"], opened["EncryptionAlgorithm"]) == (b"plaintext", "RSAES_OAEP_SHA_256")


def test_re_encrypt(kms: Any, key: str) -> None:
    blob = kms.encrypt(KeyId=key, Plaintext=b"plaintext", EncryptionContext=CONTEXT)["CiphertextBlob"]
    other = make(kms)
    moved = kms.re_encrypt(
        CiphertextBlob=blob,
        SourceEncryptionContext=CONTEXT,
        DestinationKeyId=other,
        DestinationEncryptionContext={"new": "context"},
    )
    assert (moved["SourceKeyId"][-36:], moved["KeyId"][-36:]) == (key, other)
    opened = kms.decrypt(CiphertextBlob=moved["CiphertextBlob"], EncryptionContext={"new": "context"}, KeyId=other)
    assert opened["Plaintext"] == b"plaintext"


def test_generate_data_key(kms: Any, key: str) -> None:
    made = kms.generate_data_key(KeyId=key, KeySpec="AES_256", EncryptionContext=CONTEXT)
    assert len(made["Plaintext"]) == 32
    opened = kms.decrypt(CiphertextBlob=made["CiphertextBlob"], EncryptionContext=CONTEXT)
    assert opened["Plaintext"] == made["Plaintext"]
    assert opened["KeyMaterialId"] == made["KeyMaterialId"]
    assert len(kms.generate_data_key(KeyId=key, NumberOfBytes=1024)["Plaintext"]) == 1024
    both = {"KeyId": key, "KeySpec": "AES_128", "NumberOfBytes": 16}
    assert refusal(kms.generate_data_key, **both) == "ValidationException"
    assert refusal(kms.generate_data_key, KeyId=key) == "ValidationException"


def test_generate_data_key_without_plaintext(kms: Any, key: str) -> None:
    made = kms.generate_data_key_without_plaintext(KeyId=key, KeySpec="AES_128")
    assert "Plaintext" not in made
    assert len(kms.decrypt(CiphertextBlob=made["CiphertextBlob"])["Plaintext"]) == 16


@pytest.mark.parametrize("spec", ["RSA_2048", "ECC_NIST_P256", "ECC_SECG_P256K1", "ECC_NIST_EDWARDS25519"])
def test_generate_data_key_pair_of_each_kind(kms: Any, key: str, spec: str) -> None:
    made = kms.generate_data_key_pair(KeyId=key, KeyPairSpec=spec, EncryptionContext=CONTEXT)
    private = serialization.load_der_private_key(made["PrivateKeyPlaintext"], None)
    public = private.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert public == made["PublicKey"]
    opened = kms.decrypt(CiphertextBlob=made["PrivateKeyCiphertextBlob"], EncryptionContext=CONTEXT)
    assert opened["Plaintext"] == made["PrivateKeyPlaintext"]


def test_generate_data_key_pair(kms: Any, key: str) -> None:
    made = kms.generate_data_key_pair(KeyId=key, KeyPairSpec="ECC_NIST_P384")
    assert made["KeyPairSpec"] == "ECC_NIST_P384"
    assert kms.decrypt(CiphertextBlob=made["PrivateKeyCiphertextBlob"])["Plaintext"] == made["PrivateKeyPlaintext"]


def test_generate_data_key_pair_without_plaintext(kms: Any, key: str) -> None:
    made = kms.generate_data_key_pair_without_plaintext(KeyId=key, KeyPairSpec="RSA_2048")
    assert "PrivateKeyPlaintext" not in made
    private = kms.decrypt(CiphertextBlob=made["PrivateKeyCiphertextBlob"])["Plaintext"]
    loaded: Any = serialization.load_der_private_key(private, None)
    assert loaded.key_size == 2048


def test_generate_random(kms: Any) -> None:
    assert len(kms.generate_random(NumberOfBytes=1024)["Plaintext"]) == 1024
    assert refusal(kms.generate_random) == "ValidationException"
    assert refusal(kms.generate_random, NumberOfBytes=1, CustomKeyStoreId="c") == "CustomKeyStoreNotFoundException"


def test_get_key_policy(kms: Any, key: str) -> None:
    found = kms.get_key_policy(KeyId=key, PolicyName="default")
    assert json.loads(found["Policy"])["Statement"]
    assert found["PolicyName"] == "default"
    assert refusal(kms.get_key_policy, KeyId=key, PolicyName="other") == "NotFoundException"


def test_put_key_policy(kms: Any, key: str) -> None:
    policy = kms.get_key_policy(KeyId=key)["Policy"].replace(" ", "")
    kms.put_key_policy(KeyId=key, PolicyName="default", Policy=policy)
    assert kms.get_key_policy(KeyId=key)["Policy"] == policy
    locked_out = {"Version": "2012-10-17", "Statement": []}
    assert refusal(kms.put_key_policy, KeyId=key, Policy=json.dumps(locked_out)) == "MalformedPolicyDocumentException"


def test_list_key_policies(kms: Any, key: str) -> None:
    found = kms.list_key_policies(KeyId=key)
    assert (found["PolicyNames"], found["Truncated"]) == (["default"], False)


def test_tag_resource(kms: Any, key: str) -> None:
    kms.tag_resource(KeyId=key, Tags=[{"TagKey": "team", "TagValue": "blue"}, {"TagKey": "empty", "TagValue": ""}])
    tags = {tag["TagKey"]: tag["TagValue"] for tag in kms.list_resource_tags(KeyId=key)["Tags"]}
    assert tags == {"team": "blue", "empty": ""}
    twice = [{"TagKey": "a", "TagValue": "1"}, {"TagKey": "a", "TagValue": "2"}]
    assert refusal(kms.tag_resource, KeyId=key, Tags=twice) == "TagException"


def test_untag_resource(kms: Any, key: str) -> None:
    kms.tag_resource(KeyId=key, Tags=[{"TagKey": "team", "TagValue": "blue"}])
    kms.untag_resource(KeyId=key, TagKeys=["team"])
    assert kms.list_resource_tags(KeyId=key)["Tags"] == []


def test_list_resource_tags(kms: Any, key: str) -> None:
    kms.tag_resource(KeyId=key, Tags=[{"TagKey": f"tag{number}", "TagValue": "x"} for number in range(5)])
    first = kms.list_resource_tags(KeyId=key, Limit=3)
    rest = kms.list_resource_tags(KeyId=key, Limit=3, Marker=first["NextMarker"])
    assert (len(first["Tags"]), len(rest["Tags"]), rest["Truncated"]) == (3, 2, False)


def test_get_key_rotation_status(kms: Any, key: str, rsa: str) -> None:
    status = kms.get_key_rotation_status(KeyId=key)
    assert status["KeyRotationEnabled"] is False
    assert "NextRotationDate" not in status


def test_enable_key_rotation(kms: Any, key: str, rsa: str) -> None:
    kms.enable_key_rotation(KeyId=key, RotationPeriodInDays=90)
    status = kms.get_key_rotation_status(KeyId=key)
    assert (status["KeyRotationEnabled"], status["RotationPeriodInDays"]) == (True, 90)
    assert status["NextRotationDate"] > dt.datetime.now(dt.UTC) + dt.timedelta(days=89)
    assert refusal(kms.enable_key_rotation, KeyId=rsa) == "UnsupportedOperationException"


def test_disable_key_rotation(kms: Any, key: str) -> None:
    kms.enable_key_rotation(KeyId=key)
    kms.disable_key_rotation(KeyId=key)
    assert kms.get_key_rotation_status(KeyId=key)["KeyRotationEnabled"] is False


def test_rotate_key_on_demand(kms: Any, key: str) -> None:
    before = kms.encrypt(KeyId=key, Plaintext=b"old")
    assert kms.rotate_key_on_demand(KeyId=key)["KeyId"].endswith(key)
    assert kms.decrypt(CiphertextBlob=before["CiphertextBlob"])["Plaintext"] == b"old"
    made = kms.generate_data_key(KeyId=key, KeySpec="AES_256")
    old = kms.decrypt(CiphertextBlob=before["CiphertextBlob"])
    assert made["KeyMaterialId"] != old["KeyMaterialId"]


def test_list_key_rotations(kms: Any, key: str) -> None:
    for _ in range(2):
        kms.rotate_key_on_demand(KeyId=key)
    rotations = kms.list_key_rotations(KeyId=key)["Rotations"]
    assert [rotation["RotationType"] for rotation in rotations] == ["ON_DEMAND", "ON_DEMAND"]
    every = kms.list_key_rotations(KeyId=key, IncludeKeyMaterial="ALL_KEY_MATERIAL")["Rotations"]
    assert sorted(one["KeyMaterialState"] for one in every) == ["CURRENT", "NON_CURRENT", "NON_CURRENT"]


def test_sign(kms: Any, rsa: str) -> None:
    members = {"KeyId": rsa, "SigningAlgorithm": "RSASSA_PSS_SHA_256"}
    made = kms.sign(Message=b"message", **members)
    public: Any = serialization.load_der_public_key(kms.get_public_key(KeyId=rsa)["PublicKey"])
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
    public.verify(made["Signature"], b"message", pss, hashes.SHA256())
    digest = hashlib.sha256(b"message").digest()
    again = kms.sign(Message=digest, MessageType="DIGEST", **members)
    assert kms.verify(Message=b"message", Signature=again["Signature"], **members)["SignatureValid"] is True
    wrong = {**members, "SigningAlgorithm": "ECDSA_SHA_256"}
    assert refusal(kms.sign, Message=b"message", **wrong) == "InvalidKeyUsageException"


def test_verify(kms: Any) -> None:
    key = make(kms, KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")
    members = {"KeyId": key, "SigningAlgorithm": "ECDSA_SHA_256"}
    signature = kms.sign(Message=b"message", **members)["Signature"]
    assert kms.verify(Message=b"message", Signature=signature, **members)["SignatureValid"] is True
    assert refusal(kms.verify, Message=b"other", Signature=signature, **members) == "KMSInvalidSignatureException"


def test_get_public_key(kms: Any, key: str) -> None:
    ecc = make(kms, KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")
    found = kms.get_public_key(KeyId=ecc)
    assert isinstance(serialization.load_der_public_key(found["PublicKey"]), ec.EllipticCurvePublicKey)
    assert found["SigningAlgorithms"] == ["ECDSA_SHA_256"]
    assert refusal(kms.get_public_key, KeyId=key) == "UnsupportedOperationException"


@pytest.fixture
def hmac_key(kms: Any) -> str:
    return make(kms, KeySpec="HMAC_256", KeyUsage="GENERATE_VERIFY_MAC")


def test_generate_mac(kms: Any, hmac_key: str) -> None:
    made = kms.generate_mac(KeyId=hmac_key, Message=b"message", MacAlgorithm="HMAC_SHA_256")
    assert len(made["Mac"]) == 32


def test_verify_mac(kms: Any, hmac_key: str) -> None:
    members = {"KeyId": hmac_key, "MacAlgorithm": "HMAC_SHA_256"}
    mac = kms.generate_mac(Message=b"message", **members)["Mac"]
    assert kms.verify_mac(Message=b"message", Mac=mac, **members)["MacValid"] is True
    assert refusal(kms.verify_mac, Message=b"other", Mac=mac, **members) == "KMSInvalidMacException"


def test_derive_shared_secret(kms: Any) -> None:
    key = make(kms, KeySpec="ECC_NIST_P256", KeyUsage="KEY_AGREEMENT")
    mine = ec.generate_private_key(ec.SECP256R1())
    public = mine.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    derived = kms.derive_shared_secret(KeyId=key, KeyAgreementAlgorithm="ECDH", PublicKey=public)
    theirs = serialization.load_der_public_key(kms.get_public_key(KeyId=key)["PublicKey"])
    assert isinstance(theirs, ec.EllipticCurvePublicKey)
    assert derived["SharedSecret"] == mine.exchange(ec.ECDH(), theirs)
    assert derived["KeyOrigin"] == "AWS_KMS"


@pytest.fixture
def kem_key(kms: Any) -> str:
    return make(kms, KeySpec="ML_KEM_768", KeyUsage="ENCAPSULATE_DECAPSULATE")


def test_encapsulate(kms: Any, kem_key: str) -> None:
    made = kms.encapsulate(KeyId=kem_key, EncapsulationAlgorithm="ML_KEM")
    assert len(made["SharedSecret"]) == 32
    assert len(made["SharedSecretCiphertextBlob"]) == 1088


def test_decapsulate(kms: Any, kem_key: str) -> None:
    made = kms.encapsulate(KeyId=kem_key, EncapsulationAlgorithm="ML_KEM")
    opened = kms.decapsulate(
        KeyId=kem_key,
        EncapsulationAlgorithm="ML_KEM",
        SharedSecretCiphertextBlob=made["SharedSecretCiphertextBlob"],
    )
    assert opened["SharedSecret"] == made["SharedSecret"]


@pytest.fixture
def imported(kms: Any, external: str) -> tuple[str, bytes]:
    """A key with imported material, and that material."""
    material = os.urandom(32)
    import_material(kms, external, material)
    return external, material


def import_material(kms: Any, key: str, material: bytes, **members: Any) -> dict[str, Any]:
    parameters = kms.get_parameters_for_import(
        KeyId=key, WrappingAlgorithm="RSAES_OAEP_SHA_256", WrappingKeySpec="RSA_2048"
    )
    public: Any = serialization.load_der_public_key(parameters["PublicKey"])
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
    members = {"ExpirationModel": "KEY_MATERIAL_DOES_NOT_EXPIRE"} | members
    answer: dict[str, Any] = kms.import_key_material(
        KeyId=key,
        ImportToken=parameters["ImportToken"],
        EncryptedKeyMaterial=public.encrypt(material, oaep),
        **members,
    )
    return answer


def test_get_parameters_for_import(kms: Any, external: str, key: str) -> None:
    members = {"WrappingAlgorithm": "RSAES_OAEP_SHA_256", "WrappingKeySpec": "RSA_2048"}
    found = kms.get_parameters_for_import(KeyId=external, **members)
    public: Any = serialization.load_der_public_key(found["PublicKey"])
    assert public.key_size == 2048
    assert found["ParametersValidTo"] > dt.datetime.now(dt.UTC) + dt.timedelta(hours=23)
    assert refusal(kms.get_parameters_for_import, KeyId=key, **members) == "UnsupportedOperationException"


def test_import_key_material(kms: Any, external: str) -> None:
    assert state(kms, external) == "PendingImport"
    valid_to = dt.datetime.now(dt.UTC).replace(microsecond=0) + dt.timedelta(days=1)
    material = os.urandom(32)
    import_material(kms, external, material, ExpirationModel="KEY_MATERIAL_EXPIRES", ValidTo=valid_to)
    described = kms.describe_key(KeyId=external)["KeyMetadata"]
    assert (described["KeyState"], described["ExpirationModel"]) == ("Enabled", "KEY_MATERIAL_EXPIRES")
    assert described["ValidTo"] == valid_to
    blob = kms.encrypt(KeyId=external, Plaintext=b"x")["CiphertextBlob"]
    assert kms.decrypt(CiphertextBlob=blob)["Plaintext"] == b"x"


def test_delete_imported_key_material(kms: Any, imported: tuple[str, bytes]) -> None:
    key, material = imported
    blob = kms.encrypt(KeyId=key, Plaintext=b"x")["CiphertextBlob"]
    kms.delete_imported_key_material(KeyId=key)
    assert state(kms, key) == "PendingImport"
    with pytest.raises(ClientError) as caught:
        import_material(kms, key, os.urandom(32))
    assert caught.value.response["Error"]["Code"] == "IncorrectKeyMaterialException"
    import_material(kms, key, material)
    assert kms.decrypt(CiphertextBlob=blob)["Plaintext"] == b"x"


def test_replicate_key(kms: Any, key: str) -> None:
    assert refusal(kms.replicate_key, KeyId=key, ReplicaRegion="eu-west-1") == "UnsupportedOperationException"


def test_update_primary_region(kms: Any, key: str) -> None:
    assert refusal(kms.update_primary_region, KeyId=key, PrimaryRegion="eu-west-1") == "UnsupportedOperationException"


def test_get_caller_identity(server: KmsServer) -> None:
    found = server.client("sts").get_caller_identity()
    assert (found["Account"], found["Arn"], found["UserId"]) == ("000000000000", server.owner_arn, str(os.getuid()))


def test_errors_are_the_clients_own_classes(kms: Any) -> None:
    with pytest.raises(kms.exceptions.NotFoundException):
        kms.describe_key(KeyId="alias/none")


def test_messages_are_those_of_aws(server: KmsServer) -> None:
    unchecked = server.client(config=boto3.session.Config(parameter_validation=False, retries={"max_attempts": 0}))
    with pytest.raises(ClientError) as caught:
        unchecked.list_keys(Limit=0)
    assert caught.value.response["Error"]["Message"] == (
        "1 validation error detected: Value '0' at 'limit' failed to satisfy constraint: "
        "Member must have value greater than or equal to 1"
    )


def test_the_longest_request_is_not_too_long(kms: Any) -> None:
    """JSON writes each of these characters with an escape of 6 or 12 bytes."""
    policy = json.dumps(json.loads(kms.get_key_policy(KeyId=kms.create_key()["KeyMetadata"]["KeyId"])["Policy"]))
    policy += "\n" * (MAX_POLICY_SIZE - len(policy))
    tags = [{"TagKey": f"{number:03}".ljust(128, "\u4e00"), "TagValue": "\u4e00" * 256} for number in range(50)]
    made = kms.create_key(Policy=policy, Description="\U0001f511" * 8192, Tags=tags)["KeyMetadata"]
    assert made["Description"] == "\U0001f511" * 8192
    too_long = {"KeyId": made["KeyId"], "Policy": policy.ljust(131072)}
    assert refusal(kms.put_key_policy, **too_long) == "LimitExceededException"
