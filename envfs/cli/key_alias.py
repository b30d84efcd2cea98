"""`envfs key alias`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from envfs.cli.answers import as_fields, every
from envfs.cli.arguments import key_argument
from envfs.cli.backend import open_backend
from envfs.cli.key_create import ALIAS_PREFIX
from envfs.cli.key_reference import without_alias
from envfs.cli.output import examples, json_option, print_json, print_table
from envfs.cli.passphrase import passphrase_file_option

if TYPE_CHECKING:
    from pathlib import Path

alias_argument = click.argument(
    "alias_name", metavar="ALIAS", callback=lambda _, __, name: ALIAS_PREFIX + name.removeprefix(ALIAS_PREFIX)
)


@click.group()
def alias() -> None:
    """Give keys other names.

    ALIAS is alias/NAME, or NAME alone.
    """


@alias.command(epilog=examples("envfs key alias create alias/salaries alias/payroll"))
@alias_argument
@key_argument
@passphrase_file_option
def create(alias_name: str, key_id: str, passphrase_file: Path | None) -> None:
    """Make ALIAS another name of KEY."""
    with open_backend(passphrase_file) as backend:
        backend.call("CreateAlias", {"AliasName": alias_name, "TargetKeyId": without_alias(backend, key_id)})


@alias.command(epilog=examples("envfs key alias update alias/salaries 1234abcd-12ab-34cd-56ef-1234567890ab"))
@alias_argument
@key_argument
@passphrase_file_option
def update(alias_name: str, key_id: str, passphrase_file: Path | None) -> None:
    """Make ALIAS, which there is, a name of KEY instead of the key it names now."""
    with open_backend(passphrase_file) as backend:
        backend.call("UpdateAlias", {"AliasName": alias_name, "TargetKeyId": without_alias(backend, key_id)})


@alias.command(epilog=examples("envfs key alias delete alias/salaries"))
@alias_argument
@passphrase_file_option
def delete(alias_name: str, passphrase_file: Path | None) -> None:
    """Take ALIAS away; the key stays."""
    with open_backend(passphrase_file) as backend:
        backend.call("DeleteAlias", {"AliasName": alias_name})


@alias.command("list", epilog=examples("envfs key alias list", "envfs key alias list alias/payroll --json"))
@click.argument("key_id", metavar="[KEY]", required=False)
@passphrase_file_option
@json_option
def list_aliases(key_id: str | None, passphrase_file: Path | None, *, as_json: bool) -> None:
    """List all aliases, or those of KEY."""
    with open_backend(passphrase_file) as backend:
        request = {} if key_id is None else {"KeyId": without_alias(backend, key_id)}
        found = [as_fields(one) for one in every(backend, "ListAliases", request, "Aliases")]
    if as_json:
        print_json({"aliases": found})
    elif not found:
        click.echo("there are no aliases; envfs key alias create makes one")
    else:
        columns = ("alias_name", "target_key_id", "creation_date")
        print_table(["ALIAS", "KEY_ID", "CREATED"], [[one.get(name) for name in columns] for one in found])
