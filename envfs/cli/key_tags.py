"""`envfs key tag|untag|tags`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from envfs.cli.answers import every
from envfs.cli.arguments import key_argument
from envfs.cli.backend import open_backend
from envfs.cli.key_reference import without_alias
from envfs.cli.output import examples, json_option, print_fields, print_json
from envfs.cli.pairs import pairs_argument
from envfs.cli.passphrase import passphrase_file_option

if TYPE_CHECKING:
    from pathlib import Path


@click.command(epilog=examples("envfs key tag alias/payroll department=finance"))
@key_argument
@pairs_argument("pairs")
@passphrase_file_option
def tag(key_id: str, pairs: dict[str, str], passphrase_file: Path | None) -> None:
    """Put tags on a CMK, or change their values.

    Policies can speak of them, as aws:ResourceTag/NAME.
    """
    listed = [{"TagKey": name, "TagValue": value} for name, value in pairs.items()]
    with open_backend(passphrase_file) as backend:
        backend.call("TagResource", {"KeyId": without_alias(backend, key_id), "Tags": listed})


@click.command(epilog=examples("envfs key untag alias/payroll department"))
@key_argument
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@passphrase_file_option
def untag(key_id: str, names: tuple[str, ...], passphrase_file: Path | None) -> None:
    """Take tags off a CMK."""
    with open_backend(passphrase_file) as backend:
        backend.call("UntagResource", {"KeyId": without_alias(backend, key_id), "TagKeys": list(names)})


@click.command(epilog=examples("envfs key tags alias/payroll"))
@key_argument
@passphrase_file_option
@json_option
def tags(key_id: str, passphrase_file: Path | None, *, as_json: bool) -> None:
    """List the tags of a CMK."""
    with open_backend(passphrase_file) as backend:
        request = {"KeyId": without_alias(backend, key_id)}
        found = {one["TagKey"]: one["TagValue"] for one in every(backend, "ListResourceTags", request, "Tags")}
    if as_json:
        print_json({"tags": found})
    elif not found:
        click.echo(f"no tags; envfs key tag {key_id} NAME=VALUE puts one on it")
    else:
        print_fields(found)
