"""`envfs kms generate-mac|verify-mac`."""

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
    type=click.Choice(["HMAC_SHA_224", "HMAC_SHA_256", "HMAC_SHA_384", "HMAC_SHA_512"]),
    required=True,
    help="The one of the key: HMAC_256 has HMAC_SHA_256.",
)


@click.command(
    epilog=examples("envfs kms generate-mac alias/tokens message.txt -o message.mac --algorithm HMAC_SHA_256")
)
@key_argument
@input_argument
@output_option
@algorithm_option
@base64_option
@dry_run_option
@passphrase_file_option
@json_option
def generate_mac(
    key_id: str,
    file: IO[bytes],
    output: Path | None,
    algorithm: str,
    passphrase_file: Path | None,
    *,
    as_base64: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Make the HMAC of a message under KEY.

    The message has at most 4,096 bytes.
    """
    request = {"KeyId": key_id, "Message": encode(read_bytes(file)), "MacAlgorithm": algorithm}
    with open_backend(passphrase_file) as backend:
        answer = backend.call("GenerateMac", {**request, **dry_run_member(dry_run=dry_run)})
    if as_json:
        print_json(as_fields(answer))
    else:
        write_bytes(decode(answer["Mac"]), output, as_base64=as_base64)


@click.command(epilog=examples("envfs kms verify-mac alias/tokens message.mac message.txt --algorithm HMAC_SHA_256"))
@key_argument
@click.argument("mac", metavar="MAC", type=click.File("rb"))
@input_argument
@algorithm_option
@base64_option
@dry_run_option
@passphrase_file_option
@json_option
def verify_mac(
    key_id: str,
    mac: IO[bytes],
    file: IO[bytes],
    algorithm: str,
    passphrase_file: Path | None,
    *,
    as_base64: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Check an HMAC that KEY made.

    MAC is its file (with --base64 as text), FILE the message. The exit code is 0 if it is the message's, else 4.
    """
    request = {
        "KeyId": key_id,
        "Mac": encode(read_bytes(mac, as_base64=as_base64)),
        "Message": encode(read_bytes(file)),
        "MacAlgorithm": algorithm,
        **dry_run_member(dry_run=dry_run),
    }
    with open_backend(passphrase_file) as backend:
        answer = backend.call("VerifyMac", request)
    if as_json:
        print_json(as_fields(answer))
    else:
        click.echo("the MAC is good")
