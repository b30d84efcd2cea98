"""`envfs file`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from envfs.cli.arguments import PATH
from envfs.cli.output import examples, json_option, print_fields, print_json
from envfs.service import client
from envfs.service.lower_file import describe_lower_file


@click.group()
def file() -> None:
    """Show what a file's header says."""


@file.command(epilog=examples("envfs file show ~/vault/notes.txt", "envfs file show ~/vault.enc/3kT0vJ0wV5z7 --json"))
@click.argument("path", type=PATH)
@json_option
def show(path: Path, *, as_json: bool) -> None:
    """Show key, file id, suite and sizes of PATH, a file in a mount or in LOWER.

    This needs no permission on the key: a header is no secret. In LOWER it is shown without checking that it is
    authentic.
    """
    described = _describe(path)
    if as_json:
        print_json(described)
    else:
        print_fields(described)


def _describe(path: Path) -> dict[str, Any]:
    with client.open_path(path) as opened:
        entry = opened.envfs_mount
        if entry is not None:
            return client.ask(entry, "file-show", descriptor=opened.descriptor)
    return describe_lower_file(path)
