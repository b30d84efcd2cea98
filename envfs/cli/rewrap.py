"""`envfs rewrap` and `envfs rekey`: new keys for files that are there."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from envfs.cli.arguments import PATH
from envfs.cli.exit_codes import ExitCode
from envfs.cli.output import examples, json_option, print_json, printable
from envfs.service import client
from envfs.service.errors import MountError

if TYPE_CHECKING:
    from typing import Self

_PATHS = click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=PATH)
_KINDS = {
    "AccessDenied": ExitCode.REFUSED,
    "Disabled": ExitCode.REFUSED,
    "InvalidState": ExitCode.REFUSED,
    "IntegrityError": ExitCode.DAMAGED,
    "FormatError": ExitCode.DAMAGED,
}


@click.command(epilog=examples("envfs rewrap ~/vault/payroll", "envfs rewrap --to alias/archive ~/vault/2019"))
@_PATHS
@click.option("--to", "key", metavar="KEY", help="The CMK to use, instead of the one that new files there get.")
@json_option
def rewrap(paths: tuple[Path, ...], key: str | None, *, as_json: bool) -> int:
    """Put the data keys of files under another CMK, or the newest material of theirs.

    Only headers are written, no content. Everything below a directory is done; its files get the key and the labels
    that new files there get. It goes on beside whatever uses them, and can be repeated: what is done is left alone.
    """
    fields: dict[str, object] = {} if key is None else {"key": key}
    return _run(paths, "rewrap", "rewrapped", as_json=as_json, fields=fields)


@click.command(epilog=examples("envfs rekey ~/vault/payroll", "envfs rekey --to alias/payroll ~/vault/payroll/may.ods"))
@_PATHS
@click.option("--to", "key", metavar="KEY", help="The CMK of the new data keys, instead of the one that a file has.")
@click.option("--anew", is_flag=True, help="Begin with the first file, also if a run was cut off within a day.")
@json_option
def rekey(paths: tuple[Path, ...], key: str | None, *, anew: bool, as_json: bool) -> int:
    """Give files new data keys, and encrypt their content anew.

    It goes on beside whatever uses the files, which keep names, times and everything else. Cut off, it leaves files
    that can be used as before; within a day the same command goes on where it was, and says so.
    """
    fields: dict[str, object] = {"anew": anew} if key is None else {"anew": anew, "key": key}
    return _run(paths, "rekey", "rekeyed", as_json=as_json, fields=fields)


def _run(paths: tuple[Path, ...], operation: str, verb: str, *, as_json: bool, fields: dict[str, object]) -> int:
    totals: dict[str, int] = {}
    problems: list[dict[str, Any]] = []
    for path in paths:
        with client.open_path(path) as opened, _Bar(str(path), quiet=as_json) as bar:
            entry = opened.envfs_mount
            if entry is None:
                raise MountError(f"{path} is not below an envfs mountpoint", hint="mount the volume first")

            def listen(line: dict[str, Any], bar: _Bar = bar) -> None:
                bar.hear(line)
                if "item" in line:
                    problems.append(line["item"])

            found = client.ask(entry, operation, descriptor=opened.descriptor, listener=listen, **fields)
        for name, value in found.items():
            totals[name] = totals.get(name, 0) + value
    if as_json:
        print_json({**totals, "problems": problems})
    else:
        click.echo(_summary(totals, verb))
    return next((_KINDS.get(one["kind"], ExitCode.SYSTEM) for one in problems), ExitCode.OK)


def _summary(totals: dict[str, int], verb: str) -> str:
    parts = [f"{totals.get('done', 0)} files {verb}"]
    words = {"current": "already right", "empty": "empty, without a key", "failed": "failed"}
    parts += [f"{totals[name]} {text}" for name, text in words.items() if totals.get(name)]
    if totals.get("resumed"):
        parts.append("after those of a run that was cut off (--anew does them again)")
    return ", ".join(parts)


class _Bar:
    """A bar on stderr, if that is a terminal, with files per second and the time that is left; and what failed."""

    def __init__(self, path: str, *, quiet: bool) -> None:
        self._path = path
        self._quiet = quiet
        self._shown = sys.stderr.isatty() and not quiet
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            click.echo("\r\033[K", nl=False, err=True)

    def hear(self, line: dict[str, Any]) -> None:
        """One line of the daemon's."""
        if "item" in line:
            item = line["item"]
            if not self._quiet:
                clear = "\r\033[K" if self._shown else ""
                click.echo(clear + printable(f"{item['path']}: {item['problem']}"), err=True)
        elif self._shown:
            click.echo("\r\033[K" + printable(self._text(line["progress"])), nl=False, err=True)

    def _text(self, progress: dict[str, Any]) -> str:
        done = sum(progress.get(name, 0) for name in ("done", "current", "empty", "gone", "failed"))
        rate = done / max(0.1, time.monotonic() - self._began)
        total, size, total_size = progress.get("total"), progress.get("bytes"), progress.get("total_bytes")
        text = f"{self._path}: {done}"
        if total:
            share = min(1.0, size / total_size if size is not None and total_size else done / total)
            filled = round(20 * share)
            text += f" of {total} files [{'#' * filled}{'.' * (20 - filled)}] {share:.0%}"
            if rate > 0 and done < total:
                text += f", {_duration((total - done) / rate)} left"
        else:
            text += " files"
        return f"{text}, {rate:.0f}/s"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
