"""`envfs key policy`."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

import click

from envfs.cli.arguments import key_argument
from envfs.cli.backend import open_backend
from envfs.cli.key_reference import without_alias
from envfs.cli.output import examples
from envfs.cli.passphrase import passphrase_file_option

if TYPE_CHECKING:
    from pathlib import Path


@click.group()
def policy() -> None:
    """Show and replace key policies."""


@policy.command(epilog=examples("envfs key policy get alias/payroll policy.json"))
@key_argument
@click.argument("file", metavar="[FILE]", type=click.File("w", encoding="utf-8", atomic=True), default="-")
@passphrase_file_option
def get(key_id: str, file: IO[str], passphrase_file: Path | None) -> None:
    """Write a CMK's key policy to FILE, or to stdout."""
    with open_backend(passphrase_file) as backend:
        text = backend.call("GetKeyPolicy", {"KeyId": without_alias(backend, key_id)})["Policy"]
    file.write(text if text.endswith("\n") else text + "\n")


@policy.command(epilog=examples("envfs key policy put alias/payroll policy.json"))
@key_argument
@click.argument("file", metavar="[FILE]", type=click.File(encoding="utf-8"), default="-")
@click.option("--bypass-lockout-check", is_flag=True, help="Also if you could not change it again.")
@passphrase_file_option
def put(key_id: str, file: IO[str], passphrase_file: Path | None, *, bypass_lockout_check: bool) -> None:
    """Replace a CMK's key policy by that in FILE, or on stdin.

    It counts at the next open in every running mount. A policy that would not let you change it again is refused.
    """
    request = {"Policy": file.read(), "BypassPolicyLockoutSafetyCheck": bypass_lockout_check}
    with open_backend(passphrase_file) as backend:
        backend.call("PutKeyPolicy", {"KeyId": without_alias(backend, key_id), **request})
