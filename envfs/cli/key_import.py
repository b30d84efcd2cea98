"""`envfs key import` and its two steps, for material that must not be in one place with the wrapping key; `envfs key
delete-material`.
"""

from __future__ import annotations

import datetime as dt
import os
from typing import IO, TYPE_CHECKING, Any

import click
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.keywrap import aes_key_wrap_with_padding
from cryptography.hazmat.primitives.serialization import load_der_public_key

from envfs.cli.answers import as_fields, show_answer, time_text
from envfs.cli.arguments import PATH, key_argument
from envfs.cli.backend import open_backend
from envfs.cli.byte_io import decode, encode, pem, read_bytes, write_file
from envfs.cli.key_reference import without_alias
from envfs.cli.output import examples, json_option, print_fields, print_json
from envfs.cli.passphrase import passphrase_file_option

if TYPE_CHECKING:
    from pathlib import Path

WRAPPING_KEY_SPEC = "RSA_3072"
OAEP = "RSAES_OAEP_SHA_256"
OAEP_LIMIT = 318  # bytes that RSA_3072 takes with SHA-256
KEY_WRAP = "RSA_AES_KEY_WRAP_SHA_256"  # for what is longer: private keys of RSA


def _import_options(function: Any) -> Any:
    for option in reversed(
        (
            click.option("--valid-days", type=click.IntRange(1, 365), metavar="N", help="Forget it after N days."),
            click.option("--description", default="", help="What is said of the material in envfs key rotation list."),
            click.option("--new", "is_new", is_flag=True, help="It is to rotate to, not the material the key had."),
        )
    ):
        function = option(function)
    return function


@click.command(
    "import",
    epilog=examples(
        "head -c 32 /dev/random > material.bin",
        "envfs key create --alias escrow --origin EXTERNAL",
        "envfs key import alias/escrow material.bin",
    ),
)
@key_argument
@click.argument("material", metavar="FILE", type=click.File("rb"))
@_import_options
@passphrase_file_option
@json_option
def import_material(
    key_id: str,
    material: IO[bytes],
    valid_days: int | None,
    description: str,
    passphrase_file: Path | None,
    *,
    is_new: bool,
    as_json: bool,
) -> None:
    """Give a CMK of origin EXTERNAL its material.

    FILE has the raw key: 32 bytes for a symmetric key, the key of an HMAC key, or a private key as PKCS #8 in DER. Keep
    a copy: material that expired or was deleted can be imported again, and only this one.
    """
    content = read_bytes(material)
    with open_backend(passphrase_file) as backend:
        key = without_alias(backend, key_id)
        algorithm = OAEP if len(content) <= OAEP_LIMIT else KEY_WRAP
        wanted = {"WrappingAlgorithm": algorithm, "WrappingKeySpec": WRAPPING_KEY_SPEC}
        parameters = backend.call("GetParametersForImport", {"KeyId": key, **wanted})
        request = {
            "KeyId": key,
            "ImportToken": parameters["ImportToken"],
            "EncryptedKeyMaterial": encode(_wrap(content, decode(parameters["PublicKey"]), algorithm)),
            **_import_members(valid_days, description, is_new=is_new),
        }
        answer = backend.call("ImportKeyMaterial", request)
    if as_json:
        print_json(as_fields(answer))


