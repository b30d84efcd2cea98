"""`envfs lock` and `envfs unlock`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from envfs.cli.arguments import PATH
from envfs.cli.exit_codes import ExitCode
from envfs.cli.output import examples, print_error
from envfs.cli.passphrase import passphrase_file_option
from envfs.cli.session import unlock_for
from envfs.errors import AccessDenied, EnvfsError
from envfs.kms.rootkey import open_slots
from envfs.kms.unlocking import slots_of
from envfs.service import mountinfo
from envfs.service.client import ask
from envfs.service.errors import MountError


@click.command(epilog=examples("envfs lock /srv/data", "envfs lock --all"))
@click.argument("mountpoint", type=PATH, required=False)
@click.option("--all", "every", is_flag=True, help="All mounts that are yours; root: all.")
def lock(mountpoint: Path | None, *, every: bool) -> int:
    """Wipe a mount's keys from memory, and refuse everything until unlock.

    What was written is written to LOWER first. The kernel drops its pages; programs keep their open files, whose use
    says "Required key not available" until the mount is unlocked, and then they go on.
    """
    if every == (mountpoint is not None):
        raise click.UsageError("name a mountpoint, or say --all")
    if mountpoint is not None:
        ask(_entry(mountpoint), "lock")
        return ExitCode.OK
    failed = False
    for entry in mountinfo.envfs_mounts():
        if os.geteuid() not in (0, entry.owner_uid):
            continue
        try:
            ask(entry, "lock")
        except (EnvfsError, OSError) as error:  # the others must not stay open for that
            print_error(error)
            failed = True
    return ExitCode.MOUNT_STATE if failed else ExitCode.OK


@click.command(epilog=examples("envfs unlock /srv/data"))
@click.argument("mountpoint", type=PATH)
@passphrase_file_option
def unlock(mountpoint: Path, passphrase_file: Path | None) -> None:
    """Open a mount again that was locked.

    Takes what mounting took: the key file of the KMS, its passphrase, or whatever opens one of its slots. Only
    whose mount it is can do it: root, too, only his own.
    """
    entry = _entry(mountpoint)
    if entry.owner_uid not in (0, os.geteuid()):
        # The daemon says which KMS it wants the root key of, and its user may have put another program in its place.
        raise AccessDenied(
            f"the mount at {mountpoint} is that of uid {entry.owner_uid}: a root key is not given to somebody else's "
            "process",
            hint=f"run this as that user: setpriv --reuid {entry.owner_uid} --init-groups envfs unlock {mountpoint}",
        )
    home = Path(ask(entry, "status")["kms_home"])
    store_id, slots = slots_of(home)
    root_key, _ = open_slots(slots, store_id, unlock_for(home, passphrase_file))
    reader, writer = os.pipe()
    try:
        with root_key:
            os.write(writer, root_key.expose())
        ask(entry, "unlock", descriptor=reader)
    finally:
        os.close(reader)
        os.close(writer)


def _entry(mountpoint: Path) -> mountinfo.MountEntry:
    entry = mountinfo.at_mountpoint(mountpoint)
    if entry is None or entry.fstype != mountinfo.FILESYSTEM_TYPE:
        raise MountError(f"no envfs is mounted at {mountpoint}", hint="envfs status lists what is mounted")
    return entry
