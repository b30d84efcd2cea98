"""`envfs audit`."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import click

from envfs.cli.audit_record import line_of
from envfs.cli.backend import Backend, open_backend
from envfs.cli.exit_codes import ExitCode
from envfs.cli.findings import print_findings
from envfs.cli.moments import MOMENT
from envfs.cli.output import examples, json_option
from envfs.cli.passphrase import passphrase_file_option

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

QUERY = "EnvfsKms.QueryAudit"
PAGE = 1000
LOOK_EVERY = 2.0  # seconds between two looks of `tail -f`; each of them is a record itself


@click.group()
def audit() -> None:
    """Show and check what was asked of the KMS.

    Each call is a record, also one that was denied. With --json each record is one line of JSON, as CloudTrail has it.
    """


@audit.command(epilog=examples("envfs audit tail", "envfs audit tail -f --json"))
@click.option("-n", "count", type=click.IntRange(0, PAGE), default=10, show_default=True, help="How many records.")
@click.option("-f", "--follow", is_flag=True, help="Go on with those that are written from now on.")
@passphrase_file_option
@json_option
def tail(count: int, passphrase_file: Path | None, *, follow: bool, as_json: bool) -> None:
    """Show the newest records, the oldest of them first."""
    with open_backend(passphrase_file) as backend:
        answer = backend.call(QUERY, {"Limit": max(count, 1), "NewestFirst": True})
        _print(reversed(answer["Records"][:count]), as_json=as_json)
        while follow:
            following = backend.call(QUERY, {"Limit": PAGE, "Marker": answer["NextMarker"]})
            # What looking leaves in the trail itself is passed over, or nothing else would be seen.
            _print((one for one in following["Records"] if one["eventName"] != "QueryAudit"), as_json=as_json)
            answer = following
            if not following["Truncated"]:
                time.sleep(LOOK_EVERY)


@audit.command(
    epilog=examples(
        "envfs audit query --user bob --since 2h",
        "envfs audit query --key alias/payroll --event Decrypt --error AccessDeniedException --json",
    )
)
@click.option("--user", metavar="NAME", help="Of this user.")
@click.option("--key", "key_id", metavar="KEY", help="About this key.")
@click.option("--event", metavar="NAME", help="Of this operation: Decrypt, CreateGrant, ...")
@click.option("--error", metavar="CODE", help="That failed with this error: AccessDeniedException, ...")
@click.option("--since", type=MOMENT, metavar="TIME", help="From 2026-05-01, 2026-05-01T12:00, or 30m, 2h, 7d ago on.")
@click.option("--until", type=MOMENT, metavar="TIME", help="Before that time.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most so many.  [default: all]")
@passphrase_file_option
@json_option
def query(
    user: str | None,
    key_id: str | None,
    event: str | None,
    error: str | None,
    since: float | None,
    until: float | None,
    limit: int | None,
    passphrase_file: Path | None,
    *,
    as_json: bool,
) -> None:
    """Show the records that fit all of what is asked, oldest first."""
    wanted = {
        "UserName": user,
        "KeyId": key_id,
        "EventName": event,
        "ErrorCode": error,
        "StartTime": since,
        "EndTime": until,
    }
    question = {name: value for name, value in wanted.items() if value is not None}
    with open_backend(passphrase_file) as backend:
        _print(_records(backend, question, limit), as_json=as_json)


@audit.command(epilog=examples("envfs audit verify", "envfs audit verify --json"))
@passphrase_file_option
@json_option
def verify(passphrase_file: Path | None, *, as_json: bool) -> ExitCode:
    """Check that no record was changed, removed or reordered.

    The exit code is 0 if all are authentic, and 5 if not; what is wrong, is listed.
    """
    with open_backend(passphrase_file) as backend:
        found = backend.call("EnvfsKms.VerifyAudit", {})
    counts = {"chains": found["Chains"], "records": found["Records"]}
    return print_findings(found["Problems"], found["Notices"], counts, "the audit trail is authentic", as_json=as_json)


def _records(backend: Backend, question: dict[str, Any], limit: int | None) -> Iterator[dict[str, Any]]:
    marker: dict[str, Any] = {}
    left = limit
    while left is None or left > 0:
        answer = backend.call(QUERY, {**question, **marker, "Limit": PAGE if left is None else min(left, PAGE)})
        yield from answer["Records"]
        if not answer["Truncated"]:
            return
        marker = {"Marker": answer["NextMarker"]}
        left = None if left is None else left - len(answer["Records"])


def _print(records: Iterable[dict[str, Any]], *, as_json: bool) -> None:
    for record in records:
        click.echo(json.dumps(record) if as_json else line_of(record))
