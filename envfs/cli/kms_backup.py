"""`envfs kms backup` and `envfs kms restore`."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO

import click

from envfs.cli import passphrase
from envfs.cli.answers import show, time_text
from envfs.cli.arguments import PATH
from envfs.cli.output import examples, json_option
from envfs.cli.passphrase import new_passphrase_from, passphrase_file_option
from envfs.cli.session import open_session
from envfs.errors import ConfigError
from envfs.kms.bootstrap import sync_directory
from envfs.kms.restore import check_backup, restore_backup
from envfs.kms.rootkey import (
    KEY_FILE,
    SYSTEMD_CREDS,
    Argon2Cost,
    KeyFileUnlock,
    PassphraseUnlock,
    passphrase_parameters,
    read_key_file,
    typed_unlock,
)
from envfs.kms.unlocking import find_unlock
from envfs.service.config import home_directory

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from envfs.crypto.secret import Secret
    from envfs.kms.operations.backups import BackupSummary
    from envfs.kms.restore import FindUnlock, Restored
    from envfs.kms.rootkey import SlotKey, Unlock
    from envfs.kms.schema import RootSlotRow

_STAYS_BEHIND = frozenset({KEY_FILE, SYSTEMD_CREDS})


@click.command(
    epilog=examples(
        "envfs kms backup /media/usb/kms.backup",
        "envfs kms backup - | ssh vault 'cat >kms.backup'",
        "envfs kms backup kms.backup --backup-passphrase-file secret",
    )
)
@click.argument("file", type=PATH)
@click.option("--backup-passphrase-file", type=PATH, metavar="F", help="Let the passphrase in F open this backup, too.")
@click.option("--with-key-file", is_flag=True, help="Have the key file in it, for hosts where it is nowhere else.")
@passphrase_file_option
@json_option
def backup(
    file: Path,
    backup_passphrase_file: Path | None,
    passphrase_file: Path | None,
    *,
    with_key_file: bool,
    as_json: bool,
) -> None:
    """Write the KMS to FILE, encrypted, while it is in use.

    FILE is a new file; - is stdout. It holds all keys, policies, grants and the audit trail of one moment, and opens by
    what opens the KMS: passphrase, recovery key, key file (which is not in it). Only the KMS's owner may.
    """
    if os.fspath(file) == "-" and sys.stdout.isatty():
        raise click.UsageError("a backup is binary and no sight for a terminal: write it to a file")
    with open_session(passphrase_file) as session, _extra(backup_passphrase_file) as extra, _output(file) as out:
        made = session.engine.backup(session.principal, out, extra=extra, with_key_file=with_key_file)
    if os.fspath(file) != "-":
        show(_summary(file, made), as_json=as_json)
    if all(slot.kind in _STAYS_BEHIND for slot in made.slots):
        click.echo(
            "This backup opens by the key file or on this host alone: keep a copy of the key file in another place, or"
            " make a recovery key (envfs kms slot add recovery) and another backup.",
            err=True,
        )


@click.command(
    epilog=examples(
        "envfs kms restore /media/usb/kms.backup",
        "envfs kms restore kms.backup --key-file /media/usb/root.key",
        "envfs kms restore kms.backup --check",
    )
)
@click.argument("file", type=click.File("rb"))
@click.option("--check", is_flag=True, help="Only say whether it could be restored.")
@click.option("--key-file", type=PATH, metavar="F", help="Open it by this key file, and put that into its place.")
@passphrase_file_option
@json_option
def restore(
    file: IO[bytes], key_file: Path | None, passphrase_file: Path | None, *, check: bool, as_json: bool
) -> None:
    """Make the KMS in ENVFS_HOME as it was when FILE was written.

    FILE is what `envfs kms backup` wrote; - is stdin. It opens by a passphrase that the KMS had then, by the recovery
    key, or by the key file. All of it is verified before anything is there; a KMS that is there already stays.
    """
    home = home_directory()
    find = _find(home, key_file, passphrase_file)
    binary: BinaryIO = file  # type: ignore[assignment]  # click's type says less
    if check:
        show(_told(check_backup(binary, find)), as_json=as_json)
        return
    key = None if key_file is None else read_key_file(key_file)
    restored = restore_backup(binary, home, find, key_file=key)
    show({"kms_home": os.fspath(home)} | _told(restored), as_json=as_json)
    if restored.aside is not None:
        click.echo(f"The audit trail that was there is in {restored.aside} now.", err=True)
    if restored.needs_key_file:
        click.echo(
            f"Its key file is not there: put it into {home}, or open it by what opened the backup"
            f" ({restored.opened_by}).",
            err=True,
        )
    if restored.added_slot is not None:
        click.echo(
            f"The {restored.opened_by} of the backup opens the KMS from now on: it is slot {restored.added_slot.hex()}."
            " If it is not to stay: envfs kms slot add another, and envfs kms slot remove this one.",
            err=True,
        )
    if not as_json:
        click.echo("Keys, policies and grants are as they were then. What changed since has to be done again.")


def _find(home: Path, key_file: Path | None, passphrase_file: Path | None) -> FindUnlock:
    def find(store_id: bytes, slots: Sequence[RootSlotRow]) -> Unlock:
        if key_file is not None:
            return KeyFileUnlock(key_file)
        if passphrase.named_file(passphrase_file) is not None:
            return typed_unlock(passphrase.read_passphrase(passphrase_file))
        return find_unlock(home, store_id, slots, passphrase.ask)

    return find


@contextlib.contextmanager
def _extra(file: Path | None) -> Iterator[tuple[SlotKey, bytes] | None]:
    """A passphrase that only the backup has."""
    if file is None:
        yield None
        return
    secret: Secret
    with new_passphrase_from(file) as secret:
        yield PassphraseUnlock(secret), passphrase_parameters(Argon2Cost())


@contextlib.contextmanager
def _output(path: Path) -> Iterator[BinaryIO]:
    """Where a backup is written: whole and on the disk, or not at all."""
    if os.fspath(path) == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if path.exists():
        raise ConfigError(f"{path} is there already", hint="name a new file: an older backup is not overwritten")
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name[:64]}.", dir=path.parent)  # mode 0600
    except OSError as error:  # which names a file that nobody knows
        raise OSError(error.errno, error.strerror, os.fspath(path)) from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(descriptor)
        Path(name).rename(path)
        sync_directory(path.parent)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _summary(file: Path, made: BackupSummary) -> dict[str, Any]:
    return {
        "backup": os.fspath(file),
        "bytes": file.stat().st_size,
        "created": time_text(made.created),
        "generation": made.generation,
        "audit_chains": made.chains,
        "opens_by": sorted({slot.kind for slot in made.slots}),
    }


def _told(restored: Restored) -> dict[str, Any]:
    return {
        "kms_id": restored.store_id.hex(),
        "created": time_text(restored.created),
        "generation": restored.generation,
        "audit_chains": restored.chains,
        "audit_records": restored.records,
        "opened_by": restored.opened_by,
    }
