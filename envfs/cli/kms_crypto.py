"""`envfs kms encrypt|decrypt|re-encrypt`."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any

import click

from envfs.cli.answers import as_fields
from envfs.cli.arguments import dry_run_member, dry_run_option, key_argument
from envfs.cli.backend import open_backend
from envfs.cli.byte_io import (
    base64_option,
    context_member,
    decode,
    encode,
    input_argument,
    output_option,
    read_bytes,
    write_bytes,
    write_secret,
)
from envfs.cli.output import examples, json_option, print_json
from envfs.cli.pairs import context_option, pairs_option
from envfs.cli.passphrase import passphrase_file_option

if TYPE_CHECKING:
    from pathlib import Path

algorithm_option = click.option(
    "--algorithm", metavar="A", help="For RSA keys: RSAES_OAEP_SHA_256 or RSAES_OAEP_SHA_1."
)


@click.command(
    epilog=examples(
        "envfs kms encrypt alias/payroll secret.txt -o secret.enc --context purpose=backup",
        "pass show db | envfs kms encrypt alias/payroll --base64",
    )
)
@key_argument
@input_argument
@output_option
@context_option
@algorithm_option
@base64_option
@dry_run_option
@passphrase_file_option
@json_option
def encrypt(
    key_id: str,
    file: IO[bytes],
    output: Path | None,
    context: dict[str, str],
    algorithm: str | None,
    passphrase_file: Path | None,
    *,
    as_base64: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Encrypt up to 4,096 bytes under KEY.

    The ciphertext names the key, and is opened by `envfs kms decrypt` with the same context. Larger files are for a
    data key (envfs kms generate-data-key), or for a mount.
    """
    request: dict[str, Any] = {"KeyId": key_id, "Plaintext": encode(read_bytes(file))}
    request |= context_member("EncryptionContext", context) | dry_run_member(dry_run=dry_run)
    if algorithm is not None:
        request["EncryptionAlgorithm"] = algorithm
    with open_backend(passphrase_file) as backend:
        answer = backend.call("Encrypt", request)
    if as_json:
        print_json(as_fields(answer))
    else:
        write_bytes(decode(answer["CiphertextBlob"]), output, as_base64=as_base64)


@click.command(
    epilog=examples(
        "envfs kms decrypt secret.enc -o secret.txt --context purpose=backup",
        "envfs kms decrypt wrapped.bin --key alias/inbox --algorithm RSAES_OAEP_SHA_256",
    )
)
@input_argument
@output_option
@context_option
@click.option("--key", "key_id", metavar="KEY", help="The key it must be of; needed for RSA keys.")
@algorithm_option
@base64_option
@dry_run_option
@passphrase_file_option
@json_option
def decrypt(
    file: IO[bytes],
    output: Path | None,
    context: dict[str, str],
    key_id: str | None,
    algorithm: str | None,
    passphrase_file: Path | None,
    *,
    as_base64: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Decrypt what the KMS encrypted.

    FILE is a ciphertext (with --base64 its text). With -o the plaintext goes to a file that only you can read.
    """
    request: dict[str, Any] = {"CiphertextBlob": encode(read_bytes(file, as_base64=as_base64))}
    request |= context_member("EncryptionContext", context) | dry_run_member(dry_run=dry_run)
    if key_id is not None:
        request["KeyId"] = key_id
    if algorithm is not None:
        request["EncryptionAlgorithm"] = algorithm
    with open_backend(passphrase_file) as backend:
        answer = backend.call("Decrypt", request)
    if as_json:
        print_json(as_fields(answer))
    else:
        write_secret(decode(answer["Plaintext"]), output)


@click.command(
    epilog=examples(
        "envfs kms re-encrypt secret.enc -o renewed.enc --to alias/new \\",
        "    --context purpose=backup --to-context purpose=backup",
    )
)
@input_argument
@output_option
@click.option("--to", "destination", metavar="KEY", required=True, help="The key to encrypt under.")
@click.option("--from", "source", metavar="KEY", help="The key it must be of; needed for RSA keys.")
@pairs_option("--context", "source_context", help="The encryption context that it has.")
@pairs_option("--to-context", "destination_context", help="The encryption context that it gets.")
@click.option("--algorithm", "source_algorithm", metavar="A", help="How it is encrypted, for RSA keys.")
@click.option("--to-algorithm", "destination_algorithm", metavar="A", help="How to encrypt it, for RSA keys.")
@base64_option
@dry_run_option
@passphrase_file_option
@json_option
def re_encrypt(
    file: IO[bytes],
    output: Path | None,
    destination: str,
    source: str | None,
    source_context: dict[str, str],
    destination_context: dict[str, str],
    source_algorithm: str | None,
    destination_algorithm: str | None,
    passphrase_file: Path | None,
    *,
    as_base64: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Encrypt a ciphertext anew, under another key.

    The plaintext does not leave the KMS.
    """
    optional = {
        "SourceKeyId": source,
        "SourceEncryptionAlgorithm": source_algorithm,
        "DestinationEncryptionAlgorithm": destination_algorithm,
    }
    request = {
        "CiphertextBlob": encode(read_bytes(file, as_base64=as_base64)),
        "DestinationKeyId": destination,
        **context_member("SourceEncryptionContext", source_context),
        **context_member("DestinationEncryptionContext", destination_context),
        **{name: value for name, value in optional.items() if value is not None},
        **dry_run_member(dry_run=dry_run),
    }
    with open_backend(passphrase_file) as backend:
        answer = backend.call("ReEncrypt", request)
    if as_json:
        print_json(as_fields(answer))
    else:
        write_bytes(decode(answer["CiphertextBlob"]), output, as_base64=as_base64)
