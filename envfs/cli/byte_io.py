"""Bytes from files and stdin, and to files and stdout; base64 where somebody wants text."""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import stat
import sys
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from envfs.cli.arguments import PATH
from envfs.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_INPUT = 64 * 1024  # bytes; more than any operation of the KMS takes, and little enough to read at once

input_argument = click.argument("file", metavar="[FILE]", type=click.File("rb"), default="-")
output_option = click.option(
    "-o",
    "--output",
    type=PATH,
    metavar="FILE",
    callback=lambda _, __, path: None if path == Path("-") else path,
    help="Write to FILE instead of stdout.",
)
base64_option = click.option(
    "--base64", "as_base64", is_flag=True, help="Read or write what is no plaintext as base64."
)


def read_bytes(file: IO[bytes], *, as_base64: bool = False) -> bytes:
    """All of `file`. ConfigError if that is more than the KMS can take, or not base64 though it should be."""
    content = file.read(MAX_INPUT + 1)
    if len(content) > MAX_INPUT:
        raise ConfigError(
            f"{_name(file)} has more than {MAX_INPUT} bytes, which is more than any operation takes",
            hint="encrypt large files under a data key (envfs kms generate-data-key), sign their digest",
        )
    if not as_base64:
        return content
    try:
        return base64.b64decode(b"".join(content.split()), validate=True)
    except binascii.Error:
        raise ConfigError(f"{_name(file)} is not base64", hint="without --base64 it is taken as it is") from None


def encode(content: bytes) -> str:
    """Bytes as the KMS's operations carry them."""
    return base64.b64encode(content).decode("ascii")


def decode(text: str) -> bytes:
    """The bytes in an answer of the KMS."""
    return base64.b64decode(text)


def write_bytes(content: bytes, path: Path | None, *, as_base64: bool = False) -> None:
    """What anybody may see, to `path` or stdout."""
    _write(content, path, as_base64=as_base64, is_text=False, secret=False)


def write_text(content: bytes, path: Path | None) -> None:
    """The same, of what a terminal can show."""
    _write(content, path, as_base64=False, is_text=True, secret=False)


def write_secret(content: bytes, path: Path | None, *, as_base64: bool = False, is_text: bool = True) -> None:
    """What only the caller may see: a file of his own, or stdout. `is_text`: perhaps, which a plaintext mostly is."""
    _write(content, path, as_base64=as_base64, is_text=is_text, secret=True)


def _write(content: bytes, path: Path | None, *, as_base64: bool, is_text: bool, secret: bool) -> None:
    if as_base64:
        content = base64.b64encode(content) + b"\n"
    elif path is None and not is_text and sys.stdout.isatty():
        raise click.UsageError("this is binary and no sight for a terminal: write it to a file (-o FILE), or --base64")
    if path is not None:
        write_file(path, content, secret=secret)
        return
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


def write_file(path: Path, content: bytes, *, secret: bool) -> None:
    """Write `path` whole or not at all. A secret is readable for its owner alone from its first moment on, whatever
    stood there before. Devices and pipes are written to as they are. Raises OSError.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not stat.S_ISREG(path.stat().st_mode):
        path.write_bytes(content)
        return
    mode = 0o600 if secret else _mode_for(path)
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name[:64]}.", dir=path.parent)
    except OSError as error:  # which names a file that nobody knows
        raise OSError(error.errno, error.strerror, os.fspath(path)) from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(content)
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)  # noqa: PTH108
        raise


def pem(label: str, der: bytes) -> bytes:
    """The textual encoding of RFC 7468."""
    text = encode(der)
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""]).encode("ascii")


def der_of(content: bytes) -> bytes:
    """What stands in a PEM text; other bytes as they are (DER). ConfigError for a PEM text that is damaged."""
    if not content.lstrip().startswith(b"-----BEGIN "):
        return content
    lines = content.strip().splitlines()
    try:
        return base64.b64decode(b"".join(line.strip() for line in lines[1:-1]), validate=True)
    except binascii.Error:
        raise ConfigError("the PEM text of the key is damaged", hint="envfs key public writes one") from None


def context_member(name: str, context: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """A context as a member of a request, which an empty one is not."""
    return {name: dict(context)} if context else {}


def _mode_for(path: Path) -> int:
    """The mode that stays, or that a new file gets."""
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        mask = os.umask(0)
        os.umask(mask)
        return 0o666 & ~mask


def _name(file: IO[bytes]) -> str:
    return "stdin" if file is sys.stdin.buffer else str(getattr(file, "name", "the input"))
