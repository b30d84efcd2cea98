"""`envfs fsck`."""

from __future__ import annotations

import dataclasses
import os
import sys
from typing import TYPE_CHECKING, Any, Self

import click

from envfs.cli.arguments import PATH
from envfs.cli.exit_codes import ExitCode
from envfs.cli.output import examples, json_option, print_json, print_table
from envfs.cli.passphrase import passphrase_file_option
from envfs.cli.session import open_session
from envfs.service.fsck import check_volume, measure

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from envfs.fsck.findings import Report


@click.command(epilog=examples("envfs fsck ~/vault.enc", "envfs fsck ~/vault.enc --read-data --repair"))
@click.argument("lower", type=PATH)
@click.option("--repair", is_flag=True, help="Mend what can be mended, and put aside what cannot. Not while mounted.")
@click.option("--read-data", is_flag=True, help="Read every block of every file, too.")
@click.option(
    "--jobs", type=click.IntRange(1, 64), default=os.cpu_count() or 1, metavar="N", help="Threads that read blocks."
)
@passphrase_file_option
@json_option
def fsck(lower: Path, passphrase_file: Path | None, jobs: int, *, repair: bool, read_data: bool, as_json: bool) -> int:
    """Check the volume in LOWER, and repair it.

    Names, places and headers are checked, with --read-data every block of every file. Without --repair nothing is
    changed, and the volume may be mounted meanwhile. A repair never deletes: what cannot be mended goes to
    envfs.lost+found in LOWER. Files are opened in your name: what the KMS does not let you read is checked from outside
    only. The exit code is 0 if nothing is wrong (any more), else 5.
    """
    with open_session(passphrase_file) as session, _Progress(lower, read_data=read_data, quiet=as_json) as progress:
        report = check_volume(
            lower,
            session.engine,
            session.principal,
            read_data=read_data,
            repair=repair,
            threads=jobs,
            advance=progress.advance,
        )
    if as_json:
        print_json(_as_json(report))
    else:
        _print(report)
    return ExitCode.OK if report.is_clean else ExitCode.DAMAGED


class _Progress:
    """A bar on stderr, if that is a terminal: of bytes where contents are read, else of objects."""

    def __init__(self, lower: Path, *, read_data: bool, quiet: bool) -> None:
        self._read_data = read_data
        self._bar: Any = None
        if not quiet and sys.stderr.isatty():
            objects, size = measure(lower)
            self._bar = click.progressbar(length=size if read_data else objects, label="checking", file=sys.stderr)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._bar is not None:
            self._bar.__exit__(*exc_info)

    @property
    def advance(self) -> Callable[[int, int], None]:
        if self._bar is None:
            return lambda _objects, _size: None
        update, read_data = self._bar.update, self._read_data
        return lambda objects, size: update(size if read_data else objects)


def _as_json(report: Report) -> dict[str, Any]:
    return {
        "clean": report.is_clean,
        **{name: getattr(report, name) for name in ("directories", "files", "symlinks", "others", "bytes_read")},
        "findings": [dataclasses.asdict(finding) for finding in report.findings],
    }


def _print(report: Report) -> None:
    if report.findings:
        rows = [[one.outcome.value, one.problem.value, one.path, one.detail] for one in report.findings]
        print_table(["OUTCOME", "PROBLEM", "PATH", "DETAIL"], rows)
    counted = f"{report.directories} directories, {report.files} files, {report.symlinks} symlinks"
    if report.bytes_read:
        counted += f", {report.bytes_read} bytes of content"
    verdict = "clean" if report.is_clean else "damaged"
    tally = ", ".join(f"{number} {name}" for name, number in report.count().items())
    click.echo(f"{verdict}: {counted}" + (f"; {tally}" if tally else ""))
