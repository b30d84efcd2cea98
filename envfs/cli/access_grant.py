"""`envfs access grant`."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import click

from envfs.cli import access_check, access_made
from envfs.cli.access_calls import Call, made_on_key, policies_of
from envfs.cli.access_made import ACCESSES, MAX_REASON, Made, Scope, grant_request, moment_text, policy_request
from envfs.cli.access_show import how, print_calls, print_now, where_text
from envfs.cli.access_target import Where, find_where, find_who, name_of
from envfs.cli.backend import open_backend
from envfs.cli.moments import DEADLINE
from envfs.cli.output import examples, json_option, print_json, printable
from envfs.cli.passphrase import passphrase_file_option
from envfs.cli.who import account_of
from envfs.errors import AccessDenied, ConfigError
from envfs.kms.policy.parser import parse_key_policy

if TYPE_CHECKING:
    from pathlib import Path

    from envfs.cli.backend import Backend

_MAX_SHOWN_MEMBERS = 10
_VOID = (
    "the key's policy does not let policies of users and groups count (it has no statement for the account): this one "
    "is void; envfs key policy put can change that, or grant without --until"
)


@click.command(
    epilog=examples(
        "envfs access grant bob read /srv/data/payroll --reason 'ticket 4711'",
        "envfs access grant @finance write /srv/data/payroll",
        "envfs access grant carol read /srv/data/payroll --until 2099-12-31",
        "envfs access grant alice admin alias/payroll",
        "envfs access grant bob read alias/payroll --until 8h --dry-run",
    )
)
@click.argument("who", metavar="WHO")
@click.argument("access", metavar="read|write|create|admin", type=click.Choice(ACCESSES))
@click.argument("where", metavar="WHERE")
@click.option("--until", type=DEADLINE, help="When it ends, by itself: a date (its end), a time, or 8h, 7d from now.")
@click.option("--reason", default="", help="Why; kept with the grant or policy and in the audit trail.")
@click.option("--by-path", is_flag=True, help="Go by DIR's path and not by its labels. Renaming files evades it.")
@click.option("--dry-run", is_flag=True, help="Only show the calls of the KMS that it would be.")
@passphrase_file_option
@json_option
def grant(
    who: str,
    access: str,
    where: str,
    until: float | None,
    reason: str,
    passphrase_file: Path | None,
    *,
    by_path: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Let WHO read, write, create or administer WHERE.

    WHO is a user, or @ and a group; WHERE is a directory in a mount or a key. `read` opens files for reading, `create`
    makes new ones (and reads none), `write` does both and changes files; `admin` manages the key and uses nothing.

    For a directory it counts for the files that have its key and its labels, also after they were moved elsewhere, and
    not for files that were moved into it. It counts at once, on every mount. The Unix modes count as well: what they
    still forbid is said. What is granted already is not granted twice.
    """
    if len(reason) > MAX_REASON:
        raise click.BadParameter(f"a reason has at most {MAX_REASON} characters", param_hint="--reason")
    with open_backend(passphrase_file) as backend:
        arn = find_who(backend, who, must_exist=True)
        with find_where(backend, where, by_path=by_path, must_be_apart=access != "admin") as found:
            scope = Scope(found.key.arn) if access == "admin" else found.scope
            _refuse_service_key(found)
            call = _plan(backend, arn, access, scope, until=until, reason=reason)
            if dry_run:
                print_calls([call], as_json=as_json)
                return
            there, known = _there(backend, arn, access, scope, call)
            is_same = there is not None and _is_same(there, call, until=until, reason=reason)
            made = there.identity if there is not None and is_same else _identity(call, call.run(backend))
            now = _now(found, arn)
            notes = [] if _kind(call) == "grant" or _delegates(backend, scope.key_arn) else [_VOID]
    told = {
        "who": name_of(arn),
        "access": access,
        "where": where,
        "reach": where_text(scope, {}),
        "key": scope.key_arn,
        "context": dict(scope.context),
        "path": scope.path,
        "made": _kind(call),
        "id": made,
        "until": None if until is None else moment_text(until),
        "reason": reason,
        "already": is_same,
        "now": now,
        "notes": notes,
    }
    if as_json:
        print_json(told)
        return
    _print(told, there, known)


