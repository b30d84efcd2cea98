"""How `envfs access` tells what it found: scopes, calls, and what users can do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from envfs.cli.output import print_json, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from envfs.cli.access_calls import Call
    from envfs.cli.access_made import Scope

_VOLUME = "envfs:volume"


def where_text(scope: Scope, aliases: Mapping[str, str]) -> str:
    """A scope for people: key, labels, volume, path."""
    key_id = scope.key_arn.rpartition("/")[2]
    labels = [f"{name}={value}" for name, value in scope.context if name != _VOLUME]
    volume = [f"volume {value[:8]}" for name, value in scope.context if name == _VOLUME]
    path = [f"path {scope.path}"] if scope.path is not None else []
    return " ".join([aliases.get(key_id, key_id), *labels, *volume, *path])


def how(told: Mapping[str, Any]) -> str:
    return f"{told['made']} {told['id']}"


def print_calls(calls: Sequence[Call], *, as_json: bool) -> None:
    """The calls as they would be made."""
    if as_json:
        print_json({"calls": [{"operation": call.operation, "request": call.request} for call in calls]})
        return
    for call in calls:
        request = dict(call.request)
        document = request.pop("PolicyDocument", None)
        click.echo(f"{call.operation} {json.dumps(request, indent=2)}")
        if document is not None:
            click.echo(f"PolicyDocument {document}")
    if not calls:
        click.echo("nothing would be called")


def print_now(checked: Iterable[Mapping[str, Any]], accesses: Sequence[str]) -> None:
    """For each user what he can do now, and what still keeps him from it."""
    for one in checked:
        if "problem" in one:
            click.echo(printable(f"{one['user']}: {one['problem']}"))
            continue
        can = [access for access, outcome in one["access"].items() if outcome["allowed"]]
        click.echo(printable(f"{one['user']} can now: {', '.join(can) or 'nothing'}"))
        told = set()
        for access in accesses:
            outcome = one["access"].get(access)
            if outcome is None or outcome["allowed"]:
                continue
            if not outcome["kms"]:
                click.echo(printable(f"  not {access}: {outcome['text']}"))
            if not outcome["unix"]:
                click.echo(printable(f"  not {access}, by the Unix modes: {outcome['unix_text']}"))
                for remedy in outcome["remedies"]:
                    if remedy not in told:
                        told.add(remedy)
                        click.echo(printable(f"    {remedy}"))
