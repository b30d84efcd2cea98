"""`envfs key list` and `envfs key show`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from envfs.cli.answers import every
from envfs.cli.answers import show as print_one
from envfs.cli.arguments import key_argument
from envfs.cli.backend import open_backend
from envfs.cli.key_describe import aliases_by_key, described, metadata
from envfs.cli.output import examples, json_option, print_json, print_table
from envfs.cli.passphrase import passphrase_file_option
from envfs.errors import AccessDenied

if TYPE_CHECKING:
    from pathlib import Path


@click.command(epilog=examples("envfs key list", "envfs key list --json"))
@passphrase_file_option
@json_option
def list_keys(passphrase_file: Path | None, *, as_json: bool) -> None:
    """List the CMKs; of those that you may not describe, only the ids."""
    with open_backend(passphrase_file) as backend:
        aliases = aliases_by_key(backend)
        keys = []
        for entry in every(backend, "ListKeys", {}, "Keys"):
            try:
                found = metadata(backend, entry["KeyId"])
            except AccessDenied:
                found = {"key_id": entry["KeyId"], "arn": entry["KeyArn"]}
            keys.append(found if aliases is None else found | {"aliases": aliases.get(entry["KeyId"], [])})
    if as_json:
        print_json({"keys": keys})
    elif not keys:
        click.echo("there are no keys; envfs key create makes one")
    else:
        columns = ["key_id", *([] if aliases is None else ["aliases"]), "state", "manager", "description"]
        print_table([name.upper() for name in columns], [[one.get(name) for name in columns] for one in keys])


@click.command(epilog=examples("envfs key show alias/payroll"))
@key_argument
@passphrase_file_option
@json_option
def show(key_id: str, passphrase_file: Path | None, *, as_json: bool) -> None:
    """Show what a CMK is and which state it is in."""
    with open_backend(passphrase_file) as backend:
        found = described(backend, key_id)
    print_one(found, as_json=as_json)