@click.command(
    epilog=examples("envfs key import-parameters alias/escrow --public-key wrap.pem --import-token token.bin")
)
@key_argument
@click.option("--public-key", type=PATH, metavar="FILE", required=True, help="Gets the wrapping key, as PEM.")
@click.option("--import-token", type=PATH, metavar="FILE", required=True, help="Gets the import token.")
@click.option(
    "--algorithm", default=OAEP, show_default=True, metavar="A", help=f"How it is to be wrapped; RSA keys: {KEY_WRAP}."
)
@click.option("--spec", default=WRAPPING_KEY_SPEC, show_default=True, metavar="SPEC", help="Of the wrapping key.")
@passphrase_file_option
@json_option
def import_parameters(
    key_id: str,
    public_key: Path,
    import_token: Path,
    algorithm: str,
    spec: str,
    passphrase_file: Path | None,
    *,
    as_json: bool,
) -> None:
    """Get what material that lies elsewhere is wrapped with.

    Wrap it there, for instance in a hardware security module, and bring it here with `envfs key import-wrapped`.
    """
    with open_backend(passphrase_file) as backend:
        request = {"WrappingAlgorithm": algorithm, "WrappingKeySpec": spec}
        answer = backend.call("GetParametersForImport", {"KeyId": without_alias(backend, key_id), **request})
    write_file(public_key, pem("PUBLIC KEY", decode(answer["PublicKey"])), secret=False)
    write_file(import_token, decode(answer["ImportToken"]), secret=True)
    made = {"arn": answer["KeyId"], "valid_to": time_text(answer["ParametersValidTo"])}
    if as_json:
        print_json(made)
    else:
        print_fields(made)


@click.command(epilog=examples("envfs key import-wrapped alias/escrow wrapped.bin --import-token token.bin"))
@key_argument
@click.argument("wrapped", metavar="FILE", type=click.File("rb"))
@click.option(
    "--import-token", type=click.File("rb"), metavar="FILE", required=True, help="From envfs key import-parameters."
)
@_import_options
@passphrase_file_option
@json_option
def import_wrapped(
    key_id: str,
    wrapped: IO[bytes],
    import_token: IO[bytes],
    valid_days: int | None,
    description: str,
    passphrase_file: Path | None,
    *,
    is_new: bool,
    as_json: bool,
) -> None:
    """Import material that was wrapped elsewhere."""
    request = {
        "ImportToken": encode(read_bytes(import_token)),
        "EncryptedKeyMaterial": encode(read_bytes(wrapped)),
        **_import_members(valid_days, description, is_new=is_new),
    }
    with open_backend(passphrase_file) as backend:
        answer = backend.call("ImportKeyMaterial", {"KeyId": without_alias(backend, key_id), **request})
    if as_json:
        print_json(as_fields(answer))


@click.command(epilog=examples("envfs key delete-material alias/escrow"))
@key_argument
@click.option("--material-id", metavar="ID", help="Which one, if it has several.  [default: the current one]")
@passphrase_file_option
@json_option
def delete_material(key_id: str, material_id: str | None, passphrase_file: Path | None, *, as_json: bool) -> None:
    """Take imported material out of a CMK.

    The key cannot be used until the same material is imported again.
    """
    named = {} if material_id is None else {"KeyMaterialId": material_id}
    with open_backend(passphrase_file) as backend:
        answer = backend.call("DeleteImportedKeyMaterial", {"KeyId": without_alias(backend, key_id), **named})
    if as_json:
        show_answer(answer, as_json=True)


def _import_members(valid_days: int | None, description: str, *, is_new: bool) -> dict[str, Any]:
    members: dict[str, Any] = {"ExpirationModel": "KEY_MATERIAL_DOES_NOT_EXPIRE"}
    if valid_days is not None:
        valid_to = dt.datetime.now(dt.UTC) + dt.timedelta(days=valid_days)
        members = {"ExpirationModel": "KEY_MATERIAL_EXPIRES", "ValidTo": valid_to.timestamp()}
    if description:
        members["KeyMaterialDescription"] = description
    if is_new:
        members["ImportType"] = "NEW_KEY_MATERIAL"
    return members


def _wrap(material: bytes, public_key: bytes, algorithm: str) -> bytes:
    """RSA-OAEP; or an AES key under that, and the material under this key (AES-KWP, RFC 5649).

    https://docs.aws.amazon.com/kms/latest/developerguide/importing-keys-encrypt-key-material.html
    """
    wrapping_key = load_der_public_key(public_key)
    assert isinstance(wrapping_key, rsa.RSAPublicKey)  # what was asked for
    oaep = padding.OAEP(padding.MGF1(SHA256()), SHA256(), None)
    if algorithm == OAEP:
        return wrapping_key.encrypt(material, oaep)
    aes_key = os.urandom(32)
    return wrapping_key.encrypt(aes_key, oaep) + aes_key_wrap_with_padding(aes_key, material)
