"""`envfs key update|enable|disable|delete|cancel-deletion|last-usage`: what becomes of a key."""

from __future__ import annotations

import contextlib
import importlib
from typing import TYPE_CHECKING

import click

from envfs.cli.answers import as_fields, show, show_answer, time_text
from envfs.cli.arguments import key_argument
from envfs.cli.backend import open_backend
from envfs.cli.key_reference import without_alias
from envfs.cli.output import examples, json_option, print_json, printable
from envfs.cli.passphrase import passphrase_file_option
from envfs.errors import AccessDenied

if TYPE_CHECKING:
    from pathlib import Path

    from envfs.cli.backend import Backend


@click.command(epilog=examples('envfs key update alias/payroll --description "Payroll since 2026"'))
@key_argument
@click.option("--description", required=True, help="What it is for.")
@passphrase_file_option
def update(key_id: str, description: str, passphrase_file: Path | None) -> None:
    """Change what is said of a CMK."""
    with open_backend(passphrase_file) as backend:
        backend.call("UpdateKeyDescription", {"KeyId": without_alias(backend, key_id), "Description": description})


@click.command(epilog=examples("envfs key enable alias/payroll"))
@key_argument
@passphrase_file_option
def enable(key_id: str, passphrase_file: Path | None) -> None:
    """Let a disabled CMK be used again."""
    with open_backend(passphrase_file) as backend:
        backend.call("EnableKey", {"KeyId": without_alias(backend, key_id)})


@click.command(epilog=examples("envfs key disable alias/payroll"))
@key_argument
@passphrase_file_option
def disable(key_id: str, passphrase_file: Path | None) -> None:
    """Let nobody use a CMK until it is enabled again.

    Its files can then not be opened, in no mount.
    """
    with open_backend(passphrase_file) as backend:
        backend.call("DisableKey", {"KeyId": without_alias(backend, key_id)})


@click.command(epilog=examples("envfs key delete alias/payroll --days 14"))
@key_argument
@click.option("--days", type=int, metavar="N", help="How long it waits: 7 to 30 days.  [default: 30]")
@passphrase_file_option
@json_option
def delete(key_id: str, days: int | None, passphrase_file: Path | None, *, as_json: bool) -> None:
    """Delete a CMK for good, after a time in which that can be cancelled.

    Until then nobody can use it. After that, whatever was encrypted under it is lost, whoever has a copy. What hangs on
    it in the volumes of this KMS is counted and shown first.
    """
    window = {} if days is None else {"PendingWindowInDays": days}
    with open_backend(passphrase_file) as backend:
        key = without_alias(backend, key_id)
        if not as_json:
            show_usage(backend, key)
        answer = backend.call("ScheduleKeyDeletion", {"KeyId": key, **window})
    show_answer(answer, as_json=as_json)
    if not as_json:
        click.echo(
            f"next: envfs key cancel-deletion {answer['KeyId']} keeps it, until {time_text(answer['DeletionDate'])}"
        )


def show_usage(backend: Backend, key: str) -> None:
    """What hangs on a key, on stderr; to whoever may describe it."""
    # Loaded when it is needed: no other command of this module reads volumes.
    module = importlib.import_module("envfs.cli.key_usage")
    with contextlib.suppress(AccessDenied):
        key_arn = backend.call("DescribeKey", {"KeyId": key})["KeyMetadata"]["Arn"]
        found = [one for one in module.find_usage(backend.home, key_arn, quiet=False) if one.get("files", 1)]
        for one in found:
            text = one.get("problem") or f"{one['files']} files with {one['bytes']} bytes hang on this key"
            click.echo(printable(f"{one['lower']}: {text}"), err=True)


@click.command(epilog=examples("envfs key cancel-deletion 1234abcd-12ab-34cd-56ef-1234567890ab"))
@key_argument
@passphrase_file_option
def cancel_deletion(key_id: str, passphrase_file: Path | None) -> None:
    """Keep a CMK that was to be deleted.

    It is disabled then; `envfs key enable` lets it be used again.
    """
    with open_backend(passphrase_file) as backend:
        answer = backend.call("CancelKeyDeletion", {"KeyId": without_alias(backend, key_id)})
    click.echo(f"next: envfs key enable {answer['KeyId']} lets it be used again")


@click.command(epilog=examples("envfs key last-usage alias/payroll"))
@key_argument
@passphrase_file_option
@json_option
def last_usage(key_id: str, passphrase_file: Path | None, *, as_json: bool) -> None:
    """Say when a CMK was last used, and for what."""
    with open_backend(passphrase_file) as backend:
        answer = backend.call("GetKeyLastUsage", {"KeyId": without_alias(backend, key_id)})
    usage = answer.get("KeyLastUsage") or {}
    found = as_fields({name: value for name, value in answer.items() if name != "KeyLastUsage"}) | as_fields(usage)
    if as_json:
        print_json(found)
    else:
        show(found, as_json=False)
        if not usage:
            click.echo(f"not used since {found.get('tracking_start_date', 'it was made')}")
