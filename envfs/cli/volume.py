"""`envfs init`."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import click

from envfs.cli.arguments import PATH
from envfs.cli.kms_init import made_kms, say_what_to_keep
from envfs.cli.output import examples, json_option, print_fields, print_json
from envfs.cli.passphrase import passphrase_file_option
from envfs.cli.recovery import with_recovery_key
from envfs.cli.session import Session, kms_exists, open_session
from envfs.crypto.aead import Suite
from envfs.kms.bootstrap import init_kms
from envfs.kms.rootkey import KEY_FILE
from envfs.service import registry
from envfs.service.config import home_directory
from envfs.service.keys import usable_key
from envfs.service.volume import (
    BLOCK_SIZES,
    DEFAULT_BLOCK_SIZE,
    DEFAULT_SUITE,
    SERVICE_KEY_ALIAS,
    check_new_volume,
    make_volume,
)


@click.command(epilog=examples("envfs init ~/vault.enc", "envfs init /srv/vault.enc --key alias/payroll"))
@click.argument("lower", type=PATH)
@click.option(
    "--key", metavar="KEY", help="The CMK of its files: a key id, an ARN or alias/NAME. [default: one of envfs]"
)
@click.option(
    "--block-size",
    type=click.Choice([str(size) for size in BLOCK_SIZES]),
    default=str(DEFAULT_BLOCK_SIZE),
    show_default=True,
    metavar="BYTES",
    help="How much is encrypted at once: " + ", ".join(map(str, BLOCK_SIZES)) + ".",
)
@click.option(
    "--suite",
    type=click.Choice([suite.label for suite in Suite]),
    default=DEFAULT_SUITE.label,
    show_default=True,
    metavar="NAME",
    help="The cipher of file contents: " + ", ".join(suite.label for suite in Suite) + ".",
)
@passphrase_file_option
@json_option
def init(
    lower: Path, key: str | None, block_size: str, suite: str, passphrase_file: Path | None, *, as_json: bool
) -> None:
    """Make an encrypted volume in LOWER.

    LOWER is an empty directory, or one that is to be made. If there is no KMS in ENVFS_HOME yet, it is made first, as
    by `envfs kms init`. Block size and cipher cannot be changed later; other keys can be chosen for directories.
    """
    home = home_directory()
    made: dict[str, Any] = {}
    if not kms_exists(home):
        check_new_volume(lower)
        kms_id = with_recovery_key(
            None, lambda key: init_kms(home, owner_uid=os.getuid(), recovery_key=key), unwanted=as_json
        )
        made = made_kms(home, kms_id, KEY_FILE)
    with open_session(passphrase_file) as session:
        volume = make_volume(
            lower.absolute(),
            session.engine,
            key_arn=_key_arn(session, key),
            suite=Suite.from_name(suite),
            block_size=int(block_size),
            now=int(time.time()),
        )
    registry.remember(home, volume.volume_id, lower.resolve())
    made |= {
        "lower": os.fspath(lower.absolute()),
        "volume_id": volume.volume_id.hex(),
        "key": volume.key_arn,
        "suite": volume.suite.label,
        "block_size": volume.block_size,
    }
    if as_json:
        print_json(made)
        return
    print_fields(made)
    if "kms_id" in made:
        say_what_to_keep(home)
    click.echo(f"next: envfs mount {lower} MOUNTPOINT")


def _key_arn(session: Session, key: str | None) -> str:
    if key is None:
        return session.engine.service_managed_key(SERVICE_KEY_ALIAS)
    return usable_key(session.engine, session.principal, key, {})
