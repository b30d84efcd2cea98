"""`envfs access`."""

from __future__ import annotations

import click

from envfs.cli.lazy import Lazy, LazyGroup

COMMANDS = {
    "grant": Lazy("envfs.cli.access_grant", "grant", "Let WHO read, write, create or administer WHERE."),
    "revoke": Lazy("envfs.cli.access_revoke", "revoke", "Take back what `envfs access grant` gave."),
    "list": Lazy(
        "envfs.cli.access_list", "list_access", "List what `envfs access grant` gave: all, or of somebody or something."
    ),
    "who-can": Lazy("envfs.cli.access_who", "who_can", "Say who can open PATH, and by what."),
    "matrix": Lazy("envfs.cli.access_who", "matrix", "Show who can do what in DIR and the directories in it."),
}


@click.group(cls=LazyGroup, table=COMMANDS)
def access() -> None:
    """Give and take access for users and groups, and see who has it.

    WHO is a user, or @ and a group. WHERE is a directory in a mount, or a key (alias/NAME, key id or ARN). Underneath
    are grants of the KMS and policies of users and groups, nothing else: --dry-run shows them.
    """
