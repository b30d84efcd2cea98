"""`envfs access list`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from envfs.cli.access_calls import all_policies, made_on_key, policies_of
from envfs.cli.access_made import Made, Scope, moment_text
from envfs.cli.access_show import where_text
from envfs.cli.access_target import aliases_by_key, find_where, find_who, is_key, is_path, name_of, scopes_of
from envfs.cli.answers import every
from envfs.cli.backend import open_backend
from envfs.cli.output import examples, json_option, print_json, print_table, printable
from envfs.cli.passphrase import passphrase_file_option
from envfs.errors import AccessDenied

if TYPE_CHECKING:
    from pathlib import Path

    from envfs.cli.backend import Backend


@click.command(
    "list",
    epilog=examples(
        "envfs access list",
        "envfs access list @finance",
        "envfs access list ./payroll",
        "envfs access list alias/payroll",
    ),
)
@click.argument("what", metavar="[WHO|WHERE]", required=False)
@passphrase_file_option
@json_option
def list_access(what: str | None, passphrase_file: Path | None, *, as_json: bool) -> None:
    """List what `envfs access grant` gave: all, or of somebody or something.

    A path has a slash in it (./payroll); a word without one is a user, with @ a group. What others than that command
    made is not listed: envfs access who-can says who has access, by whatever.
    """
    hidden: list[str] = []
    with open_backend(passphrase_file) as backend:
        if what is None:
            made = _of_keys(backend, hidden) + _of_everybody(backend, hidden)
        elif is_key(what) or is_path(what):
            with find_where(backend, what, must_be_apart=False) as found:
                everything = _of_key(backend, found.key.arn, None, hidden) + _of_everybody(backend, hidden)
                wanted = {*scopes_of(found), Scope(found.key.arn)}
                made = [
                    one
                    for one in everything
                    if (one.scope.key_arn == found.key.arn if found.facts is None else one.scope in wanted)
                ]
        else:
            arn = find_who(backend, what, must_exist=False)
            made = _of_keys(backend, hidden, arn)
            try:
                made += policies_of(backend, arn)
            except AccessDenied:
                hidden.append(f"iam:ListUserPolicies and iam:GetUserPolicy on {arn}")
        aliases = aliases_by_key(backend)
    rows = [_row(one, where_text(one.scope, aliases)) for one in sorted(made, key=lambda one: (one.who, one.access))]
    if as_json:
        print_json({"access": rows, "not_seen": hidden})
        return
    if rows:
        columns = ("who", "access", "where", "until", "since", "reason", "id")
        print_table([name.upper() for name in columns], [[_cell(row, name) for name in columns] for row in rows])
    else:
        click.echo("nothing was given by envfs access grant")
    for permission in hidden:
        click.echo(printable(f"not looked at: you lack {permission}"))


def _of_key(backend: Backend, key_arn: str, grantee: str | None, hidden: list[str]) -> list[Made]:
    try:
        return made_on_key(backend, key_arn, grantee)
    except AccessDenied:
        hidden.append(f"kms:ListGrants on {key_arn}")
        return []


def _of_keys(backend: Backend, hidden: list[str], grantee: str | None = None) -> list[Made]:
    try:
        keys = [key["KeyArn"] for key in every(backend, "ListKeys", {}, "Keys")]
    except AccessDenied:
        hidden.append("kms:ListKeys on *")
        return []
    return [made for key in keys for made in _of_key(backend, key, grantee, hidden)]


def _of_everybody(backend: Backend, hidden: list[str]) -> list[Made]:
    try:
        return list(all_policies(backend))
    except AccessDenied:
        hidden.append("iam:GetAccountAuthorizationDetails on *")
        return []


def _row(made: Made, where: str) -> dict[str, object]:
    return {
        "who": name_of(made.who),
        "access": made.access,
        "where": where,
        "key": made.scope.key_arn,
        "context": dict(made.scope.context),
        "path": made.scope.path,
        "until": None if made.until is None else moment_text(made.until),
        "expired": made.until is not None and made.until <= time.time(),
        "since": moment_text(made.since) if made.since else None,
        "reason": made.reason or None,
        "made": made.kind,
        "id": made.identity,
    }


def _cell(row: dict[str, object], name: str) -> object:
    if name == "until" and row["expired"]:
        return f"{row['until']} (over)"
    if name == "id":
        return f"{row['made']} {str(row['id'])[:24]}"
    return row[name]
