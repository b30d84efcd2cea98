"""`envfs dir`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from envfs.cli.arguments import PATH
from envfs.cli.output import examples, json_option, print_fields, print_json
from envfs.cli.pairs import pairs_argument
from envfs.service import client
from envfs.service.errors import MountError


@click.group("dir")
def directory() -> None:
    """Choose and show the key and the labels of a directory."""


@directory.command("set-key", epilog=examples("envfs dir set-key ~/vault/payroll alias/payroll"))
@click.argument("path", metavar="DIR", type=PATH)
@click.argument("key", metavar="KEY")
@json_option
def set_key(path: Path, key: str, *, as_json: bool) -> None:
    """Encrypt new files below DIR under KEY (a key id, an ARN or alias/NAME).

    DIR lies below a mountpoint; its owner and root may do this. Files that are there already keep the keys they have.
    """
    _print(_ask(path, "dir-set-key", key=key), as_json=as_json)


@directory.command(
    epilog=examples(
        "envfs dir label ~/vault/apollo project=apollo",
        "envfs dir label ~/vault/apollo stage=draft --remove project",
    )
)
@click.argument("path", metavar="DIR", type=PATH)
@pairs_argument("labels", required=False)
@click.option("--remove", "removed", metavar="NAME", multiple=True, help="Take this label off. May be repeated.")
@json_option
def label(path: Path, labels: dict[str, str], removed: tuple[str, ...], *, as_json: bool) -> None:
    """Give new files below DIR labels: pairs of their encryption context.

    Policies and grants can require them (kms:EncryptionContext:NAME). Directories below inherit them, unless they have
    another value of their own. Files that are there already, and files that are moved, keep the labels that they have.
    Labels are no secret. DIR's owner and root may do this.
    """
    if not labels and not removed:
        raise click.UsageError("name a label: NAME=VALUE, or --remove NAME")
    both = sorted(labels.keys() & set(removed))
    if both:
        raise click.UsageError(f"{both[0]!r} is both given and removed")
    _print(_ask(path, "dir-label", add=labels, remove=list(removed)), as_json=as_json)


@directory.command(epilog=examples("envfs dir show ~/vault/payroll"))
@click.argument("path", metavar="DIR", type=PATH)
@json_option
def show(path: Path, *, as_json: bool) -> None:
    """Show which key and labels new files in DIR get."""
    _print(_ask(path, "dir-show"), as_json=as_json)


def _ask(path: Path, operation: str, **fields: object) -> dict[str, Any]:
    with client.open_path(path) as opened:
        entry = opened.envfs_mount
        if entry is None:
            raise MountError(f"{path} is not below an envfs mountpoint", hint="envfs status lists the mounts")
        return client.ask(entry, operation, descriptor=opened.descriptor, listener=None, **fields)


def _print(described: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(described)
    else:
        print_fields(described)
