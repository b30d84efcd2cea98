"""`envfs iam user-policy` and `envfs iam group-policy`, which differ in whose policies they mean."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Literal

import click

from envfs.cli.backend import open_backend
from envfs.cli.output import examples, json_option, print_json
from envfs.cli.passphrase import passphrase_file_option
from envfs.cli.who import arn_of

if TYPE_CHECKING:
    from pathlib import Path

    from envfs.cli.backend import Backend

name_argument = click.argument("name", metavar="NAME")


@click.group()
def user_policy() -> None:
    """Policies attached to a user.

    They count where a key's policy delegates to the account, and for what involves no key.
    """


@click.group()
def group_policy() -> None:
    """Policies attached to a group.

    Each of its members has them, beside his own.
    """


def _add_commands(group: click.Group, kind: Literal["user", "group"], example: str) -> None:
    whom = click.argument("whom", metavar=kind.upper())
    words = f"envfs iam {kind}-policy"

    def target(backend: Backend, name: str) -> str:
        return arn_of(backend, name if kind == "user" else f"@{name.removeprefix('@')}")

    @group.command(
        epilog=examples(f"{words} put {example} list-keys policy.json"), help=f"Attach a policy to a {kind}."
    )
    @whom
    @name_argument
    @click.argument("file", metavar="[FILE]", type=click.File(encoding="utf-8"), default="-")
    @passphrase_file_option
    def put(whom: str, name: str, file: IO[str], passphrase_file: Path | None) -> None:
        """One that has the NAME already is replaced."""
        text = file.read()
        with open_backend(passphrase_file) as backend:
            request = {"Target": target(backend, whom), "PolicyName": name, "PolicyDocument": text}
            backend.call("EnvfsIam.PutPolicy", request)

    @group.command(epilog=examples(f"{words} get {example} list-keys"), help=f"Write a policy of a {kind} to FILE.")
    @whom
    @name_argument
    @click.argument("file", metavar="[FILE]", type=click.File("w", encoding="utf-8", atomic=True), default="-")
    @passphrase_file_option
    def get(whom: str, name: str, file: IO[str], passphrase_file: Path | None) -> None:
        with open_backend(passphrase_file) as backend:
            request = {"Target": target(backend, whom), "PolicyName": name}
            text = backend.call("EnvfsIam.GetPolicy", request)["PolicyDocument"]
        file.write(text if text.endswith("\n") else text + "\n")

    @group.command("list", epilog=examples(f"{words} list {example}"), help=f"List the policies of a {kind}.")
    @whom
    @passphrase_file_option
    @json_option
    def list_policies(whom: str, passphrase_file: Path | None, *, as_json: bool) -> None:
        with open_backend(passphrase_file) as backend:
            names = backend.call("EnvfsIam.ListPolicies", {"Target": target(backend, whom)})["PolicyNames"]
        if as_json:
            print_json({"policies": names})
        else:
            click.echo("\n".join(names) or f"{whom} has no policies; {words} put attaches one")

    @group.command(epilog=examples(f"{words} delete {example} list-keys"), help=f"Take a policy off a {kind}.")
    @whom
    @name_argument
    @passphrase_file_option
    def delete(whom: str, name: str, passphrase_file: Path | None) -> None:
        with open_backend(passphrase_file) as backend:
            backend.call("EnvfsIam.DeletePolicy", {"Target": target(backend, whom), "PolicyName": name})


_add_commands(user_policy, "user", "alice")
_add_commands(group_policy, "group", "finance")
