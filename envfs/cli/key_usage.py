"""`envfs key usage`: what hangs on a key, in all volumes of the KMS."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from envfs.cli.arguments import key_argument
from envfs.cli.backend import open_backend
from envfs.cli.output import examples, json_option, print_json, print_table, printable
from envfs.cli.passphrase import passphrase_file_option
from envfs.errors import EnvfsError
from envfs.service import client, mountinfo
from envfs.service.key_usage import count_usage, volume_of
from envfs.service.registry import KnownVolume, known_volumes

if TYPE_CHECKING:
    from pathlib import Path


@click.command(epilog=examples("envfs key usage alias/payroll"))
@key_argument
@passphrase_file_option
@json_option
def usage(key_id: str, passphrase_file: Path | None, *, as_json: bool) -> None:
    """Count what hangs on a CMK: volumes, files and bytes that could not be read without it.

    Volumes are those that were made or mounted with this KMS, as long as they stand where they were.
    """
    with open_backend(passphrase_file) as backend:
        key_arn = backend.call("DescribeKey", {"KeyId": key_id})["KeyMetadata"]["Arn"]
        home = backend.home
    found = find_usage(home, key_arn, quiet=as_json)
    if as_json:
        print_json({"key": key_arn, "volumes": found})
    else:
        print_usage(found)


def find_usage(home: Path, key_arn: str, *, quiet: bool) -> list[dict[str, Any]]:
    """One entry for each volume that is known. Who may not read ENVFS_HOME asks the mounts that run."""
    try:
        known = known_volumes(home)
    except PermissionError:
        return _ask_mounts(home, key_arn, quiet=quiet)
    return [_count(one, key_arn, quiet=quiet) for one in known]


def _count(known: KnownVolume, key_arn: str, *, quiet: bool) -> dict[str, Any]:
    told: dict[str, Any] = {"lower": str(known.lower), "volume_id": known.volume_id.hex()}
    volume = volume_of(known.lower, known.volume_id)
    if volume is None:
        return told | {"problem": "it does not stand there any more, or cannot be read"}
    with _Counter(str(known.lower), quiet=quiet) as counter:
        try:
            counted = count_usage(known.lower, volume, key_arn, counter.show, lambda: False)
        except OSError as error:
            return told | {"problem": error.strerror or str(error)}
    return told | counted.as_dict()


def _ask_mounts(home: Path, key_arn: str, *, quiet: bool) -> list[dict[str, Any]]:
    found = []
    for entry in mountinfo.envfs_mounts():
        try:
            status = client.ask(entry, "status")
            if status.get("kms_home") != str(home):
                continue
            told = {"lower": status["lower"], "volume_id": status["volume_id"]}
            with _Counter(status["lower"], quiet=quiet) as counter:
                found.append(told | client.ask(entry, "key-usage", listener=counter.hear, key=key_arn))
        except (EnvfsError, OSError):
            continue  # somebody else's mount, or a dead one
    return found


def print_usage(found: list[dict[str, Any]]) -> None:
    """A line for each volume, and the sum."""
    if not found:
        click.echo("no volume is known")
        return
    rows = [
        (
            one["lower"],
            one.get("files", "?"),
            one.get("bytes", "?"),
            one.get("problem") or _notes(one),
        )
        for one in found
    ]
    files, size = (sum(one.get(name, 0) for one in found) for name in ("files", "bytes"))
    print_table(("volume", "files", "bytes", "notes"), [*rows, ("all", files, size, "")])


def _notes(one: dict[str, Any]) -> str:
    notes = ["its key of new files"] if one["default"] else []
    if one["directories"]:
        notes.append(f"key of new files in {one['directories']} directories")
    if one["unreadable"]:
        notes.append(f"{one['unreadable']} could not be looked at")
    return ", ".join(notes)


class _Counter:
    """Says on a terminal how many files were looked at."""

    def __init__(self, name: str, *, quiet: bool) -> None:
        self._name = name
        self._shown = sys.stderr.isatty() and not quiet

    def __enter__(self) -> _Counter:  # noqa: PYI034 - a class of this module alone
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            click.echo("\r\033[K", nl=False, err=True)

    def show(self, count: int) -> None:
        if self._shown:
            click.echo(f"\r\033[K{printable(self._name)}: {count} files looked at", nl=False, err=True)

    def hear(self, line: dict[str, Any]) -> None:
        self.show(line.get("progress", {}).get("looked_at", 0))
