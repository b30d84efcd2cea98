"""Signatures, MACs, key agreement, public keys, and the import of key material."""

from __future__ import annotations

from typing import Final

from envfs.api.answers import NEWER_SPECS, base64, base64_of_secret, present
from envfs.api.handlers.common import Answer, Handler, Members
from envfs.kms.engine import Engine
from envfs.kms.model import Principal, RequestFacts

_RAW: Final = "RAW"


def sign(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    made = engine.sign(
        principal,
        members["KeyId"],
        members["Message"],
        members["SigningAlgorithm"],
        members.get("MessageType", _RAW),
        facts=facts,
    )
    return {"KeyId": made.key_arn, "Signature": base64(made.signature), "SigningAlgorithm": made.algorithm}


def verify(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    verified = engine.verify(
        principal,
        members["KeyId"],
        members["Message"],
        members["Signature"],
        members["SigningAlgorithm"],
        members.get("MessageType", _RAW),
        facts=facts,
    )
    return {"KeyId": verified.key_arn, "SignatureValid": True, "SigningAlgorithm": verified.algorithm}


def generate_mac(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    made = engine.generate_mac(principal, members["KeyId"], members["Message"], members["MacAlgorithm"], facts=facts)
    return {"KeyId": made.key_arn, "Mac": base64(made.mac), "MacAlgorithm": made.algorithm}


def verify_mac(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    verified = engine.verify_mac(
        principal, members["KeyId"], members["Message"], members["Mac"], members["MacAlgorithm"], facts=facts
    )
    return {"KeyId": verified.key_arn, "MacValid": True, "MacAlgorithm": verified.algorithm}


def get_public_key(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    found = engine.get_public_key(principal, members["KeyId"], facts)
    return {
        "KeyId": found.key_arn,
        "PublicKey": base64(found.der),
        "KeySpec": found.spec,
        "KeyUsage": found.usage,
        **present(
            CustomerMasterKeySpec=None if found.spec.startswith(NEWER_SPECS) else found.spec,
            EncryptionAlgorithms=list(found.encryption_algorithms) or None,
            SigningAlgorithms=list(found.signing_algorithms) or None,
            KeyAgreementAlgorithms=list(found.key_agreement_algorithms) or None,
            EncapsulationAlgorithms=list(found.encapsulation_algorithms) or None,
        ),
    }


def derive_shared_secret(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    shared = engine.derive_shared_secret(
        principal, members["KeyId"], members["PublicKey"], members["KeyAgreementAlgorithm"], facts=facts
    )
    return {
        "KeyId": shared.key_arn,
        "SharedSecret": base64_of_secret(shared.secret),
        "KeyAgreementAlgorithm": shared.algorithm,
        "KeyOrigin": shared.origin,
    }


def encapsulate(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    made = engine.encapsulate(principal, members["KeyId"], members["EncapsulationAlgorithm"], facts=facts)
    return {
        "KeyId": made.key_arn,
        "SharedSecret": base64_of_secret(made.secret),
        "SharedSecretCiphertextBlob": base64(made.ciphertext),
        "EncapsulationAlgorithm": made.algorithm,
    }


def decapsulate(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    shared = engine.decapsulate(
        principal,
        members["KeyId"],
        members["SharedSecretCiphertextBlob"],
        members["EncapsulationAlgorithm"],
        facts=facts,
    )
    return {
        "KeyId": shared.key_arn,
        "SharedSecret": base64_of_secret(shared.secret),
        "EncapsulationAlgorithm": shared.algorithm,
    }


def get_parameters_for_import(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    made = engine.get_parameters_for_import(
        principal, members["KeyId"], members["WrappingAlgorithm"], members["WrappingKeySpec"], facts=facts
    )
    return {
        "KeyId": made.key_arn,
        "ImportToken": base64(made.token),
        "PublicKey": base64(made.public_key),
        "ParametersValidTo": float(made.valid_to),
    }


def import_key_material(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    imported = engine.import_key_material(
        principal,
        members["KeyId"],
        members["ImportToken"],
        members["EncryptedKeyMaterial"],
        valid_to=members.get("ValidTo"),
        expiration_model=members.get("ExpirationModel", "KEY_MATERIAL_EXPIRES"),
        import_type=members.get("ImportType"),
        description=members.get("KeyMaterialDescription", ""),
        key_material_id=members.get("KeyMaterialId"),
        facts=facts,
    )
    return {"KeyId": imported.key_arn, **present(KeyMaterialId=imported.material_id)}


def delete_imported_key_material(engine: Engine, principal: Principal, members: Members, facts: RequestFacts) -> Answer:
    gone = engine.delete_imported_key_material(principal, members["KeyId"], members.get("KeyMaterialId"), facts=facts)
    return {"KeyId": gone.key_arn, **present(KeyMaterialId=gone.material_id)}


HANDLERS: Final[dict[str, Handler]] = {
    "Decapsulate": decapsulate,
    "DeleteImportedKeyMaterial": delete_imported_key_material,
    "DeriveSharedSecret": derive_shared_secret,
    "Encapsulate": encapsulate,
    "GenerateMac": generate_mac,
    "GetParametersForImport": get_parameters_for_import,
    "GetPublicKey": get_public_key,
    "ImportKeyMaterial": import_key_material,
    "Sign": sign,
    "Verify": verify,
    "VerifyMac": verify_mac,
}
