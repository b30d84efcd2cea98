"""`envfs kms sign|verify-signature`."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

import click

from envfs.cli.answers import as_fields
from envfs.cli.arguments import dry_run_member, dry_run_option, key_argument
from envfs.cli.backend import open_backend
from envfs.cli.byte_io import base64_option, decode, encode, input_argument, output_option, read_bytes, write_bytes
from envfs.cli.output import examples, json_option, print_json
from envfs.cli.passphrase import passphrase_file_option

if TYPE_CHECKING:
    from pathlib import Path

algorithm_option = click.option(
    "--algorithm",
    metavar="A",
    required=True,
    help="ECDSA_SHA_256, RSASSA_PSS_SHA_256, ED25519_SHA_512, ML_DSA_SHAKE_256, ...: envfs key show tells which.",
)
message_type_option = click.option(
    "--message-type",
    type=click.Choice(["RAW", "DIGEST", "EXTERNAL_MU"]),
    default="RAW",
    show_default=True,
    help="What FILE has: the message (up to 4096 bytes), its digest, or (ML-DSA) its mu.",
)


@click.command(
    epilog=examples(
        "envfs kms sign alias/release notes.txt -o notes.sig --algorithm ECDSA_SHA_256",
        "openssl dgst -sha256 -binary big.tar | envfs kms sign alias/release --algorithm ECDSA_SHA_256 \\",
        "    --message-type DIGEST -o big.sig",
    )
)
@key_argument
@input_argument
@output_option
@algorithm_option
@message_type_option
@base64_option
@dry_run_option
@passphrase_file_option
@json_option
def sign(
    key_id: str,
    file: IO[bytes],
    output: Path | None,
    algorithm: str,
    message_type: str,
    passphrase_file: Path | None,
    *,
    as_base64: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Sign a message, or its digest.

    Everybody who has the public key (envfs key public) can check the signature, without the KMS.
    """
    request = {
        "KeyId": key_id,
        "Message": encode(read_bytes(file)),
        "MessageType": message_type,
        "SigningAlgorithm": algorithm,
        **dry_run_member(dry_run=dry_run),
    }
    with open_backend(passphrase_file) as backend:
        answer = backend.call("Sign", request)
    if as_json:
        print_json(as_fields(answer))
    else:
        write_bytes(decode(answer["Signature"]), output, as_base64=as_base64)


@click.command(
    epilog=examples("envfs kms verify-signature alias/release notes.sig notes.txt --algorithm ECDSA_SHA_256")
)
@key_argument
@click.argument("signature", metavar="SIGNATURE", type=click.File("rb"))
@input_argument
@algorithm_option
@message_type_option
@base64_option
@dry_run_option
@passphrase_file_option
@json_option
def verify_signature(
    key_id: str,
    signature: IO[bytes],
    file: IO[bytes],
    algorithm: str,
    message_type: str,
    passphrase_file: Path | None,
    *,
    as_base64: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Check a signature that KEY made.

    SIGNATURE is its file (with --base64 as text), FILE the message. The exit code is 0 if it is the message's, else 4.
    """
    request = {
        "KeyId": key_id,
        "Signature": encode(read_bytes(signature, as_base64=as_base64)),
        "Message": encode(read_bytes(file)),
        "MessageType": message_type,
        "SigningAlgorithm": algorithm,
        **dry_run_member(dry_run=dry_run),
    }
    with open_backend(passphrase_file) as backend:
        answer = backend.call("Verify", request)
    if as_json:
        print_json(as_fields(answer))
    else:
        click.echo("the signature is good")