def _refuse_service_key(found: Where) -> None:
    if found.key.manager == "AWS":
        hint = "give the directory a key of its own: envfs key create, envfs dir set-key"
        raise ConfigError(
            f"the key of {found.text} is envfs's own, which everybody may use whom the Unix modes let in: there is "
            "nothing to grant",
            hint=hint,
        )


def _plan(backend: Backend, arn: str, access: str, scope: Scope, *, until: float | None, reason: str) -> Call:
    """A grant, or where that cannot say it (an end, a path, the administrator's actions) a policy."""
    if until is None and scope.path is None and access != "admin":
        return Call("CreateGrant", grant_request(arn, access, scope, reason))
    request = policy_request(arn, access, scope, until=until, reason=reason, account=account_of(backend))
    return Call("EnvfsIam.PutPolicy", request)


def _there(backend: Backend, arn: str, access: str, scope: Scope, call: Call) -> tuple[Made | None, list[Made]]:
    """What is there already of just this kind; and all that WHO was given there by this command, if we may see it."""
    known: list[Made] = []
    # Where we may not look, the KMS sees to it that the very same request makes one grant.
    with contextlib.suppress(AccessDenied):
        known += made_on_key(backend, scope.key_arn, arn)
    with contextlib.suppress(AccessDenied):
        known += policies_of(backend, arn)
    known = [made for made in known if made.scope == scope and made.access == access]
    same = [made for made in known if made.kind == _kind(call)]
    return (same[0] if same else None), known


def _is_same(there: Made, call: Call, *, until: float | None, reason: str) -> bool:
    """A grant has no end, and who wants another reason has to revoke it; a policy is put again with what is new."""
    if _kind(call) == "grant":
        return True
    ends = [None if one is None else moment_text(one) for one in (there.until, until)]
    return ends[0] == ends[1] and there.reason == reason


def _kind(call: Call) -> str:
    return "grant" if call.operation == "CreateGrant" else "policy"


def _identity(call: Call, answer: dict[str, Any]) -> str:
    return str(answer.get("GrantId") or call.request.get("PolicyName"))


def _delegates(backend: Backend, key_arn: str) -> bool:
    """Whether the key's policy lets policies of users and groups count at all. Where we may not look, it is taken for
    granted.
    """
    account = account_of(backend)
    try:
        policy = parse_key_policy(backend.call("GetKeyPolicy", {"KeyId": key_arn})["Policy"], account)
    except AccessDenied:
        return True
    return any(
        not statement.is_deny
        and statement.principals is not None
        and account.account_id in statement.principals.accounts
        for statement in policy.statements
    )


def _now(found: Where, arn: str) -> list[dict[str, Any]]:
    """What WHO can do now; of a group, its first members. Empty where only the mount's owner may know."""
    if found.opened is None:
        return []
    name = name_of(arn)
    users = access_check.members_of(name[1:])[:_MAX_SHOWN_MEMBERS] if name.startswith("@") else [name]
    try:
        return access_check.check(found.opened, users, access_check.DIRECTORY_ACCESSES) if users else []
    except AccessDenied as denied:
        return [{"user": name, "problem": denied.message}]


def _print(told: dict[str, Any], there: Made | None, known: list[Made]) -> None:
    verb = "granted" if there is None else "has been granted already" if told["already"] else "granted anew"
    end = f", until {told['until']}" if told["until"] else ""
    click.echo(printable(f"{verb}: {told['who']} may {told['access']} {told['where']}{end}"))
    click.echo(printable(f"  {told['reach']} ({how(told)})"))
    for note in told["notes"]:
        click.echo(f"note: {note}")
    for other in known:
        if other.kind == told["made"]:
            continue
        if other.kind == "grant":
            click.echo("note: there is a grant of the same without an end; envfs access revoke takes both away")
        elif other.until is not None:
            click.echo(f"note: there is a policy of the same until {moment_text(other.until)}")
    print_now(told["now"], access_made.ACCESSES[:3] if told["access"] == "admin" else (told["access"],))
