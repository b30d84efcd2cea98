"""`envfs import` and `envfs export`."""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING, Any, Self

import click

from envfs.cli.arguments import PATH
from envfs.cli.exit_codes import ExitCode
from envfs.cli.output import examples, json_option, print_json, printable
from envfs.service.transfer import places
from envfs.service.transfer.report import Outcome, Wishes
from envfs.service.transfer.tree import TreeCopy, measure, notes_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from envfs.service.transfer.report import Report


def _options(command: Callable[..., int]) -> Callable[..., int]:
    """What both have in common."""
    for option in (
        click.option("--dry-run", is_flag=True, help="Only say what would be copied."),
        click.option("--replace", is_flag=True, help="Where DST has something else, SRC wins."),
        click.option("--compare", is_flag=True, help="Read also what seems to be there already, and compare."),
        click.option(
            "--jobs", type=click.IntRange(1, 64), default=min(8, os.cpu_count() or 1), metavar="N", help="Threads."
        ),
        json_option,
    ):
        command = option(command)
    return command


@click.command("import", epilog=examples("envfs import /srv/plain /srv/data/projects"))
@click.argument("source", metavar="SRC", type=PATH)
@click.argument("target", metavar="DST", type=PATH)
@_options
def import_tree(
    source: Path, target: Path, jobs: int, *, dry_run: bool, replace: bool, compare: bool, as_json: bool
) -> int:
    """Copy the tree SRC into DST, a directory in a mount.

    DST gets what SRC has: content, owner, modes, times, extended attributes, links and holes. Each file is read back
    and compared before it gets its name. After an interruption, the same command does the rest. The exit code is 8 if
    something could not be copied, and 5 if something was not the same when it was read back.
    """
    device = places.check_import(source, target)
    wishes = Wishes(jobs=jobs, dry_run=dry_run, replace=replace, compare=compare, device=device)
    return _copy(source, target, wishes, eio_is_damage=False, as_json=as_json)


@click.command("export", epilog=examples("envfs export /srv/data/projects /mnt/usb/projects"))
@click.argument("source", metavar="SRC", type=PATH)
@click.argument("target", metavar="DST", type=PATH)
@_options
def export_tree(
    source: Path, target: Path, jobs: int, *, dry_run: bool, replace: bool, compare: bool, as_json: bool
) -> int:
    """Copy SRC, a directory in a mount, to the plaintext tree DST.

    The same as import, the other way round. Nothing of DST is open to more people than SRC, from the first byte on.
    What is copied is no longer protected.
    """
    places.check_export(source, target)
    wishes = Wishes(jobs=jobs, dry_run=dry_run, replace=replace, compare=compare)
    return _copy(source, target, wishes, eio_is_damage=True, as_json=as_json)


def _copy(source: Path, target: Path, wishes: Wishes, *, eio_is_damage: bool, as_json: bool) -> int:
    with _Progress(source, quiet=as_json) as progress:
        report = TreeCopy(source, target, wishes, progress.advance, eio_is_damage=eio_is_damage).run()
    if as_json:
        print_json(_as_json(report, dry_run=wishes.dry_run))
    else:
        _print(report, dry_run=wishes.dry_run)
    if report.is_damaged:
        return ExitCode.DAMAGED
    return ExitCode.OK if report.is_complete else ExitCode.SYSTEM


class _Progress:
    """A bar of bytes on stderr, if that is a terminal."""

    def __init__(self, source: Path, *, quiet: bool) -> None:
        self._lock = threading.Lock()
        self._bar: Any = None
        if not quiet and sys.stderr.isatty():
            self._bar = click.progressbar(length=measure(source), label="copying", file=sys.stderr)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._bar is not None:
            self._bar.__exit__(*exc_info)

    def advance(self, size: int) -> None:
        if self._bar is not None and size:
            with self._lock:
                self._bar.update(size)


def _as_json(report: Report, *, dry_run: bool) -> dict[str, Any]:
    return {
        "complete": report.is_complete,
        "dry_run": dry_run,
        **{outcome.value: report.entries[outcome] for outcome in Outcome},
        "bytes_copied": report.bytes_copied,
        "not_kept": dict(sorted(report.not_kept.items())),
        "notes": [{"outcome": what, "path": path, "detail": why} for what, path, why in notes_of(report)],
        "stopped": report.stopped,
        "next": report.next_step,
    }


def _print(report: Report, *, dry_run: bool) -> None:
    for outcome, path, detail in notes_of(report):
        click.echo(printable(f"{outcome}: {path}: {detail}"), err=True)
    counts = ", ".join(f"{report.entries[outcome]} {outcome.value}" for outcome in Outcome if report.entries[outcome])
    click.echo(f"{'would be: ' if dry_run else ''}{counts or 'nothing'}; {report.bytes_copied} bytes of content")
    if report.not_kept:
        lost = ", ".join(f"{what} of {count}" for what, count in sorted(report.not_kept.items()))
        click.echo(printable(f"not kept: {lost}"))
    if report.stopped:
        click.echo(printable(f"envfs: {report.stopped}"), err=True)
        click.echo(f"  next: {report.next_step}", err=True)
