"""`envfs kms slot add`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from envfs.cli.arguments import PATH
from envfs.cli.output import examples
from envfs.cli.passphrase import new_passphrase_from, passphrase_file_option
from envfs.cli.recovery import recovery_key_file_option, show, write_new_secret
from envfs.cli.session import open_session
from envfs.crypto.kdf import KEY_SIZE
from envfs.crypto.secret import Secret
from envfs.errors import ConfigError
from envfs.kms import slot_foreign, slot_systemd
from envfs.kms.recovery_key import SEED_SIZE, encode_recovery_key
from envfs.kms.rootkey import (
    AWS_KMS,
    KEY_FILE_NAME,
    SYSTEMD_CREDS,
    Argon2Cost,
    KekUnlock,
    KeyFileUnlock,
    PassphraseUnlock,
    RecoveryUnlock,
    new_slot_id,
    passphrase_parameters,
    read_key_file,
)
from envfs.service.config import home_directory

if TYPE_CHECKING:
    from envfs.cli.session import Session
    from envfs.kms.rootkey import SlotKey


@click.group()
def add() -> None:
    """Add one more way to open the KMS.

    It opens as before, too. For everything here the KMS is opened first: by its key file, or by what you type.
    """


@add.command(epilog=examples("envfs kms slot add passphrase"))
@click.option("--new-passphrase-file", type=PATH, metavar="F", help="Read the new passphrase from F.  [default: ask]")
@passphrase_file_option
def passphrase(new_passphrase_file: Path | None, passphrase_file: Path | None) -> None:
    """A passphrase."""
    with open_session(passphrase_file) as session, new_passphrase_from(new_passphrase_file) as secret:
        _add(session, PassphraseUnlock(secret), passphrase_parameters(Argon2Cost()))


@add.command(epilog=examples("envfs kms slot add keyfile /media/usb/envfs.key"))
@click.argument("file", type=PATH)
@passphrase_file_option
def keyfile(file: Path, passphrase_file: Path | None) -> None:
    """A key file, which is made if it is not there.

    FILE may be on a removable disk: where it is not there, the other slots open the KMS.
    """
    home = home_directory()
    file = file.absolute()
    with open_session(passphrase_file, home) as session:
        is_new = not file.exists()
        if is_new:
            with Secret.random(KEY_SIZE) as key:
                write_new_secret(file, bytes(key.expose()))
        try:
            read_key_file(file).wipe()
            parameters = b"" if file == home.absolute() / KEY_FILE_NAME else os.fsencode(file)
            _add(session, KeyFileUnlock(file), parameters)
        except BaseException:
            if is_new:
                file.unlink(missing_ok=True)
            raise


@add.command(
    epilog=examples(
        "envfs kms slot add recovery", "envfs kms slot add recovery --recovery-key-file /media/usb/recovery"
    )
)
@recovery_key_file_option
@passphrase_file_option
def recovery(recovery_key_file: Path | None, passphrase_file: Path | None) -> None:
    """A recovery key, to be written down and kept in a safe place.

    It is typed in where a passphrase is asked for, and opens a KMS whose key file or passphrase is lost.
    """
    with open_session(passphrase_file) as session, Secret.random(SEED_SIZE) as seed:
        text = encode_recovery_key(seed)
        if recovery_key_file is not None:
            write_new_secret(recovery_key_file, f"{text}\n".encode("ascii"))
        try:
            _add(session, RecoveryUnlock(seed), b"")
        except BaseException:
            if recovery_key_file is not None:
                recovery_key_file.unlink(missing_ok=True)
            raise
        if recovery_key_file is None:
            show(text)


@add.command(
    "systemd-creds",
    epilog=examples(
        "envfs kms slot add systemd-creds",
        "envfs kms slot add systemd-creds --with-key tpm2 --credential-file /etc/envfs/root-key.cred",
    ),
)
@click.option(
    "--with-key",
    type=click.Choice(slot_systemd.WITH_KEY),
    default=slot_systemd.WITH_KEY[0],
    show_default=True,
    help="What decrypts it: see systemd-creds(1).",
)
@click.option("--credential-file", type=PATH, metavar="F", help="Write it to F, too, for LoadCredentialEncrypted=.")
@passphrase_file_option
def systemd_creds(with_key: str, credential_file: Path | None, passphrase_file: Path | None) -> None:
    """This host, or its TPM, by systemd-creds.

    Nobody is asked for anything then, and the KMS's directory opens on no other host. A service without privileges
    gets the key from its manager: LoadCredentialEncrypted=envfs.root-key:F in its unit.
    """
    with open_session(passphrase_file) as session, Secret.random(KEY_SIZE) as key:
        parameters = slot_systemd.encrypt_credential(key, with_key)
        with slot_systemd.decrypt_credential(parameters) as decrypted:
            if decrypted != key:
                raise ConfigError("systemd-creds decrypts its own credential to something else")
        if credential_file is not None:
            write_new_secret(credential_file, parameters + b"\n")
        try:
            _add(session, KekUnlock(SYSTEMD_CREDS, key), parameters)
        except BaseException:
            if credential_file is not None:
                credential_file.unlink(missing_ok=True)
            raise


@add.command(
    "aws-kms",
    epilog=examples(
        "envfs kms slot add aws-kms alias/envfs --region eu-north-1",
        "envfs kms slot add aws-kms alias/envfs --region local --endpoint-url http://127.0.0.1:8080",
    ),
)
@click.argument("key_id", metavar="KEY")
@click.option("--region", required=True, metavar="R", help="The region of KEY.")
@click.option(
    "--endpoint-url", default="", metavar="URL", help="Another KMS than AWS's: https://…, or http:// on this host."
)
@passphrase_file_option
def aws_kms(key_id: str, region: str, endpoint_url: str, passphrase_file: Path | None) -> None:
    """KEY of AWS KMS, or of a KMS that speaks its protocol (another envfs, for instance).

    It is asked for kms:Encrypt now and for kms:Decrypt whenever this KMS is opened, with the encryption context
    envfs:kms and envfs:slot. boto3 finds the credentials: environment, ~/.aws, roles.
    """
    place = slot_foreign.ForeignKey(endpoint_url, region, key_id)
    slot_foreign.check_endpoint(endpoint_url)
    with open_session(passphrase_file) as session, Secret.random(KEY_SIZE) as key:
        slot_id = new_slot_id()
        context = slot_foreign.encryption_context(session.engine.store_id, slot_id)
        parameters = slot_foreign.wrap_key(place, key, context)
        with slot_foreign.unwrap_key(parameters, context) as unwrapped:
            if unwrapped != key:
                raise ConfigError(f"{endpoint_url or 'AWS KMS'} decrypts what it encrypted to something else")
        _add(session, KekUnlock(AWS_KMS, key), parameters.encode(), slot_id)


def _add(session: Session, key: SlotKey, parameters: bytes, slot_id: bytes | None = None) -> None:
    row = session.engine.add_root_slot(session.principal, key, parameters, slot_id=slot_id)
    click.echo(f"Added slot {row.slot_id.hex()} ({row.kind})")
