"""`envfs kms`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from envfs.cli.output import examples, json_option, print_fields, print_json
from envfs.cli.passphrase import new_passphrase, passphrase_file_option
from envfs.kms.bootstrap import init_kms
from envfs.kms.rootkey import KEY_FILE, KEY_FILE_NAME, PASSPHRASE
from envfs.service.config import home_directory

if TYPE_CHECKING:
    from pathlib import Path


@click.group()
def kms() -> None:
    """Make the key management service (KMS)."""


@kms.command(epilog=examples("envfs kms init", "envfs kms init --root-key passphrase"))
@click.option(
    "--root-key",
    type=click.Choice([KEY_FILE, PASSPHRASE]),
    default=KEY_FILE,
    show_default=True,
    help="What unlocks it: a file beside it that its owner alone can read, or a passphrase.",
)
@passphrase_file_option
@click.option("--partition", default="envfs", show_default=True, help="First part of its ARNs.")
@click.option("--region", default="local", show_default=True, help="The region in its ARNs.")
@click.option("--account", default="000000000000", show_default=True, help="The account in its ARNs, 12 digits.")
@json_option
def init(
    root_key: str, passphrase_file: Path | None, partition: str, region: str, account: str, *, as_json: bool
) -> None:
    """Make a KMS in ENVFS_HOME.

    Whoever makes it owns it: he is its account root. Everything that is ever encrypted under it is lost with its root
    key: keep a copy of the key file, or the passphrase, and of the directory, in another place.
    """
    home = home_directory()
    secret = new_passphrase(passphrase_file) if root_key == PASSPHRASE else None
    store_id = init_kms(
        home,
        root_key=root_key,
        passphrase=secret,
        partition=partition,
        region=region,
        account=account,
        owner_uid=os.getuid(),
    )
