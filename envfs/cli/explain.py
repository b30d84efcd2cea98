"""`envfs explain`."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import click

from envfs.cli.arguments import PATH
from envfs.cli.exit_codes import ExitCode
from envfs.cli.output import examples, json_option, print_json
from envfs.errors import ConfigError
from envfs.service import client
from envfs.service.errors import MountError


@click.command(epilog=examples("envfs explain --user alice ~/vault/payroll/may.ods --access write"))
@click.argument("path", type=PATH)
@click.option("--user", required=True, help="A user's name or uid.")
@click.option(
    "--access",
    type=click.Choice(["read", "write", "create"]),
    default="read",
    show_default=True,
    help="create: make a new file in the directory PATH, or at PATH.",
)
@json_option
def explain(path: Path, user: str, access: str, *, as_json: bool) -> int:
    """Say whether a user may open PATH, and which statement decides.

    This is the KMS's decision, made as it would be now, without using a key or leaving an audit record; the Unix modes
    are decided by the kernel before. Everybody may ask about himself, root and the KMS's owner about everybody. The
    exit code is 0 if allowed and 4 if denied.
    """
    with client.open_path(_directory_for(path) if access == "create" else path) as opened:
        entry = opened.envfs_mount
        if entry is None:
            raise MountError(f"{path} is not below an envfs mountpoint", hint="envfs status lists the mounts")
        if access != "create" and stat.S_ISDIR(os.fstat(opened.descriptor).st_mode):
            raise ConfigError(
                f"{path} is a directory, and listing one is decided by the Unix modes alone",
                hint="--access create asks who may make files in it",
            )
        answer = client.ask(entry, "explain", descriptor=opened.descriptor, user=user, access=access)
    if as_json:
        print_json(answer)
    else:
        _print(answer)
    return ExitCode.OK if answer["allowed"] else ExitCode.REFUSED


def _directory_for(path: Path) -> Path:
    """Where the new file would be: PATH if that is a directory, else the directory of PATH."""
    try:
        if stat.S_ISDIR(path.stat().st_mode):
            return path
    except FileNotFoundError:
        pass
    return path.parent


def _print(answer: dict[str, Any]) -> None:
    verdict = "allowed" if answer["allowed"] else "DENIED"
    click.echo(f"{verdict}: {answer['user']} ({answer['principal']}), {answer['access']} {answer['path']}")
    for decision in answer["decisions"]:
        click.echo(f"  {decision['action']}: {decision['text']}")
