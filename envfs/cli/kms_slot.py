"""`envfs kms slot list` and `remove`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from envfs.cli.answers import time_text
from envfs.cli.lazy import Lazy, LazyGroup
from envfs.cli.output import examples, json_option, print_json, print_table
from envfs.cli.passphrase import passphrase_file_option
from envfs.cli.session import open_session
from envfs.errors import ConfigError, FormatError, NotFound
from envfs.kms.rootkey import (
    AWS_KMS,
    KEY_FILE,
    PASSPHRASE,
    RECOVERY,
    SYSTEMD_CREDS,
    key_file_path,
    read_passphrase_cost,
)
from envfs.kms.slot_foreign import ForeignParameters
from envfs.service.config import home_directory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from envfs.kms.engine import Engine
    from envfs.kms.schema import RootSlotRow

MIN_ID_DIGITS = 4
_ERASE_PATIENCE = 5.0  # seconds

COMMANDS = {
    "add": Lazy("envfs.cli.kms_slot_add", "add", "Add one more way to open the KMS."),
    "list": Lazy("envfs.cli.kms_slot", "list_slots", "List what opens the KMS."),
    "remove": Lazy("envfs.cli.kms_slot", "remove", "Take a way to open the KMS away."),
}


@click.group(cls=LazyGroup, table=COMMANDS)
def slot() -> None:
    """The slots of the root key: what opens the KMS.

    Each slot holds the root key, encrypted by a key file, a passphrase, the recovery key, systemd or another KMS. Any
    one of them opens it. They are the KMS owner's affair, who needs one that he can open for everything here.
    """


@click.command(epilog=examples("envfs kms slot list", "envfs kms slot list --json"))
@passphrase_file_option
@json_option
def list_slots(passphrase_file: Path | None, *, as_json: bool) -> None:
    """List what opens the KMS.

    The one that has opened it now is marked. Nothing secret is shown.
    """
    home = home_directory()
    with open_session(passphrase_file, home) as session:
        rows = session.engine.root_slots(session.principal)
        opened_by = session.engine.opened_by
    slots = [_fields(home, row, opened_by) for row in rows]
    if as_json:
        print_json({"slots": slots})
        return
    columns = ("slot_id", "kind", "created", "description", "used_now")
    print_table(
        ["SLOT", "KIND", "CREATED", "DESCRIPTION", "USED NOW"], [[one[name] for name in columns] for one in slots]
    )


@click.command(epilog=examples("envfs kms slot remove 3f2a", "envfs kms slot remove 3f2a --yes"))
@click.argument("slot_id", metavar="SLOT")
@click.option("--yes", is_flag=True, help="Do not ask, even if only the recovery key would remain.")
@passphrase_file_option
def remove(slot_id: str, passphrase_file: Path | None, *, yes: bool) -> None:
    """Take a way to open the KMS away.

    SLOT is its id, or how it begins. The last one cannot be removed. What was in the slot is erased from the KMS's
    files, but not from backups and older copies: there it still opens what they hold.
    """
    home = home_directory()
    with open_session(passphrase_file, home) as session:
        rows = session.engine.root_slots(session.principal)
        row = find_slot(rows, slot_id)
        left = [one for one in rows if one.slot_id != row.slot_id]
        if left and all(one.kind == RECOVERY for one in left) and not yes:
            _confirm("Only the recovery key would open the KMS then, and every start would ask for it. Remove it?")
        session.engine.remove_root_slot(session.principal, row.slot_id)
        erase_removed(session.engine)
    if row.kind == KEY_FILE:
        path = key_file_path(home, row.parameters)
        # A key file that was lost and made anew has the place of the old one: that one must not be destroyed.
        kept = any(one.kind == KEY_FILE and key_file_path(home, one.parameters) == path for one in left)
        gone = f"The key file that was {path} before" if kept else str(path)
        click.echo(
            f"{gone} opens this KMS no more, but backups and older copies of it: destroy it where it is not needed."
        )


def find_slot(rows: Sequence[RootSlotRow], begins: str) -> RootSlotRow:
    """The slot whose id begins so. NotFound, ConfigError."""
    wanted = begins.lower()
    if len(wanted) < MIN_ID_DIGITS:
        raise ConfigError(f"{begins!r} is too short", hint=f"give at least {MIN_ID_DIGITS} digits of the slot's id")
    found = [row for row in rows if row.slot_id.hex().startswith(wanted)]
    if not found:
        raise NotFound(f"there is no root-key slot {begins!r}", hint="see: envfs kms slot list")
    if len(found) > 1:
        raise ConfigError(f"{len(found)} slots begin with {begins!r}", hint="give more digits")
    return found[0]


def erase_removed(engine: Engine) -> None:
    """Erases what was removed from the files, or says who will."""
    deadline = time.monotonic() + _ERASE_PATIENCE
    while not engine.erase_removed():
        if time.monotonic() > deadline:
            click.echo(
                "Another process reads the store just now: the old slot is out of use, and the next maintenance of a"
                " mount or server erases it from the files.",
                err=True,
            )
            return
        time.sleep(0.1)


def _confirm(question: str) -> None:
    if not sys.stdin.isatty():
        raise ConfigError(
            question.removesuffix(" Remove it?"), hint="add another slot first (envfs kms slot add), or insist: --yes"
        )
    click.confirm(question, abort=True)


def _fields(home: Path, row: RootSlotRow, opened_by: bytes) -> dict[str, Any]:
    return {
        "slot_id": row.slot_id.hex(),
        "kind": row.kind,
        "created": time_text(row.created),
        "description": _describe(home, row),
        "used_now": row.slot_id == opened_by,
    }


def _describe(home: Path, row: RootSlotRow) -> str:
    try:
        if row.kind == KEY_FILE:
            return str(key_file_path(home, row.parameters))
        if row.kind == PASSPHRASE:
            cost = read_passphrase_cost(row.parameters)
            return f"Argon2id, {cost.memory_kib // 1024} MiB, {cost.iterations} passes"
        if row.kind == RECOVERY:
            return "160 random bits, written down"
        if row.kind == SYSTEMD_CREDS:
            return "a credential of this host"
        if row.kind == AWS_KMS:
            place = ForeignParameters.parse(row.parameters).place
            return f"{place.key} at {place.endpoint or 'AWS'}"
    except FormatError as error:
        return error.message
    return "of a newer release"
