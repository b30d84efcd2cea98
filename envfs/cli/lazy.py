"""Groups of commands whose modules are imported when they are needed, so that every command starts quickly."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, NamedTuple

import click

if TYPE_CHECKING:
    from collections.abc import Mapping

    from click.shell_completion import CompletionItem


class Lazy(NamedTuple):
    """Where a command is, and the first line of its help, which the group's help shows without loading it (a test
    compares the two).
    """

    module: str
    attribute: str
    summary: str


class LazyGroup(click.Group):
    """A group that knows its commands by a table: name → `Lazy`."""

    def __init__(self, *arguments: Any, table: Mapping[str, Lazy], **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  (click's signature)
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        entry = self.table.get(cmd_name)
        if entry is None:
            return None
        command: click.Command = getattr(importlib.import_module(entry.module), entry.attribute)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Out of the table, too: a completion must not load all commands."""
        completion = importlib.import_module("click.shell_completion")
        found: list[CompletionItem] = [
            completion.CompletionItem(name, help=entry.summary)
            for name, entry in self.table.items()
            if name.startswith(incomplete)
        ]
        return found + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in self.table.items()])
