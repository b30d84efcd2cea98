"""Handing a recovery key to its owner: on the terminal, or in a file, this one time."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from envfs.cli.arguments import PATH
from envfs.crypto.secret import Secret
from envfs.errors import ConfigError
from envfs.kms.recovery_key import SEED_SIZE, encode_recovery_key

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    T = TypeVar("T")

recovery_key_file_option = click.option(
    "--recovery-key-file",
    type=PATH,
    metavar="F",
    help="Write the recovery key to F, a new file, instead of showing it.",
)
no_recovery_key_option = click.option("--no-recovery-key", is_flag=True, help="Make no recovery key.")


def with_recovery_key(file: Path | None, make: Callable[[Secret | None], T], *, unwanted: bool) -> T:
    """Calls `make` with a new recovery key and hands that to the user afterwards; with None where it is `unwanted`, or
    where nobody would see it: then stderr says so.

    A file is written before anything is made, and gone again if that fails: there is no key that nobody has.
    """
    if unwanted or (file is None and not _is_seen()):
        made = make(None)
        if not unwanted:
            click.echo(
                "No recovery key was made: there is no terminal to show it on."
                " Make one with: envfs kms slot add recovery --recovery-key-file F",
                err=True,
            )
        return made
    with Secret.random(SEED_SIZE) as seed:
        text = encode_recovery_key(seed)
        if file is None:
            made = make(seed)
            show(text)
            return made
        write_new_secret(file, f"{text}\n".encode("ascii"))
        try:
            return make(seed)
        except BaseException:
            file.unlink(missing_ok=True)
            raise


def show(text: str) -> None:
    """The recovery key, for a human with a pen."""
    click.echo(f"\nRecovery key:  {text}\n")
    click.echo(
        "It opens the KMS in place of the key file or passphrase. Write it down, or print it, and keep it in another"
    )
    click.echo("place than this machine. It is not shown again; envfs kms slot add recovery makes another one.\n")


def write_new_secret(path: Path, content: bytes) -> None:
    """A file that was not there before, for its owner alone, on the disk when this returns. ConfigError, OSError."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o400)
    except FileExistsError:
        raise ConfigError(
            f"{path} is there already", hint="name a new file: what is there is not overwritten"
        ) from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)


def _is_seen() -> bool:
    return sys.stdout.isatty()
