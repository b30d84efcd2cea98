"""Encryption and data keys."""

from __future__ import annotations

from typing import Final

from envfs.api.answers import base64, base64_of_secret, present
from envfs.api.handlers.common import (
    Answer,
    Handler,
    Members,
    algorithm,
    data_key_size,
    refuse_modifiers,
    required,
)
from envfs.errors import CustomKeyStoreNotFound
from envfs.kms.engine import Engine
from envfs.kms.model import Principal, RequestFacts
from envfs.kms.policy.request import NO_PAIRS


def encrypt(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    made = engine.encrypt(
        principal,
        members["KeyId"],
        members["Plaintext"],
        members.get("EncryptionContext", NO_PAIRS),
        facts,
        algorithm(members),
    )
    return {"CiphertextBlob": base64(made.blob), "KeyId": made.key_arn, "EncryptionAlgorithm": made.algorithm}


def decrypt(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    refuse_modifiers(members)
    opened = engine.decrypt_request(
        principal,
        required(members, "CiphertextBlob"),
        members.get("EncryptionContext", NO_PAIRS),
        facts,
        members.get("KeyId"),
        algorithm(members),
    )
    answer = {
        "KeyId": opened.key_arn,
        "Plaintext": base64_of_secret(opened.plaintext),
        "EncryptionAlgorithm": opened.algorithm,
    }
    if opened.material_id:
        answer["KeyMaterialId"] = opened.material_id
    return answer


def re_encrypt(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    refuse_modifiers(members)
    made = engine.re_encrypt(
        principal,
        required(members, "CiphertextBlob"),
        members["DestinationKeyId"],
        source_context=members.get("SourceEncryptionContext", NO_PAIRS),
        destination_context=members.get("DestinationEncryptionContext", NO_PAIRS),
        source_key_id=members.get("SourceKeyId"),
        source_algorithm=algorithm(members, "SourceEncryptionAlgorithm"),
        destination_algorithm=algorithm(members, "DestinationEncryptionAlgorithm"),
        facts=facts,
    )
    return {
        "CiphertextBlob": base64(made.blob),
        "SourceKeyId": made.source_arn,
        "KeyId": made.arn,
        "SourceEncryptionAlgorithm": made.source_algorithm,
        "DestinationEncryptionAlgorithm": made.destination_algorithm,
        **present(SourceKeyMaterialId=made.source_material_id, DestinationKeyMaterialId=made.material_id),
    }


def generate_data_key(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    context = members.get("EncryptionContext", NO_PAIRS)
    made = engine.generate_data_key(principal, members["KeyId"], context, facts, data_key_size(members))
    return {
        "CiphertextBlob": base64(made.blob),
        "Plaintext": base64_of_secret(made.plaintext),
        "KeyId": made.key_arn,
        "KeyMaterialId": made.material_id,
    }


def generate_data_key_without_plaintext(
    engine: Engine, principal: Principal, members: Members, facts: RequestFacts
) -> Answer:
    context = members.get("EncryptionContext", NO_PAIRS)
    # Of the two ways to give the size neither need be used here: then the key has 256 bits.
    size = data_key_size(members if "NumberOfBytes" in members or "KeySpec" in members else {"NumberOfBytes": 32})
    made = engine.generate_data_key_without_plaintext(principal, members["KeyId"], context, facts, size)
    return {"CiphertextBlob": base64(made.blob), "KeyId": made.key_arn, "KeyMaterialId": made.material_id}


def generate_data_key_pair(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    context = members.get("EncryptionContext", NO_PAIRS)
    pair = engine.generate_data_key_pair(principal, members["KeyId"], members["KeyPairSpec"], context, facts)
    return {
        "PrivateKeyCiphertextBlob": base64(pair.private_blob),
        "PrivateKeyPlaintext": base64_of_secret(pair.private_plaintext),
        "PublicKey": base64(pair.public_key),
        "KeyId": pair.key_arn,
        "KeyPairSpec": pair.pair_spec,
        "KeyMaterialId": pair.material_id,
    }


def generate_data_key_pair_without_plaintext(
    engine: Engine, principal: Principal, members: Members, facts: RequestFacts
) -> Answer:
    context = members.get("EncryptionContext", NO_PAIRS)
    pair = engine.generate_data_key_pair_without_plaintext(
        principal, members["KeyId"], members["KeyPairSpec"], context, facts
    )
    return {
        "PrivateKeyCiphertextBlob": base64(pair.private_blob),
        "PublicKey": base64(pair.public_key),
        "KeyId": pair.key_arn,
        "KeyPairSpec": pair.pair_spec,
        "KeyMaterialId": pair.material_id,
    }


def generate_random(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    if "CustomKeyStoreId" in members:
        raise CustomKeyStoreNotFound("there are no custom key stores here")
    return {"Plaintext": base64_of_secret(engine.generate_random(principal, required(members, "NumberOfBytes"), facts))}


HANDLERS: Final[dict[str, Handler]] = {
    "Decrypt": decrypt,
    "Encrypt": encrypt,
    "GenerateDataKey": generate_data_key,
    "GenerateDataKeyPair": generate_data_key_pair,
    "GenerateDataKeyPairWithoutPlaintext": generate_data_key_pair_without_plaintext,
    "GenerateDataKeyWithoutPlaintext": generate_data_key_without_plaintext,
    "GenerateRandom": generate_random,
    "ReEncrypt": re_encrypt,
}
