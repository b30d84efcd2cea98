"""What a verification found."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from envfs.cli.exit_codes import ExitCode
from envfs.cli.output import print_json, printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def print_findings(
    problems: Sequence[str], notices: Sequence[str], counts: Mapping[str, int], verdict: str, *, as_json: bool
) -> ExitCode:
    """Print them, and say which exit code that is. `problems` are tampering or damage, `notices` what a crash left."""
    if as_json:
        print_json({"authentic": not problems, **counts, "problems": list(problems), "notices": list(notices)})
    else:
        for problem in problems:
            click.echo(printable(f"PROBLEM: {problem}"))
        for notice in notices:
            click.echo(printable(f"notice: {notice}"))
        numbers = ", ".join(_number(count, name) for name, count in counts.items())
        click.echo(f"{_number(len(problems), 'problems') if problems else verdict}; {numbers}")
    return ExitCode.DAMAGED if problems else ExitCode.OK


def _number(count: int, things: str) -> str:
    return f"{count} {things if count != 1 else things.removesuffix('s')}"
