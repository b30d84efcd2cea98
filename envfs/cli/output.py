"""What the command line prints: results on stdout, for people or as JSON; errors on stderr, with their next step."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import click

from envfs.errors import AccessDenied, EnvfsError, InvalidCiphertext, KmsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")


def print_json(value: object) -> None:
    """One JSON document, keys in the order given; pure ASCII, so that names that are no Unicode get through, too."""
    click.echo(json.dumps(value, indent=2))


def print_fields(fields: Mapping[str, Any]) -> None:
    """One thing: a line for each field, the names aligned. `None` shows as "-"."""
    width = max(len(_title(name)) for name in fields)
    for name, value in fields.items():
        click.echo(f"{_title(name):{width}}  {_text(value)}")


def print_table(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Many things: aligned columns under headings."""
    lines = [list(headings), *([_text(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    for line in lines:
        click.echo("  ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())


def print_error(error: BaseException) -> None:
    """The message, and the next step below it."""
    for line in describe_error(error):
        click.echo(line, err=True)


def describe_error(error: BaseException) -> list[str]:
    """The lines that tell of an error."""
    hint = ""
    if isinstance(error, EnvfsError):
        message, hint = error.message, error.hint
        if isinstance(error, KmsError):
            message = f"{message} ({error.code})" if message else error.code
        if isinstance(error, InvalidCiphertext):  # which of the two, the KMS does not say
            hint = hint or "if the encryption context (--context) is the right one, the ciphertext is damaged"
        if isinstance(error, AccessDenied):
            hint = hint or "who administers the key or the KMS can allow it: envfs grant create, key policy, iam"
    elif isinstance(error, OSError):
        reason = error.strerror or str(error)
        named = isinstance(error.filename, str | bytes)
        message = f"{os.fsdecode(error.filename)}: {reason}" if named else reason
    else:
        message = str(error)
    lines = [f"envfs: {message or type(error).__name__}", *([f"  next: {hint}"] if hint else [])]
    return [printable(line) for line in lines]


def _title(name: str) -> str:
    return name.replace("_", " ")


def _text(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key}={_text(item)}" for key, item in value.items()) or "-"
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value)) or "-"
    return printable(str(value))


def printable(text: str) -> str:
    """Names come from users: what would steer a terminal, or is no Unicode, is shown escaped."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode() for char in text
    )


def examples(*lines: str) -> str:
    """The end of a command's help. The backspace keeps click from rewrapping (its documented mark)."""
    return "\b\n" + "\n".join(("Example:", *(f"  {line}" for line in lines)))
