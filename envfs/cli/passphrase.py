"""Where a passphrase comes from: a file, or the terminal; never an argument, which every user could see."""

from __future__ import annotations

import getpass
import os
from pathlib import Path

import click

from envfs.cli.arguments import PATH
from envfs.crypto.secret import Secret
from envfs.errors import ConfigError

FILE_VARIABLE = "ENVFS_PASSPHRASE_FILE"
MAX_BYTES = 4096

passphrase_file_option = click.option(
    "--passphrase-file",
    type=PATH,
    metavar="F",
    help=f"Read the KMS's passphrase from F, without its last newline. [default: ${FILE_VARIABLE}, else ask]",
)


def named_file(given: Path | None) -> Path | None:
    """The file that holds the passphrase: the one given, else ENVFS_PASSPHRASE_FILE; None if there is none."""
    variable = os.environ.get(FILE_VARIABLE, "")
    return given or (Path(variable) if variable else None)


def read_passphrase(given: Path | None) -> Secret:
    """The passphrase, from `named_file` or else from the terminal. ConfigError, OSError."""
    path = named_file(given)
    return _ask("Passphrase of the KMS: ") if path is None else _from_file(path)


def new_passphrase(given: Path | None) -> Secret:
    """A passphrase that is to be set: on the terminal it is asked for twice."""
    path = named_file(given)
    if path is not None:
        return _from_file(path)
    first, second = _ask("New passphrase for the KMS: "), _ask("The same again: ")
    if first != second:
        raise ConfigError("the two passphrases differ", hint="try again")
    second.wipe()
    return first


def _from_file(path: Path) -> Secret:
    with path.open("rb") as file:
        content = bytearray(file.read(MAX_BYTES + 1))
    if content.endswith(b"\n"):
        del content[-1:]
    return _checked(content, f"the passphrase in {path}")


def _ask(prompt: str) -> Secret:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        raise ConfigError(
            "a passphrase is needed and there is no terminal to ask on",
            hint=f"--passphrase-file F, or {FILE_VARIABLE}=F in the environment (-o passphrase_file=F in fstab)",
        ) from None
    return _checked(bytearray(getpass.getpass(prompt).encode()), "the passphrase")


def _checked(content: bytearray, what: str) -> Secret:
    if not content:
        raise ConfigError(f"{what} is empty", hint="an empty passphrase protects nothing")
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{what} has more than {MAX_BYTES} bytes", hint="for a random key use --root-key keyfile")
    return Secret.adopt(content)
