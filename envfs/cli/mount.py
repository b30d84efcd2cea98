"""`envfs mount`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from envfs.cli.arguments import PATH
from envfs.cli.output import examples
from envfs.cli.session import unlock_for
from envfs.service import log, notify
from envfs.service.config import home_directory, parse_mount_options
from envfs.service.mount import mount_in_background, prepare, run


@click.command(
    epilog=examples(
        "envfs mount ~/vault.enc ~/vault",
        "envfs mount /srv/vault.enc /srv/vault -o noxattr,allow_other",
        "mount -t fuse.envfs /srv/vault.enc /srv/vault",
    )
)
@click.argument("lower", type=PATH)
@click.argument("mountpoint", type=PATH)
@click.option("-o", "options", multiple=True, metavar="OPT,...", help="Mount options, see above.")
@click.option("--foreground", is_flag=True, help="Stay in the foreground and log to stderr.")
def mount(lower: Path, mountpoint: Path, options: tuple[str, ...], *, foreground: bool) -> None:
    """Mount the volume in LOWER at MOUNTPOINT.

    Returns when the mount is usable, and leaves a daemon that logs to ENVFS_HOME/log. LOWER and MOUNTPOINT are
    directories apart from each other; MOUNTPOINT is empty.

    \b
    Options:
      ro                    nobody writes
      noxattr               no extended attributes: small writes get several times faster
      acl                   POSIX ACLs
      allow_other           other users may enter (the default when root mounts; others
                            need user_allow_other in /etc/fuse.conf); noallow_other
      nowriteback           writes go through to LOWER at once
      nojournal             a power failure may tear a block that is being written over: such
                            writes then never wait for the disk
      poll, nopoll          look for the next request for a moment before sleeping
                            (default: with two cores or more)
      isolate               each file's page cache is one user's, others go past it
      lock-on=SIGNAL        lock the mount on this signal (USR1 or USR2), see envfs lock
      idle=TIME             unmount when nothing was open and nobody asked anything for so long:
                            90s, 10m, 2h, 1d
      log=LEVEL             debug, info (default), warning or error
      home=DIR              the KMS's directory instead of ENVFS_HOME (for fstab)
      passphrase_file=FILE  the KMS's passphrase (for fstab)
      dev suid noexec noatime sync dirsync ...   as in mount(8)
    """  # noqa: D301  (the backspace is meant: it keeps click from rewrapping)
    mount_volume(lower, mountpoint, options, foreground=foreground)


def mount_volume(
    lower: Path,
    mountpoint: Path,
    option_texts: tuple[str, ...],
    *,
    foreground: bool = False,
    sloppy: bool = False,
    only_check: bool = False,
) -> None:
    """What `envfs mount` and the mount helper have in common."""
    options = parse_mount_options(option_texts, sloppy=sloppy)
    home = options.home or home_directory()
    request = prepare(lower, mountpoint, home, options)
    unlock = unlock_for(home, options.passphrase_file)
    if only_check:
        return
    if foreground:
        log.to_stderr(level=log.level_of(options.log_level))
        run(request, unlock, _announce)
    else:
        mount_in_background(request, unlock)
        _announce({})


def _announce(_: dict[str, Any]) -> None:
    """The mount is usable; a command that succeeds says nothing, as mount(8), but to systemd."""
    notify.ready()
