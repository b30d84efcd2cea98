"""WHO on the command line: a user, `@` and a group, or an ARN."""

from __future__ import annotations

import grp
from typing import TYPE_CHECKING

import click

from envfs.errors import NotFound
from envfs.kms.arn import Account, is_principal_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from envfs.cli.backend import Backend

WHO_AM_I = "EnvfsKms.WhoAmI"


def account_of(backend: Backend) -> Account:
    """The account of the KMS that is asked: what its ARNs are made of."""
    identity = backend.call(WHO_AM_I, {})
    return Account(identity["Partition"], identity["Region"], identity["Account"])


def arn_of(backend: Backend, who: str) -> str:
    """The ARN of WHO in the KMS that is asked. UsageError if WHO cannot be anybody."""
    return who if who.startswith("arn:") else principal_arn(account_of(backend), who)


def arns_of(account: Account, everybody: Iterable[str]) -> list[str]:
    """The ARNs of several who are to be allowed something. NotFound for a group that there is not."""
    arns = {who: principal_arn(account, who) for who in everybody}
    for who in arns:
        check_group(who)
    return list(arns.values())


def check_group(who: str) -> None:
    """NotFound if WHO is a group that there is not: nobody would be allowed, and whoever makes that group, later. (The
    KMS itself sees to that with users.)
    """
    if not who.startswith("@"):
        return
    try:
        grp.getgrnam(who[1:])
    except KeyError:
        raise NotFound(f"there is no Unix group {who[1:]!r} here", hint="getent group lists them") from None


def principal_arn(account: Account, who: str) -> str:
    """The ARN of WHO in `account`."""
    if who.startswith("arn:"):
        return who
    name = who.removeprefix("@")
    if not is_principal_name(name):
        raise click.UsageError(f"{who!r} is nobody: write a user's name, @ and a group's name, or an ARN")
    return account.group_arn(name) if who.startswith("@") else account.user_arn(name)
