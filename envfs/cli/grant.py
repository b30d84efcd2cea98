"""`envfs grant`."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any

import click

from envfs.cli.answers import as_fields, every, show_answer
from envfs.cli.arguments import dry_run_member, dry_run_option, key_argument
from envfs.cli.backend import open_backend
from envfs.cli.byte_io import context_member
from envfs.cli.key_reference import without_alias
from envfs.cli.output import examples, json_option, print_json, print_table
from envfs.cli.pairs import pairs_option
from envfs.cli.passphrase import passphrase_file_option
from envfs.cli.who import account_of, arn_of, arns_of
from envfs.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

MAX_TOKEN = 8192  # characters, as in AWS KMS


@click.group()
def grant() -> None:
    """Let somebody use a key, without touching its policy.

    KEY is a key id, an ARN or alias/NAME; WHO is a user, @ and a group, or an ARN.
    """


@grant.command(
    epilog=examples(
        "envfs grant create alias/payroll --to bob --operation Decrypt --name audit-2026",
        "envfs grant create alias/payroll --to @finance --operation Decrypt --operation Encrypt \\",
        "    --context-equals year=2026 --retiring alice",
    )
)
@key_argument
@click.option("--to", "grantee", metavar="WHO", required=True, help="Who may.")
@click.option(
    "--operation",
    "operations",
    metavar="OPERATION",
    multiple=True,
    required=True,
    help="What: Decrypt, Encrypt, GenerateDataKey, ReEncryptFrom, Sign, DescribeKey, ... May be repeated.",
)
@click.option("--retiring", metavar="WHO", help="Who may end it, beside you.")
@pairs_option("--context-equals", "equals", help="Only with exactly this encryption context.")
@pairs_option("--context-subset", "subset", help="Only with an encryption context that has this among its pairs.")
@click.option("--name", default="", help="So that the same request made twice gives one grant.")
@dry_run_option
@passphrase_file_option
@json_option
def create(
    key_id: str,
    grantee: str,
    operations: tuple[str, ...],
    retiring: str | None,
    equals: dict[str, str],
    subset: dict[str, str],
    name: str,
    passphrase_file: Path | None,
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Let WHO do OPERATIONs with KEY.

    It counts at once, everywhere. The grant token, which names the grant where it is retired, is shown this one time.
    """
    constraints = context_member("EncryptionContextEquals", equals) | context_member("EncryptionContextSubset", subset)
    with open_backend(passphrase_file) as backend:
        request: dict[str, Any] = {
            "KeyId": without_alias(backend, key_id),
            "GranteePrincipal": arns_of(account_of(backend), [grantee])[0],
            "Operations": list(operations),
            **dry_run_member(dry_run=dry_run),
        }
        if retiring is not None:
            request["RetiringPrincipal"] = arns_of(account_of(backend), [retiring])[0]
        if constraints:
            request["Constraints"] = constraints
        if name:
            request["Name"] = name
        answer = backend.call("CreateGrant", request)
    show_answer({"GrantId": answer["GrantId"], "GrantToken": answer["GrantToken"]}, as_json=as_json)


@grant.command("list", epilog=examples("envfs grant list alias/payroll", "envfs grant list --retirable alice"))
@click.argument("key_id", metavar="[KEY]", required=False)
@click.option("--to", "grantee", metavar="WHO", help="Of KEY's grants only those for WHO.")
@click.option("--retirable", metavar="WHO", help="Those that WHO may retire, of all keys.")
@passphrase_file_option
@json_option
def list_grants(
    key_id: str | None, grantee: str | None, retirable: str | None, passphrase_file: Path | None, *, as_json: bool
) -> None:
    """List the grants of KEY, or those that somebody may retire."""
    if (key_id is None) == (retirable is None) or (grantee is not None and key_id is None):
        raise click.UsageError("name a KEY, or --retirable WHO")
    with open_backend(passphrase_file) as backend:
        request = {"GranteePrincipal": arn_of(backend, grantee)} if grantee is not None else {}
        if key_id is not None:
            request["KeyId"] = without_alias(backend, key_id)
            answers = every(backend, "ListGrants", request, "Grants")
        else:
            request["RetiringPrincipal"] = arn_of(backend, str(retirable))
            answers = every(backend, "ListRetirableGrants", request, "Grants")
        found = [as_fields(one) for one in answers]
    if as_json:
        print_json({"grants": found})
    elif not found:
        click.echo("there are no grants; envfs grant create makes one")
    else:
        columns = ("grant_id", "name", "grantee_principal", "operations", "constraints")
        headings = ["GRANT_ID", "NAME", "TO", "OPERATIONS", "CONSTRAINTS"]
        print_table(headings, [[one.get(name) or None for name in columns] for one in found])


@grant.command(
    epilog=examples(
        "envfs grant retire alias/payroll 0c237476b39f8bc44e45212e08498fbe3151305030726c0590dd8d3e9f3d6a60",
        "envfs grant retire --token-file token",
    )
)
@click.argument("key_id", metavar="[KEY]", required=False)
@click.argument("grant_id", metavar="[GRANT_ID]", required=False)
@click.option("--token-file", type=click.File(), metavar="FILE", help="The grant's token; - is stdin.")
@dry_run_option
@passphrase_file_option
def retire(
    key_id: str | None, grant_id: str | None, token_file: IO[str] | None, passphrase_file: Path | None, *, dry_run: bool
) -> None:
    """End a grant, as its grantee or the one who may retire it."""
    if (grant_id is None) == (token_file is None) or (key_id is not None and grant_id is None):
        raise click.UsageError("name KEY and GRANT_ID, or --token-file FILE")
    request: dict[str, Any] = dict(dry_run_member(dry_run=dry_run))
    if token_file is not None:
        request["GrantToken"] = _token(token_file)
    with open_backend(passphrase_file) as backend:
        if key_id is not None:
            request |= {"KeyId": without_alias(backend, key_id), "GrantId": grant_id}
        backend.call("RetireGrant", request)


@grant.command(
    epilog=examples("envfs grant revoke alias/payroll 0c237476b39f8bc44e45212e08498fbe3151305030726c0590dd8d3e9f3d6a60")
)
@key_argument
@click.argument("grant_id", metavar="GRANT_ID")
@dry_run_option
@passphrase_file_option
def revoke(key_id: str, grant_id: str, passphrase_file: Path | None, *, dry_run: bool) -> None:
    """End a grant of KEY, as one who manages the key."""
    with open_backend(passphrase_file) as backend:
        request = {"KeyId": without_alias(backend, key_id), "GrantId": grant_id, **dry_run_member(dry_run=dry_run)}
        backend.call("RevokeGrant", request)


def _token(file: IO[str]) -> str:
    token = file.read(MAX_TOKEN + 1).strip()
    if not 1 <= len(token) <= MAX_TOKEN:
        raise ConfigError("this is no grant token", hint="envfs grant create shows it, as grant_token with --json")
    return token
