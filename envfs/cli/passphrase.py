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
    help="Read the KMS's passphrase, or its recovery key, from F, without its last newline."
    f" [default: ${FILE_VARIABLE}, else ask]",
)


def named_file(given: Path | None) -> Path | None:
    """The file that holds the passphrase: the one given, else ENVFS_PASSPHRASE_FILE; None if there is none."""
    variable = os.environ.get(FILE_VARIABLE, "")
    return given or (Path(variable) if variable else None)


def read_passphrase(given: Path | None, prompt: str = "Passphrase of the KMS: ") -> Secret:
    """The passphrase (or the recovery key), from `named_file` or else from the terminal. ConfigError, OSError."""
    path = named_file(given)
    return ask(prompt) if path is None else _from_file(path)


def new_passphrase(given: Path | None) -> Secret:
    """The passphrase of a new KMS, from `named_file` or else the terminal, where it is asked for twice."""
    return new_passphrase_from(named_file(given))


def new_passphrase_from(path: Path | None) -> Secret:
    """A passphrase that is to be set, from this file; on the terminal it is asked for twice."""
    if path is not None:
        return _from_file(path)
    first, second = ask("New passphrase for the KMS: "), ask("The same again: ")
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


def ask(prompt: str) -> Secret:
    """What somebody types on the terminal, unseen. ConfigError if there is none."""
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
