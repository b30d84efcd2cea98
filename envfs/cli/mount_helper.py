"""The helper that mount(8) calls for `-t fuse.envfs` and for lines of fstab: `mount.fuse.envfs LOWER MOUNTPOINT -sfnv
-o ...`.

Run as `python -m envfs.cli.mount_helper`; see "External helpers" in mount(8).
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from envfs.cli.arguments import PATH
from envfs.cli.main import run
from envfs.cli.mount import mount_volume


@click.command()
@click.argument("lower", type=PATH)
@click.argument("mountpoint", type=PATH)
@click.option("-s", "sloppy", is_flag=True, help="Pass over unknown options.")
@click.option("-f", "fake", is_flag=True, help="Check everything, but do not mount.")
@click.option("-n", "no_mtab", is_flag=True, help="Do not write /etc/mtab (it is never written).")
@click.option("-v", "verbose", is_flag=True, help="Say what is done.")
@click.option("-N", "namespace", hidden=True)
@click.option("-t", "fstype", hidden=True)
@click.option("-o", "options", multiple=True, metavar="OPT,...", help="Mount options, as of envfs mount.")
def helper(
    lower: Path,
    mountpoint: Path,
    options: tuple[str, ...],
    fstype: str | None,  # noqa: ARG001  (mount(8) repeats the type it was given)
    namespace: str | None,
    *,
    sloppy: bool,
    fake: bool,
    no_mtab: bool,  # noqa: ARG001
    verbose: bool,
) -> None:
    """Mount the volume in LOWER at MOUNTPOINT, as mount(8) asks for it."""
    if namespace is not None:
        raise click.UsageError("mounting in another namespace (-N) is not supported")
    mount_volume(lower, mountpoint, options, sloppy=sloppy, only_check=fake)
    if verbose:
        click.echo(f"envfs: {lower} mounted on {mountpoint}." if not fake else f"envfs: {lower} can be mounted.")


def main() -> None:
    """The program `mount.fuse.envfs`."""
    sys.exit(run(sys.argv[1:], helper, "mount.fuse.envfs"))


if __name__ == "__main__":
    main()
