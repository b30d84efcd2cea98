"""Parameter types."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    _PathType = click.ParamType[Path]
else:
    _PathType = click.ParamType  # releases of click before 8.4 do not know the parameter


class UntouchedPath(_PathType):
    """A path that is not looked at: click's own Path does a stat(2), which hangs where a mount's daemon hangs."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        path = Path(value)
        if not str(value):
            self.fail("an empty path", param, ctx)
        return path

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return click.Path().shell_complete(ctx, param, incomplete)


PATH = UntouchedPath()
key_argument = click.argument("key_id", metavar="KEY")
dry_run_option = click.option("--dry-run", is_flag=True, help="Only say whether it would be allowed and would succeed.")


def dry_run_member(*, dry_run: bool) -> dict[str, bool]:
    """What `--dry-run` adds to a request."""
    return {"DryRun": True} if dry_run else {}
