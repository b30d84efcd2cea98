"""`envfs iam`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from envfs.cli.backend import open_backend
from envfs.cli.lazy import Lazy, LazyGroup
from envfs.cli.output import examples
from envfs.cli.passphrase import passphrase_file_option

if TYPE_CHECKING:
    from pathlib import Path

COMMANDS = {
    "user-policy": Lazy("envfs.cli.iam_policy", "user_policy", "Policies attached to a user."),
    "group-policy": Lazy("envfs.cli.iam_policy", "group_policy", "Policies attached to a group."),
    "access-key": Lazy("envfs.cli.iam_access_key", "access_key", "What AWS tools sign their requests with."),
    "unpin": Lazy("envfs.cli.iam", "unpin", "Forget which uid USER has."),
}


@click.group(cls=LazyGroup, table=COMMANDS)
def iam() -> None:
    """Policies and access keys of users and groups."""


@click.command(epilog=examples("envfs iam unpin alice"))
@click.argument("user", metavar="USER")
@passphrase_file_option
def unpin(user: str, passphrase_file: Path | None) -> None:
    """Forget which uid USER has.

    For a user who was made again, with another uid: the KMS takes nobody for another who only has the name.
    """
    with open_backend(passphrase_file) as backend:
        backend.call("EnvfsIam.UnpinUser", {"UserName": user})
