"""`envfs kms derive-shared-secret|encapsulate|decapsulate`."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

import click

from envfs.cli.answers import as_fields
from envfs.cli.arguments import PATH, dry_run_member, dry_run_option, key_argument
from envfs.cli.backend import open_backend
from envfs.cli.byte_io import (
    base64_option,
    decode,
    der_of,
    encode,
    input_argument,
    output_option,
    read_bytes,
    write_file,
    write_secret,
)
from envfs.cli.output import examples, json_option, print_fields, print_json
from envfs.cli.passphrase import passphrase_file_option

if TYPE_CHECKING:
    from pathlib import Path

ENCAPSULATION = "ML_KEM"


@click.command(epilog=examples("envfs kms derive-shared-secret alias/exchange theirs.pem -o secret.bin"))
@key_argument
@click.argument("public_key", metavar="PUBLIC_KEY", type=click.File("rb"))
@output_option
@dry_run_option
@passphrase_file_option
@json_option
def derive(
    key_id: str,
    public_key: IO[bytes],
    output: Path | None,
    passphrase_file: Path | None,
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Agree on a secret with the owner of a public key.

    PUBLIC_KEY is theirs, as PEM or DER, on the curve of KEY (ECDH). Derive keys from the secret, as NIST SP 800-56A
    says; with -o it goes to a file that only you can read.
    """
    request = {
        "KeyId": key_id,
        "PublicKey": encode(der_of(read_bytes(public_key))),
        "KeyAgreementAlgorithm": "ECDH",
        **dry_run_member(dry_run=dry_run),
    }
    with open_backend(passphrase_file) as backend:
        answer = backend.call("DeriveSharedSecret", request)
    if as_json:
        print_json(as_fields(answer))
    else:
        write_secret(decode(answer["SharedSecret"]), output, is_text=False)


@click.command(
    epilog=examples("envfs kms encapsulate alias/exchange --secret-file secret.bin --ciphertext-file secret.kem")
)
@key_argument
@click.option("--secret-file", type=PATH, metavar="FILE", help="Gets the secret, readable for you alone.")
@click.option("--ciphertext-file", type=PATH, metavar="FILE", help="Gets its ciphertext.")
@dry_run_option
@passphrase_file_option
@json_option
def encapsulate(
    key_id: str,
    secret_file: Path | None,
    ciphertext_file: Path | None,
    passphrase_file: Path | None,
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Make a shared secret, and its ciphertext for KEY.

    KEY is an ML-KEM key; whoever may decapsulate with it gets the same secret.
    """
    if (secret_file is None or ciphertext_file is None) and not (as_json or dry_run):
        raise click.UsageError("--secret-file FILE and --ciphertext-file FILE, or --json")
    request = {"KeyId": key_id, "EncapsulationAlgorithm": ENCAPSULATION, **dry_run_member(dry_run=dry_run)}
    with open_backend(passphrase_file) as backend:
        answer = backend.call("Encapsulate", request)
    left = dict(answer)
    if ciphertext_file is not None:
        write_file(ciphertext_file, decode(left.pop("SharedSecretCiphertextBlob")), secret=False)
    if secret_file is not None:
        write_file(secret_file, decode(left.pop("SharedSecret")), secret=True)
    fields = as_fields(left)
    if as_json:
        print_json(fields)
    else:
        print_fields(fields)


@click.command(epilog=examples("envfs kms decapsulate alias/exchange secret.kem -o secret.bin"))
@key_argument
@input_argument
@output_option
@base64_option
@dry_run_option
@passphrase_file_option
@json_option
def decapsulate(
    key_id: str,
    file: IO[bytes],
    output: Path | None,
    passphrase_file: Path | None,
    *,
    as_base64: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Open the ciphertext of a shared secret.

    With -o the secret goes to a file that only you can read.
    """
    request = {
        "KeyId": key_id,
        "SharedSecretCiphertextBlob": encode(read_bytes(file, as_base64=as_base64)),
        "EncapsulationAlgorithm": ENCAPSULATION,
        **dry_run_member(dry_run=dry_run),
    }
    with open_backend(passphrase_file) as backend:
        answer = backend.call("Decapsulate", request)
    if as_json:
        print_json(as_fields(answer))
    else:
        write_secret(decode(answer["SharedSecret"]), output, is_text=False)
