"""`envfs key`."""

from __future__ import annotations

import click

from envfs.cli.lazy import Lazy, LazyGroup

COMMANDS = {
    "create": Lazy("envfs.cli.key_create", "create", "Make a CMK."),
    "list": Lazy("envfs.cli.key_show", "list_keys", "List the CMKs; of those that you may not describe, only the ids."),
    "show": Lazy("envfs.cli.key_show", "show", "Show what a CMK is and which state it is in."),
    "update": Lazy("envfs.cli.key_life", "update", "Change what is said of a CMK."),
    "enable": Lazy("envfs.cli.key_life", "enable", "Let a disabled CMK be used again."),
    "disable": Lazy("envfs.cli.key_life", "disable", "Let nobody use a CMK until it is enabled again."),
    "delete": Lazy(
        "envfs.cli.key_life", "delete", "Delete a CMK for good, after a time in which that can be cancelled."
    ),
    "cancel-deletion": Lazy("envfs.cli.key_life", "cancel_deletion", "Keep a CMK that was to be deleted."),
    "last-usage": Lazy("envfs.cli.key_life", "last_usage", "Say when a CMK was last used, and for what."),
    "usage": Lazy(
        "envfs.cli.key_usage",
        "usage",
        "Count what hangs on a CMK: volumes, files and bytes that could not be read without it.",
    ),
    "policy": Lazy("envfs.cli.key_policy", "policy", "Show and replace key policies."),
    "alias": Lazy("envfs.cli.key_alias", "alias", "Give keys other names."),
    "tag": Lazy("envfs.cli.key_tags", "tag", "Put tags on a CMK, or change their values."),
    "untag": Lazy("envfs.cli.key_tags", "untag", "Take tags off a CMK."),
    "tags": Lazy("envfs.cli.key_tags", "tags", "List the tags of a CMK."),
    "rotation": Lazy("envfs.cli.key_rotation", "rotation", "Have the material of CMKs renewed by itself."),
    "rotate": Lazy("envfs.cli.key_rotation", "rotate", "Give a CMK new material now."),
    "public": Lazy("envfs.cli.key_public", "public", "Write the public key of an asymmetric CMK as PEM."),
    "import": Lazy("envfs.cli.key_import", "import_material", "Give a CMK of origin EXTERNAL its material."),
    "import-parameters": Lazy(
        "envfs.cli.key_import", "import_parameters", "Get what material that lies elsewhere is wrapped with."
    ),
    "import-wrapped": Lazy("envfs.cli.key_import", "import_wrapped", "Import material that was wrapped elsewhere."),
    "delete-material": Lazy("envfs.cli.key_import", "delete_material", "Take imported material out of a CMK."),
}


@click.group(cls=LazyGroup, table=COMMANDS)
def key() -> None:
    """Make and manage customer master keys (CMKs).

    KEY is a key id, an ARN or alias/NAME.
    """
