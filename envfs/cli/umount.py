"""`envfs umount`."""

from __future__ import annotations

from pathlib import Path

import click

from envfs.cli.arguments import PATH
from envfs.cli.output import examples
from envfs.service.unmount import unmount


@click.command(epilog=examples("envfs umount ~/vault"))
@click.argument("mountpoint", type=PATH)
@click.option("--lazy", is_flag=True, help="Detach it although it is in use; it ends with its last user.")
def umount(mountpoint: Path, *, lazy: bool) -> None:
    """Unmount what is mounted at MOUNTPOINT.

    Returns when its daemon has ended, so that LOWER can be mounted again or backed up at once. Works on a dead mount,
    too ("Transport endpoint is not connected").
    """
    unmount(mountpoint, lazy=lazy)
