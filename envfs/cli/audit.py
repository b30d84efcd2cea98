"""`envfs audit`."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import click

from envfs.cli.audit_question import PAGE, QUERY, question_of, question_options, records
from envfs.cli.audit_record import line_of
from envfs.cli.backend import open_backend
from envfs.cli.lazy import Lazy, LazyGroup
from envfs.cli.output import examples, json_option
from envfs.cli.passphrase import passphrase_file_option

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

LOOK_EVERY = 2.0  # seconds between two looks of `tail -f`; each of them is a record itself

COMMANDS = {
    "query": Lazy("envfs.cli.audit", "query", "Show the records that fit all of what is asked, oldest first."),
    "tail": Lazy("envfs.cli.audit", "tail", "Show the newest records, the oldest of them first."),
    "report": Lazy("envfs.cli.audit_report", "report", "Say who opened what, what was denied, and what was changed."),
    "export": Lazy("envfs.cli.audit_export", "export", "Hand the records on: to a file, to syslog or to journald."),
    "verify": Lazy("envfs.cli.audit_proof", "verify", "Check that no record was changed, removed or reordered."),
    "checkpoint": Lazy(
        "envfs.cli.audit_proof", "checkpoint", "Write down where the trail stands, to be kept elsewhere."
    ),
    "durable": Lazy("envfs.cli.audit_proof", "durable", "Have every record on the disk before a key is released."),
}


@click.group(cls=LazyGroup, table=COMMANDS)
def audit() -> None:
    """Show and check what was asked of the KMS.

    Each call is a record, also one that was denied. With --json each record is one line of JSON, as CloudTrail has it.
    """


@click.command(epilog=examples("envfs audit tail", "envfs audit tail -f --json"))
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


@click.command(
    epilog=examples(
        "envfs audit query --user bob --since yesterday --path /mnt/data/finance --denied",
        "envfs audit query --key alias/payroll --event Decrypt --json",
    )
)
@question_options
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most so many.  [default: all]")
@passphrase_file_option
@json_option
def query(limit: int | None, passphrase_file: Path | None, *, as_json: bool, **wanted: Any) -> None:
    """Show the records that fit all of what is asked, oldest first."""
    question = question_of(**wanted)
    with open_backend(passphrase_file) as backend:
        _print(records(backend, question, limit), as_json=as_json)


def _print(found: Iterable[dict[str, Any]], *, as_json: bool) -> None:
    for record in found:
        click.echo(json.dumps(record) if as_json else line_of(record))
