"""`envfs key`."""

from __future__ import annotations

import datetime as dt
from typing import IO, TYPE_CHECKING, Any

import click

from envfs.cli.output import examples, json_option, print_fields, print_json, print_table
from envfs.cli.passphrase import passphrase_file_option
from envfs.cli.session import Session, open_session
from envfs.errors import AccessDenied, AlreadyExists, EnvfsError

if TYPE_CHECKING:
    from pathlib import Path

    from envfs.kms.model import KeyMetadata

ALIAS_PREFIX = "alias/"


@click.group()
def key() -> None:
    """Make and manage customer master keys (CMKs).

    KEY is a key id, an ARN or alias/NAME.
    """


@key.command(epilog=examples("envfs key create --alias payroll --policy policy.json"))
@click.option("--alias", "alias_name", metavar="NAME", help="A name for it: alias/NAME.")
@click.option("--description", default="", help="What it is for.")
@click.option("--policy", type=click.File(encoding="utf-8"), metavar="FILE", help="Its key policy as JSON; - is stdin.")
@passphrase_file_option
@json_option
def create(
    alias_name: str | None, description: str, policy: IO[str] | None, passphrase_file: Path | None, *, as_json: bool
) -> None:
    """Make a symmetric CMK.

    Without --policy it gets the default key policy: the KMS's owner may do everything, and may let others by identity
    policies.
    """
    text = None if policy is None else policy.read()
    with open_session(passphrase_file) as session:
        name = None if alias_name is None else ALIAS_PREFIX + alias_name.removeprefix(ALIAS_PREFIX)
        if name is not None:
            _check_free(session, name)
        made = session.engine.create_key(session.principal, description=description, policy=text)
        if name is not None:
            _name(session, name, made)
        described = _describe(session, made)
    _print(described, as_json=as_json)


@key.command("list", epilog=examples("envfs key list", "envfs key list --json"))
@passphrase_file_option
@json_option
def list_keys(passphrase_file: Path | None, *, as_json: bool) -> None:
    """List the CMKs; of those that you may not describe, only the ids."""
    with open_session(passphrase_file) as session:
        aliases = _aliases(session)
        keys = []
        for entry in session.engine.list_keys(session.principal)[0]:
            try:
                found = _fields(session.engine.describe_key(session.principal, entry.key_id))
            except AccessDenied:
                found = {"key_id": entry.key_id, "arn": entry.arn}
            keys.append(found | {"aliases": aliases.get(entry.key_id, [])})
    if as_json:
        print_json({"keys": keys})
    elif not keys:
        click.echo("there are no keys; envfs key create makes one")
    else:
        columns = ("key_id", "aliases", "state", "manager", "description")
        print_table([name.upper() for name in columns], [[one.get(name) for name in columns] for one in keys])


@key.command(epilog=examples("envfs key show alias/payroll"))
@click.argument("key_id", metavar="KEY")
@passphrase_file_option
@json_option
def show(key_id: str, passphrase_file: Path | None, *, as_json: bool) -> None:
    """Show what a CMK is and which state it is in."""
    with open_session(passphrase_file) as session:
        described = _describe(session, session.engine.describe_key(session.principal, key_id))
    _print(described, as_json=as_json)


@key.command(epilog=examples("envfs key enable alias/payroll"))
@click.argument("key_id", metavar="KEY")
@passphrase_file_option
def enable(key_id: str, passphrase_file: Path | None) -> None:
    """Let a disabled CMK be used again."""
    with open_session(passphrase_file) as session:
        session.engine.enable_key(session.principal, _key_id(session, key_id))


@key.command(epilog=examples("envfs key disable alias/payroll"))
@click.argument("key_id", metavar="KEY")
@passphrase_file_option
def disable(key_id: str, passphrase_file: Path | None) -> None:
    """Let nobody use a CMK until it is enabled again: its files can then not be opened, in no mount."""
    with open_session(passphrase_file) as session:
        session.engine.disable_key(session.principal, _key_id(session, key_id))


@key.group()
def policy() -> None:
    """Show and replace key policies."""


@policy.command(epilog=examples("envfs key policy get alias/payroll policy.json"))
@click.argument("key_id", metavar="KEY")
@click.argument("file", metavar="[FILE]", type=click.File("w", encoding="utf-8", atomic=True), default="-")
@passphrase_file_option
def get(key_id: str, file: IO[str], passphrase_file: Path | None) -> None:
    """Write a CMK's key policy to FILE, or to stdout."""
    with open_session(passphrase_file) as session:
        text = session.engine.get_key_policy(session.principal, _key_id(session, key_id))
    file.write(text if text.endswith("\n") else text + "\n")


@policy.command(epilog=examples("envfs key policy put alias/payroll policy.json"))
@click.argument("key_id", metavar="KEY")
@click.argument("file", metavar="[FILE]", type=click.File(encoding="utf-8"), default="-")
@passphrase_file_option
def put(key_id: str, file: IO[str], passphrase_file: Path | None) -> None:
    """Replace a CMK's key policy by that in FILE, or on stdin.

    It counts at the next open in every running mount. A policy that would not let you change it again is refused.
    """
    text = file.read()
    with open_session(passphrase_file) as session:
        session.engine.put_key_policy(session.principal, _key_id(session, key_id), text)


def _key_id(session: Session, reference: str) -> str:
    """The id of the key that an alias stands for: most operations take no alias."""
    if ALIAS_PREFIX not in reference:
        return reference
    return session.engine.describe_key(session.principal, reference).key_id


def _check_free(session: Session, name: str) -> None:
    """Refuse a taken alias before a key is made that would then be left without one."""
    try:
        taken = any(alias.name == name for alias in session.engine.list_aliases(session.principal)[0])
    except AccessDenied:
        return  # not allowed to look; creating it will tell
    if taken:
        raise AlreadyExists(f"the alias {name} exists", hint=f"envfs key show {name}")


def _name(session: Session, name: str, made: KeyMetadata) -> None:
    try:
        session.engine.create_alias(session.principal, name, made.key_id)
    except EnvfsError as error:
        error.hint = f"the key {made.key_id} was made all the same, without an alias"
        raise


def _aliases(session: Session) -> dict[str, list[str]]:
    """Key id → its aliases; empty where the caller may not list them."""
    found: dict[str, list[str]] = {}
    try:
        for alias in session.engine.list_aliases(session.principal)[0]:
            found.setdefault(alias.target_key_id, []).append(alias.name)
    except AccessDenied:
        pass
    return found


def _describe(session: Session, metadata: KeyMetadata) -> dict[str, Any]:
    return _fields(metadata) | {"aliases": _aliases(session).get(metadata.key_id, [])}


def _fields(metadata: KeyMetadata) -> dict[str, Any]:
    created = dt.datetime.fromtimestamp(metadata.created, dt.UTC)
    return {
        "key_id": metadata.key_id,
        "arn": metadata.arn,
        "state": metadata.state.value,
        "manager": metadata.manager.value,
        "description": metadata.description,
        "created": created.isoformat(),
        "spec": metadata.spec,
        "usage": metadata.usage,
        "origin": metadata.origin,
    }


def _print(described: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(described)
    else:
        print_fields(described)
