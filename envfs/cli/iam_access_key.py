"""`envfs iam access-key`."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any

import click

from envfs.cli.answers import as_fields
from envfs.cli.arguments import PATH
from envfs.cli.backend import open_backend
from envfs.cli.byte_io import write_file
from envfs.cli.output import examples, json_option, print_fields, print_json, print_table
from envfs.cli.passphrase import passphrase_file_option
from envfs.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

MAX_SECRET = 1024  # characters
_SHOWN = ("user_name", "access_key_id", "secret_access_key", "status", "create_date")


@click.group()
def access_key() -> None:
    """What AWS tools sign their requests with.

    They need one where they reach the KMS over TCP (`envfs kms serve --tcp`). Over its Unix socket users are known from
    the kernel.
    """


@access_key.command(
    epilog=examples(
        "envfs iam access-key create alice --credentials-file alice.credentials",
        "envfs iam access-key create alice --access-key-id AKIDEXAMPLE --secret-access-key-file secret",
    )
)
@click.argument("user", metavar="USER")
@click.option("--access-key-id", metavar="ID", help="Its id.  [default: a random one]")
@click.option(
    "--secret-access-key-file",
    type=click.File(),
    metavar="F",
    help="Has its secret; - is stdin.  [default: a random one]",
)
@click.option("--credentials-file", type=PATH, metavar="F", help="Write it to F, for AWS_SHARED_CREDENTIALS_FILE.")
@passphrase_file_option
@json_option
def create(
    user: str,
    access_key_id: str | None,
    secret_access_key_file: IO[str] | None,
    credentials_file: Path | None,
    passphrase_file: Path | None,
    *,
    as_json: bool,
) -> None:
    """Give USER an access key.

    Its secret is shown, or written to a file that only you can read, this one time.
    """
    request: dict[str, Any] = {"UserName": user}
    if access_key_id is not None:
        request["AccessKeyId"] = access_key_id
    if secret_access_key_file is not None:
        request["SecretAccessKey"] = _secret(secret_access_key_file)
    with open_backend(passphrase_file) as backend:
        made = backend.call("EnvfsIam.CreateAccessKey", request)["AccessKey"]
    found = {name: value for name, value in as_fields(made).items() if name in _SHOWN}
    if credentials_file is not None:
        secret = found.pop("secret_access_key")
        text = f"[default]\naws_access_key_id = {found['access_key_id']}\naws_secret_access_key = {secret}\n"
        write_file(credentials_file, text.encode(), secret=True)
    elif secret_access_key_file is not None:
        found.pop("secret_access_key", None)  # whoever gave it has it
    if as_json:
        print_json(found)
    else:
        print_fields(found)


@access_key.command("list", epilog=examples("envfs iam access-key list alice"))
@click.argument("user", metavar="USER")
@passphrase_file_option
@json_option
def list_keys(user: str, passphrase_file: Path | None, *, as_json: bool) -> None:
    """List the access keys of USER, without their secrets."""
    with open_backend(passphrase_file) as backend:
        answer = backend.call("EnvfsIam.ListAccessKeys", {"UserName": user})
    found = [as_fields(one) for one in answer["AccessKeyMetadata"]]
    if as_json:
        print_json({"access_keys": found})
    elif not found:
        click.echo(f"{user} has no access keys; envfs iam access-key create gives one")
    else:
        columns = ("access_key_id", "user_name", "create_date")
        print_table(["ACCESS_KEY_ID", "USER", "CREATED"], [[one.get(name) for name in columns] for one in found])


@access_key.command(epilog=examples("envfs iam access-key delete AKIDEXAMPLE"))
@click.argument("access_key_id", metavar="ID")
@passphrase_file_option
def delete(access_key_id: str, passphrase_file: Path | None) -> None:
    """Take an access key away: what is signed with it is refused from then on."""
    with open_backend(passphrase_file) as backend:
        backend.call("EnvfsIam.DeleteAccessKey", {"AccessKeyId": access_key_id})


def _secret(file: IO[str]) -> str:
    secret = file.read(MAX_SECRET + 1).removesuffix("\n")
    if not 1 <= len(secret) <= MAX_SECRET:
        raise ConfigError(f"a secret access key has 1 to {MAX_SECRET} characters", hint="leave it out for a random one")
    return secret
