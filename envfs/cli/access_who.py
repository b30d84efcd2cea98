"""`envfs access who-can` and `envfs access matrix`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from envfs.cli import access_check
from envfs.cli.access_target import open_in_mount
from envfs.cli.arguments import PATH
from envfs.cli.output import examples, json_option, print_json, print_table, printable
from envfs.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from envfs.service.client import OpenPath

MAX_DIRECTORIES = 200
_LEGEND = "r read, w write, c create; ! the KMS would allow it, and the Unix modes do not; - the KMS does not"

_users_option = click.option(
    "--user", "users", multiple=True, metavar="USER", help="Only this one. May be repeated.  [default: see above]"
)
_all_option = click.option("--all", "show_all", is_flag=True, help="Also those who can do nothing.")


@click.command(
    "who-can",
    epilog=examples(
        "envfs access who-can /srv/data/payroll/may.ods",
        "envfs access who-can /srv/data/payroll --user bob --user carol",
    ),
)
@click.argument("path", type=PATH)
@_users_option
@_all_option
@json_option
def who_can(path: Path, users: tuple[str, ...], *, show_all: bool, as_json: bool) -> None:
    """Say who can open PATH, and by what.

    Of a directory: who can make files in it, and read and write those that are made now. Asked about are all users whom
    the policies and grants name, the members of groups that they name, and where everybody may, the people in
    /etc/passwd. Root, the KMS's owner, and who administers the key may ask.
    """
    with open_in_mount(path) as opened:
        accesses = access_check.accesses_of(opened)
        names, notes = _users(opened, users)
        checked = access_check.check(opened, names, accesses) if names else []
    shown = [one for one in checked if show_all or users or _has_any(one)]
    if as_json:
        print_json({"path": str(path), "users": shown, "notes": notes})
        return
    if shown:
        rows = [[one["user"], *(_cell(one, access) for access in accesses), _by(one)] for one in shown]
        print_table(["USER", *(access.upper() for access in accesses), "BY"], rows)
    else:
        click.echo("nobody")
    _print_notes(notes)


@click.command(epilog=examples("envfs access matrix /srv/data", "envfs access matrix /srv/data --depth 2 --json"))
@click.argument("path", metavar="DIR", type=PATH)
@click.option(
    "--depth",
    type=click.IntRange(0, 20),
    default=1,
    show_default=True,
    help="How far below DIR to go; 0 is DIR alone.",
)
@_users_option
@_all_option
@json_option
def matrix(path: Path, depth: int, users: tuple[str, ...], *, show_all: bool, as_json: bool) -> None:
    """Show who can do what in DIR and the directories in it.

    Asked about are the users whom who-can asks about. The files there may have been made with other keys and labels:
    who-can tells of each.
    """
    directories, notes = _directories(path, depth)
    names, more = set(users), set()
    table: dict[str, dict[str, Any]] = {}
    if not users:
        for directory in directories:
            with open_in_mount(directory) as opened:
                found, told = access_check.relevant_users(opened)
            names |= set(found)
            more |= set(told)
    ordered = sorted(names)[: access_check.MAX_USERS]
    for directory in directories:
        with open_in_mount(directory) as opened:
            for one in access_check.check(opened, ordered, access_check.DIRECTORY_ACCESSES) if ordered else ():
                table.setdefault(one["user"], {})[str(directory)] = one
    if not show_all and not users:
        table = {user: row for user, row in table.items() if any(map(_has_any, row.values()))}
    notes += sorted(more)
    if as_json:
        cells = {user: {name: _plain(one) for name, one in row.items()} for user, row in table.items()}
        print_json({"directories": [str(one) for one in directories], "users": cells, "notes": notes})
        return
    if table:
        headings = ["USER", *(printable(os.path.relpath(one, path)) for one in directories)]
        print_table(
            headings, [[user, *(_letters(row[str(one)]) for one in directories)] for user, row in table.items()]
        )
        click.echo(_LEGEND)
    else:
        click.echo("nobody")
    _print_notes(notes)


def _users(opened: OpenPath, users: tuple[str, ...]) -> tuple[list[str], list[str]]:
    if not users:
        return access_check.relevant_users(opened)
    for user in users:
        access_check.login_of(user)
    return list(dict.fromkeys(users)), []


def _directories(top: Path, depth: int) -> tuple[list[Path], list[str]]:
    """DIR and what lies below it, by levels; bounded."""
    with open_in_mount(top) as opened:
        if "create" not in access_check.accesses_of(opened):
            raise ConfigError(f"{top} is no directory", hint="envfs access who-can tells of a file")
    found, level = [top], [top]
    notes: list[str] = []
    for _ in range(depth):
        level = [below for directory in level for below in _below(directory, notes)]
        found += level
        if len(found) > MAX_DIRECTORIES:
            notes.append(f"more than {MAX_DIRECTORIES} directories: only the first are told")
            return found[:MAX_DIRECTORIES], notes
    return found, notes


def _below(directory: Path, notes: list[str]) -> Iterator[Path]:
    try:
        with os.scandir(directory) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError as error:
        notes.append(f"{directory}: {error.strerror}")
        return
    for name in names:
        yield directory / name


def _has_any(one: dict[str, Any]) -> bool:
    return any(outcome["allowed"] or outcome["kms"] for outcome in one.get("access", {}).values())


def _cell(one: dict[str, Any], access: str) -> str:
    outcome = one.get("access", {}).get(access)
    if outcome is None:
        return "no"
    if outcome["allowed"]:
        return "yes"
    return "not by mode" if outcome["kms"] else "no"


def _by(one: dict[str, Any]) -> str:
    """What decides: of what is allowed, else of what is not."""
    if "problem" in one:
        return str(one["problem"])
    outcomes = list(one["access"].values())
    texts = [outcome["text"] for outcome in outcomes if outcome["kms"]] or [outcome["text"] for outcome in outcomes]
    return "; ".join(dict.fromkeys(texts))


def _letters(one: dict[str, Any]) -> str:
    letters = ""
    for access, outcome in one.get("access", {}).items():
        letters += access[0] if outcome["allowed"] else "!" if outcome["kms"] else "-"
    return letters or "---"


def _plain(one: dict[str, Any]) -> dict[str, Any]:
    if "problem" in one:
        return {"problem": one["problem"]}
    return {
        access: {"allowed": outcome["allowed"], "kms": outcome["kms"], "unix": outcome["unix"], "by": outcome["text"]}
        for access, outcome in one["access"].items()
    }


def _print_notes(notes: list[str]) -> None:
    for note in notes:
        click.echo(printable(f"note: {note}"))
