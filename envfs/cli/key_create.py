"""`envfs key create`."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any

import click

from envfs.cli.answers import every, show
from envfs.cli.backend import Backend, open_backend
from envfs.cli.key_describe import SYMMETRIC, fields, with_aliases
from envfs.cli.output import examples, json_option
from envfs.cli.pairs import pairs_option
from envfs.cli.passphrase import passphrase_file_option
from envfs.cli.who import account_of, arns_of
from envfs.errors import AccessDenied, AlreadyExists, EnvfsError
from envfs.kms.material.specs import SPECS, USAGES, check_new_key
from envfs.kms.policy.defaults import administrators_and_users_policy

if TYPE_CHECKING:
    from pathlib import Path

ALIAS_PREFIX = "alias/"


@click.command(
    epilog=examples(
        "envfs key create --alias payroll --policy policy.json",
        "envfs key create --alias payroll --admin alice --user bob --user @finance",
        "envfs key create --alias release --spec ECC_NIST_P256 --usage SIGN_VERIFY",
        "envfs key create --alias tokens --spec HMAC_256 --tag team=web",
        "envfs key create --alias cloud --foreign alias/files --region eu-central-1 --profile envfs",
    )
)
@click.option("--alias", "alias_name", metavar="NAME", help="A name for it: alias/NAME.")
@click.option("--description", default="", help="What it is for.")
@click.option(
    "--spec",
    type=click.Choice(list(SPECS)),
    default=SYMMETRIC,
    show_default=True,
    metavar="SPEC",
    help=f"Its key spec: {', '.join(SPECS)}.",
)
@click.option(
    "--usage",
    type=click.Choice(USAGES),
    metavar="USAGE",
    help=f"What it is used for, where its spec leaves a choice: {', '.join(USAGES)}.",
)
@click.option(
    "--origin",
    type=click.Choice(["AWS_KMS", "EXTERNAL"]),
    default="AWS_KMS",
    show_default=True,
    help="Where its material comes from: EXTERNAL means you, by envfs key import.",
)
@click.option(
    "--foreign",
    metavar="KEY",
    help="The id, ARN or alias of a key in AWS KMS, or in another KMS that speaks its protocol, which this one is to "
    "stand for. It is tried out first.",
)
@click.option("--region", metavar="REGION", help="The region of the key that --foreign names.")
@click.option("--endpoint-url", metavar="URL", help="Where the KMS of --foreign is, if it is not AWS's own.")
@click.option(
    "--profile", metavar="NAME", help="The profile of ~/.aws/config with which the KMS of --foreign is asked."
)
@pairs_option("--tag", "tags", help="A tag.")
@click.option("--policy", type=click.File(encoding="utf-8"), metavar="FILE", help="Its key policy as JSON; - is stdin.")
@click.option(
    "--admin", "admins", metavar="WHO", multiple=True, help="A user or @GROUP who manages it. May be repeated."
)
@click.option("--user", "users", metavar="WHO", multiple=True, help="A user or @GROUP who uses it. May be repeated.")
@passphrase_file_option
@json_option
def create(
    alias_name: str | None,
    description: str,
    spec: str,
    usage: str | None,
    origin: str,
    foreign: str | None,
    region: str | None,
    endpoint_url: str | None,
    profile: str | None,
    tags: dict[str, str],
    policy: IO[str] | None,
    admins: tuple[str, ...],
    users: tuple[str, ...],
    passphrase_file: Path | None,
    *,
    as_json: bool,
) -> None:
    """Make a CMK.

    Without a policy it gets the default key policy: the KMS's owner may do everything, and may let others by identity
    policies. With --admin and --user it gets one by which administrators manage the key without using it, and users
    use it without managing it; you have to be among the administrators, or be the KMS's owner.
    """
    if policy is not None and (admins or users):
        raise click.UsageError("--policy says all; it does not go together with --admin and --user")
    place = _foreign_place(foreign, region, endpoint_url, profile)
    if usage is None and len(SPECS[spec].algorithms) == 1:
        (usage,) = SPECS[spec].algorithms
    request: dict[str, Any] = {"Description": description, **place}
    if not place:
        request |= {"KeySpec": spec, "Origin": origin}
        if usage is not None:
            request["KeyUsage"] = usage
    elif (spec, origin) != (SYMMETRIC, "AWS_KMS"):
        raise click.UsageError("--foreign says where the material is; it does not go together with --spec and --origin")
    if tags:
        request["Tags"] = [{"TagKey": name, "TagValue": value} for name, value in tags.items()]
    if policy is not None:
        request["Policy"] = policy.read()
    name = None if alias_name is None else ALIAS_PREFIX + alias_name.removeprefix(ALIAS_PREFIX)
    with open_backend(passphrase_file) as backend:
        if admins or users:
            request["Policy"] = _ready_made_policy(backend, admins, users, spec, usage)
        if name is not None:
            _check_free(backend, name)
        made = backend.call("EnvfsKms.CreateForeignKey" if place else "CreateKey", request)["KeyMetadata"]
        if name is not None:
            _name(backend, name, made["KeyId"])
        found = with_aliases(backend, fields(made))
    show(found, as_json=as_json)


def _foreign_place(
    key: str | None, region: str | None, endpoint_url: str | None, profile: str | None
) -> dict[str, str]:
    """Where a foreign key is, as the request says it; empty for a key of this KMS."""
    if key is None:
        if region or endpoint_url or profile:
            raise click.UsageError("--region, --endpoint-url and --profile say where the key of --foreign is")
        return {}
    if region is None:
        parts = key.split(":")
        if len(parts) < 6 or not parts[3]:
            raise click.UsageError("--region is missing; only an ARN says it as well")
        region = parts[3]
    found = {"ForeignKeyId": key, "Region": region, "EndpointUrl": endpoint_url, "Profile": profile}
    return {name: value for name, value in found.items() if value}


def _ready_made_policy(
    backend: Backend, admins: tuple[str, ...], users: tuple[str, ...], spec: str, usage: str | None
) -> str:
    _, found = check_new_key(spec, usage)
    account = account_of(backend)
    return administrators_and_users_policy(account, arns_of(account, admins), arns_of(account, users), found, spec)


def _check_free(backend: Backend, name: str) -> None:
    """Refuse a taken alias before a key is made that would then be left without one."""
    try:
        taken = any(alias["AliasName"] == name for alias in every(backend, "ListAliases", {}, "Aliases"))
    except AccessDenied:
        return  # not allowed to look; creating it will tell
    if taken:
        raise AlreadyExists(f"the alias {name} exists", hint=f"envfs key show {name}")


def _name(backend: Backend, name: str, key_id: str) -> None:
    try:
        backend.call("CreateAlias", {"AliasName": name, "TargetKeyId": key_id})
    except EnvfsError as error:
        error.hint = f"the key {key_id} was made all the same, without an alias"
        raise
