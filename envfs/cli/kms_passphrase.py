"""`envfs kms change-passphrase`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from envfs.cli.arguments import PATH
from envfs.cli.kms_slot import erase_removed, find_slot
from envfs.cli.output import examples
from envfs.cli.passphrase import new_passphrase_from, passphrase_file_option, read_passphrase
from envfs.cli.session import open_session
from envfs.errors import ConfigError
from envfs.kms.rootkey import PASSPHRASE, Argon2Cost, PassphraseUnlock, passphrase_parameters, typed_unlock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from envfs.crypto.secret import Secret
    from envfs.kms.schema import RootSlotRow


@click.command(
    epilog=examples(
        "envfs kms change-passphrase",
        "envfs kms change-passphrase --passphrase-file old --new-passphrase-file new",
        "envfs kms change-passphrase --slot 3f2a",
    )
)
@click.option("--slot", "slot_id", metavar="SLOT", help="The slot to change, if there are several passphrases.")
@click.option("--new-passphrase-file", type=PATH, metavar="F", help="Read the new passphrase from F.  [default: ask]")
@passphrase_file_option
def change_passphrase(slot_id: str | None, new_passphrase_file: Path | None, passphrase_file: Path | None) -> None:
    """Put a new passphrase in place of the present one.

    The present one is asked for, or the recovery key; with --slot, any slot may open the KMS. The old one opens nothing
    from then on but backups and older copies of the KMS, with everything that was encrypted by then. No file and no
    mount is affected.
    """
    unlock = None if slot_id is not None else typed_unlock(_present(passphrase_file))
    with open_session(passphrase_file, unlock=unlock) as session:
        rows = session.engine.root_slots(session.principal)
        row = _slot_to_change(rows, slot_id, session.engine.opened_by)
        with new_passphrase_from(new_passphrase_file) as new:
            session.engine.replace_root_slot(
                session.principal, row.slot_id, PassphraseUnlock(new), passphrase_parameters(Argon2Cost())
            )
        erase_removed(session.engine)


def _present(file: Path | None) -> Secret:
    return read_passphrase(file, "Present passphrase, or recovery key: ")


def _slot_to_change(rows: Sequence[RootSlotRow], named: str | None, opened_by: bytes) -> RootSlotRow:
    if named is not None:
        row = find_slot(rows, named)
        if row.kind != PASSPHRASE:
            raise ConfigError(f"slot {row.slot_id.hex()} is no passphrase: it is of kind {row.kind}")
        return row
    passphrases = [row for row in rows if row.kind == PASSPHRASE]
    for row in passphrases:
        if row.slot_id == opened_by:
            return row
    if len(passphrases) == 1:  # the recovery key has opened it: the passphrase is lost
        return passphrases[0]
    if passphrases:
        raise ConfigError("the KMS has several passphrases", hint="name the one to change: --slot, envfs kms slot list")
    raise ConfigError("the KMS has no passphrase", hint="envfs kms slot add passphrase gives it one")
