"""`envfs kms init`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import click

from envfs.cli.output import examples, json_option, print_fields, print_json
from envfs.cli.passphrase import new_passphrase, passphrase_file_option
from envfs.cli.recovery import no_recovery_key_option, recovery_key_file_option, with_recovery_key
from envfs.crypto.secret import Secret
from envfs.kms.bootstrap import DEFAULT_ACCOUNT, DEFAULT_PARTITION, DEFAULT_REGION, init_kms
from envfs.kms.rootkey import KEY_FILE, KEY_FILE_NAME, PASSPHRASE
from envfs.service.config import home_directory


@click.command(epilog=examples("envfs kms init", "envfs kms init --root-key passphrase"))
@click.option(
    "--root-key",
    type=click.Choice([KEY_FILE, PASSPHRASE]),
    default=KEY_FILE,
    show_default=True,
    help="What unlocks it: a file beside it that its owner alone can read, or a passphrase.",
)
@passphrase_file_option
@recovery_key_file_option
@no_recovery_key_option
@click.option(
    "--partition", default=DEFAULT_PARTITION, show_default=True, metavar="P", help="The partition in its ARNs."
)
@click.option("--region", default=DEFAULT_REGION, show_default=True, metavar="R", help="The region in its ARNs.")
@click.option("--account", default=DEFAULT_ACCOUNT, show_default=True, metavar="A", help="The account: 12 digits.")
@json_option
def init(
    root_key: Literal["keyfile", "passphrase"],
    passphrase_file: Path | None,
    recovery_key_file: Path | None,
    partition: str,
    region: str,
    account: str,
    *,
    no_recovery_key: bool,
    as_json: bool,
) -> None:
    """Make a KMS in ENVFS_HOME.

    Whoever makes it owns it: he is its account root. Everything that is encrypted under it is lost with its root key:
    keep backups (envfs kms backup), and the recovery key, which a terminal shows this one time, in another place.
    """
    home = home_directory()
    passphrase = new_passphrase(passphrase_file) if root_key == PASSPHRASE else None

    def make(recovery_key: Secret | None) -> bytes:
        return init_kms(
            home,
            root_key=root_key,
            passphrase=passphrase,
            partition=partition,
            region=region,
            account=account,
            owner_uid=os.getuid(),
            recovery_key=recovery_key,
        )

    kms_id = with_recovery_key(
        recovery_key_file, make, unwanted=no_recovery_key or (as_json and recovery_key_file is None)
    )
    made = made_kms(home, kms_id, root_key)
    if as_json:
        print_json(made)
    else:
        print_fields(made)
        say_what_to_keep(home)


def made_kms(home: Path, kms_id: bytes, root_key: str) -> dict[str, Any]:
    """What is told of a new KMS."""
    unlocked = os.fspath(home / KEY_FILE_NAME) if root_key == KEY_FILE else "a passphrase"
    return {"kms_home": os.fspath(home), "kms_id": kms_id.hex(), "root_key": unlocked}


def say_what_to_keep(home: Path) -> None:
    """The one thing that nobody must learn too late."""
    click.echo(f"Without {home} what it encrypts is lost: keep backups in another place (envfs kms backup).")
