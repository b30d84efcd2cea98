"""Manual pages (man(7)) of all commands, out of their own help: `python -m envfs.cli.manual DIRECTORY`."""

from __future__ import annotations

import inspect
import re
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import click

from envfs.cli.exit_codes import MEANINGS
from envfs.cli.main import envfs

if TYPE_CHECKING:
    from collections.abc import Iterator

_VERBATIM = "\b"  # click's mark for a paragraph that is not to be filled


def pages() -> Iterator[tuple[str, str]]:
    """File name and text of each page: envfs.1, envfs-key.1, envfs-key-create.1, …"""
    for path, command, parents in _commands(envfs, ("envfs",), None):
        yield f"{'-'.join(path)}.1", _page(path, command, parents)


def _commands(
    command: click.Command, path: tuple[str, ...], parent: click.Context | None
) -> Iterator[tuple[tuple[str, ...], click.Command, click.Context]]:
    context = click.Context(command, info_name=path[-1], parent=parent)
    if command.hidden:
        return
    yield path, command, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None:
                yield from _commands(child, (*path, name), context)


def _page(path: tuple[str, ...], command: click.Command, context: click.Context) -> str:
    title = "-".join(path)
    summary, _, rest = inspect.cleandoc(command.help or "").partition("\n\n")
    usage = " ".join(command.collect_usage_pieces(context))
    lines = [
        f'.TH "{title.upper()}" 1 "" "envfs {version("envfs")}" "envfs"',
        ".SH NAME",
        f"{_text(title)} \\- {_text(' '.join(summary.split()).rstrip('.'))}",
        ".SH SYNOPSIS",
        f"\\fB{_text(' '.join(path))}\\fR {_text(usage)}",
    ]
    if rest:
        lines += [".SH DESCRIPTION", *_paragraphs(rest)]
    lines += _options(command, context)
    if isinstance(command, click.Group):
        lines += [".SH COMMANDS", *_subcommands(command, path, context)]
    if command.epilog:
        lines += [".SH EXAMPLES", *_paragraphs(command.epilog.split("Exit codes:")[0].replace("Example:\n", ""))]
    lines.append(".SH EXIT STATUS")
    for code, meaning in MEANINGS.items():
        lines += [".TP", f"\\fB{int(code)}\\fR", _text(meaning)]
    if len(path) > 1:
        lines += [".SH SEE ALSO", ".BR " + " (1), ".join(_text(one) for one in ("envfs", "-".join(path[:-1]))) + " (1)"]
    return "\n".join(lines) + "\n"


def _options(command: click.Command, context: click.Context) -> list[str]:
    found = [one.get_help_record(context) for one in command.get_params(context) if isinstance(one, click.Option)]
    lines = [".SH OPTIONS"]
    for record in found:
        if record is not None:
            lines += [".TP", f"\\fB{_text(record[0])}\\fR", _text(" ".join(record[1].split()))]
    return lines


def _subcommands(command: click.Group, path: tuple[str, ...], context: click.Context) -> Iterator[str]:
    for name in command.list_commands(context):
        child = command.get_command(context, name)
        if child is not None and not child.hidden:
            summary = inspect.cleandoc(child.help or "").partition("\n\n")[0]
            yield ".TP"
            yield f".BR {_text('-'.join((*path, name)))} (1)"
            yield _text(" ".join(summary.split()))


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", text.strip("\n")):
        yield ".PP"
        if paragraph.startswith(_VERBATIM):
            yield from (".nf", *(_text(line) for line in paragraph.strip(_VERBATIM).strip("\n").split("\n")), ".fi")
        else:
            yield _text(" ".join(paragraph.split()))


def _text(text: str) -> str:
    """Nothing in it means anything to roff: no escapes, no control line, dashes that can be copied."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    escaped = "".join(char if char.isascii() else f"\\[u{ord(char):04X}]" for char in escaped)
    return f"\\&{escaped}" if escaped.startswith((".", "\\(aq")) else escaped


def main() -> None:
    """Writes all pages into the directory that is named."""
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in pages():
        (directory / name).write_text(text, encoding="ascii")


if __name__ == "__main__":
    main()
