"""What the documents and the helps show can be typed: every command is there, with these options and arguments."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from envfs.cli.main import envfs
from tests.cli.test_help import ALL

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]


def command_lines(text: str) -> Iterator[str]:
    """The calls of `envfs` in the indented lines of a page or a help."""
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        if not line.startswith("  "):
            continue
        for part in re.split(r"&&|[;|]", line.partition("  #")[0]):
            words = part.split()
            while words and re.fullmatch(r"\w+=\S*", words[0]):  # variables for this one command
                words.pop(0)
            if words[:1] == ["envfs"] and not any(mark in part for mark in ("…", "...", "[")):
                yield part.strip()


SHOWN = sorted(
    {
        *(line for page in PAGES for line in command_lines(page.read_text())),
        *(line for _, command in ALL for line in command_lines((command.epilog or "").replace("\b", ""))),
    }
)


def test_they_are_found() -> None:
    assert len(SHOWN) > 100
    assert "envfs key create --alias payroll --admin alice --user bob --user @finance" in SHOWN


@pytest.mark.parametrize("line", SHOWN)
def test_it_can_be_typed(line: str) -> None:
    words = shlex.split(line, comments=True)
    words = [word for word in words[words.index("envfs") + 1 :] if not word.startswith(">")]  # where the shell puts it
    command: click.Command = envfs
    while isinstance(command, click.Group):
        found = command.get_command(click.Context(command), words[0])
        assert found is not None, words[0]
        command = found
        words.pop(0)
    context = click.Context(command)
    _, left, _ = command.make_parser(context).parse_args(words)  # raises UsageError for what it does not know
    assert left == []
