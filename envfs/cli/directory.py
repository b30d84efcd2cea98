"""`envfs dir`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from envfs.cli.arguments import PATH
from envfs.cli.output import examples, json_option, print_fields, print_json
from envfs.service import client
from envfs.service.errors import MountError


@click.group("dir")
def directory() -> None:
    """Choose and show the key of a directory."""


@directory.command("set-key", epilog=examples("envfs dir set-key ~/vault/payroll alias/payroll"))
@click.argument("path", metavar="DIR", type=PATH)
@click.argument("key", metavar="KEY")
@json_option
def set_key(path: Path, key: str, *, as_json: bool) -> None:
    """Encrypt new files below DIR under KEY (a key id, an ARN or alias/NAME).

    DIR lies below a mountpoint; its owner and root may do this. Files that are there already keep the keys they have.
    """
    _print(_ask(path, "dir-set-key", key=key), as_json=as_json)


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
