"""`envfs key public`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from envfs.cli.answers import as_fields
from envfs.cli.arguments import key_argument
from envfs.cli.backend import open_backend
from envfs.cli.byte_io import decode, output_option, pem, write_text
from envfs.cli.output import examples, json_option, print_json
from envfs.cli.passphrase import passphrase_file_option

if TYPE_CHECKING:
    from pathlib import Path


@click.command(epilog=examples("envfs key public alias/release -o release.pem"))
@key_argument
@output_option
@passphrase_file_option
@json_option
def public(key_id: str, output: Path | None, passphrase_file: Path | None, *, as_json: bool) -> None:
    """Write the public key of an asymmetric CMK as PEM.

    Others verify signatures with it, and encrypt for you, without the KMS.
    """
    with open_backend(passphrase_file) as backend:
        answer = backend.call("GetPublicKey", {"KeyId": key_id})
    if as_json:
        print_json(as_fields(answer))
    else:
        write_text(pem("PUBLIC KEY", decode(answer["PublicKey"])), output)
