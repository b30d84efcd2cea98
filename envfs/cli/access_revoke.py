"""`envfs access revoke`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from envfs.cli import access_check
from envfs.cli.access_calls import Call, grants_on, made_on_key, policies_of
from envfs.cli.access_made import ACCESSES, Made, Scope, moment_text
from envfs.cli.access_show import print_calls, where_text
from envfs.cli.access_target import Where, aliases_by_key, find_where, find_who, name_of, scopes_of
from envfs.cli.answers import every
from envfs.cli.backend import open_backend
from envfs.cli.output import examples, json_option, print_json, printable
from envfs.cli.passphrase import passphrase_file_option
from envfs.errors import AccessDenied, ConfigError, EnvfsError, NotFound

if TYPE_CHECKING:
    from pathlib import Path

    from envfs.cli.backend import Backend


@click.command(
    epilog=examples(
        "envfs access revoke bob read /srv/data/payroll",
        "envfs access revoke @finance all alias/payroll",
        "envfs access revoke bob --everywhere",
    )
)
@click.argument("who", metavar="WHO")
@click.argument(
    "access", metavar="[read|write|create|admin|all]", type=click.Choice([*ACCESSES, "all"]), required=False
)
@click.argument("where", metavar="[WHERE]", required=False)
@click.option("--everywhere", is_flag=True, help="Whatever WHO was given, on all keys: for who leaves.")
@click.option("--dry-run", is_flag=True, help="Only show the calls of the KMS that it would be.")
@passphrase_file_option
@json_option
def revoke(
    who: str,
    access: str | None,
    where: str | None,
    passphrase_file: Path | None,
    *,
    everywhere: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Take back what `envfs access grant` gave.

    It takes away what that command made for just this WHO, access and WHERE, and says what else still lets WHO in:
    other grants, groups, the key's policy. It counts at once, for open files within a second.
    """
    if everywhere is (where is not None) or (everywhere and access not in {None, "all"}):
        raise click.UsageError("name an access and WHERE, or --everywhere")
    wanted = set(ACCESSES) if access in {None, "all"} else {str(access)}
    with open_backend(passphrase_file) as backend:
        arn = find_who(backend, who, must_exist=False)
        if where is None:
            made, hidden = _everything(backend, arn)
            _finish(backend, arn, made, hidden, None, dry_run=dry_run, as_json=as_json)
            return
        with find_where(backend, where, must_be_apart=False) as found:
            made, hidden = _made_at(backend, arn, found)
            made = [one for one in made if one.access in wanted]
            _finish(backend, arn, made, hidden, found, dry_run=dry_run, as_json=as_json)


def _made_at(backend: Backend, arn: str, found: Where) -> tuple[list[Made], list[str]]:
    """What WHO was given there, and which permissions we lack to know all of it."""
    scopes = {*scopes_of(found), Scope(found.key.arn)} if found.facts is None else set(scopes_of(found))
    whole_key = Scope(found.key.arn)
    made: list[Made] = []
    hidden: list[str] = []
    try:
        made += made_on_key(backend, found.key.arn, arn)
    except AccessDenied:
        hidden.append(f"kms:ListGrants on {found.key.arn}")
    try:
        made += policies_of(backend, arn)
    except AccessDenied:
        hidden.append(f"iam:ListUserPolicies and iam:GetUserPolicy on {arn}")
    # The administrator's permission is about the key, also where it was given for a directory.
    return [one for one in made if one.scope in scopes or (one.access == "admin" and one.scope == whole_key)], hidden


def _everything(backend: Backend, arn: str) -> tuple[list[Made], list[str]]:
    made: list[Made] = []
    hidden: list[str] = []
    for key in every(backend, "ListKeys", {}, "Keys"):
        try:
            made += made_on_key(backend, key["KeyArn"], arn)
        except AccessDenied:
            hidden.append(f"kms:ListGrants on {key['KeyArn']}")
    try:
        made += policies_of(backend, arn)
    except AccessDenied:
        hidden.append(f"iam:ListUserPolicies and iam:GetUserPolicy on {arn}")
    return made, hidden


def _call(made: Made) -> Call:
    if made.kind == "grant":
        return Call("RevokeGrant", {"KeyId": made.scope.key_arn, "GrantId": made.identity})
    return Call("EnvfsIam.DeletePolicy", {"Target": made.who, "PolicyName": made.identity})


def _finish(
    backend: Backend,
    arn: str,
    made: list[Made],
    hidden: list[str],
    found: Where | None,
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    if dry_run:
        print_calls([_call(one) for one in made], as_json=as_json)
        return
    if not made and hidden:
        raise AccessDenied(
            f"whether `access grant` gave {name_of(arn)} anything there, you may not see",
            hint="you lack " + "; ".join(hidden),
        )
    gone = [one for one in made if _run(backend, one)]
    still = _still(backend, arn, found) if found is not None else []
    aliases = aliases_by_key(backend)
    if as_json:
        revoked = [
            {"made": one.kind, "id": one.identity, "access": one.access, "where": where_text(one.scope, aliases)}
            for one in gone
        ]
        print_json({"who": name_of(arn), "revoked": revoked, "still": still, "not_seen": hidden})
    else:
        for one in gone:
            end = "" if one.until is None else f" (until {moment_text(one.until)})"
            where = where_text(one.scope, aliases)
            click.echo(printable(f"revoked: {name_of(arn)} {one.access} {where}{end}: {one.kind} {one.identity}"))
        for line in still:
            click.echo(printable(f"still: {line}"))
        for permission in hidden:
            click.echo(printable(f"not looked at: you lack {permission}"))
    if gone:
        return
    if found is not None:
        raise NotFound(
            f"`access grant` gave {name_of(arn)} nothing of that kind there",
            hint="envfs access list tells what it gave; envfs access who-can, who has access and by what",
        )
    # A leaver without anything to take back is as he should be: a script for all leavers goes on.
    if not as_json:
        click.echo(printable(f"`access grant` gave {name_of(arn)} nothing, on no key"))


def _run(backend: Backend, made: Made) -> bool:
    try:
        _call(made).run(backend)
    except NotFound:
        return False  # somebody was quicker
    return True


def _still(backend: Backend, arn: str, found: Where) -> list[str]:
    """What else lets WHO in there: asked of the mount for a user, of the key's grants otherwise."""
    name = name_of(arn)
    if found.opened is not None and not name.startswith("@"):
        try:
            (checked,) = access_check.check(found.opened, [name], access_check.DIRECTORY_ACCESSES)
        except EnvfsError as error:
            if isinstance(error, ConfigError):
                return []  # there is no such user any more
            return [f"what else lets {name} in, you may not see: {error.message}"]
        outcomes: dict[str, Any] = checked.get("access", {})
        return [f"{name} may {access}: {one['text']}" for access, one in outcomes.items() if one["kms"]]
    try:
        left = [one for one in grants_on(backend, found.key.arn) if one["GranteePrincipal"] == arn]
    except AccessDenied:
        return []
    return [f"grant {one['GrantId']} {one.get('Name', '')} lets {name} {', '.join(one['Operations'])}" for one in left]
