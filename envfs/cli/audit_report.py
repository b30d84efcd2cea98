"""`envfs audit report`: the audit trail as somebody reads it who has to answer for it."""

from __future__ import annotations

import contextlib
import datetime as dt
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from envfs.cli.audit_question import question_of, question_options, records
from envfs.cli.audit_summary import ACCESSES, Summary
from envfs.cli.backend import open_backend
from envfs.cli.exit_codes import ExitCode
from envfs.cli.output import examples, json_option, print_json, print_table
from envfs.cli.passphrase import passphrase_file_option
from envfs.cli.private_file import write_privately
from envfs.errors import EnvfsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from envfs.cli.backend import Backend

_OUTPUT = click.Path(dir_okay=False, path_type=Path)


@click.command(
    epilog=examples(
        "envfs audit report --since 30d",
        "envfs audit report --path /mnt/data/finance --since 2026-01-01 --html finance.html",
    )
)
@question_options
@click.option("--html", "html_file", type=_OUTPUT, metavar="FILE", help="Write a page with charts there instead.")
@click.option("--no-verify", is_flag=True, help="Do not check first whether the trail is authentic.")
@passphrase_file_option
@json_option
def report(
    html_file: Path | None, passphrase_file: Path | None, *, no_verify: bool, as_json: bool, **wanted: Any
) -> ExitCode:
    """Say who opened what, what was denied, and what was changed.

    The exit code is 5 if the trail is not authentic; the report says so at its beginning.
    """
    question = question_of(**wanted)
    with open_backend(passphrase_file) as backend:
        verified = None if no_verify else backend.call("EnvfsKms.VerifyAudit", {})
        summary = Summary()
        for record in records(backend, question):
            summary.add(record)
        head = _head(backend, question, verified)
        names = _key_names(backend)
    if html_file is not None:
        from envfs.cli.audit_html import page  # noqa: PLC0415  (only this way needs it)

        write_privately(html_file, page(summary, head, names))
        click.echo(f"{html_file}: {summary.records} records")
    elif as_json:
        print_json({**head, **_plain(summary, names)})
    else:
        _print(summary, head, names)
    return ExitCode.DAMAGED if verified is not None and verified["Problems"] else ExitCode.OK


def _head(backend: Backend, question: Mapping[str, Any], verified: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the report is about, and what it rests on."""
    who = backend.call("EnvfsKms.WhoAmI", {})
    asked = {
        name: dt.datetime.fromtimestamp(value, dt.UTC).isoformat() if name.endswith("Time") else value
        for name, value in question.items()
    }
    trail = "not checked"
    if verified is not None:
        problems = len(verified["Problems"])
        trail = f"NOT authentic: {problems} problems" if problems else "authentic"
    return {
        "made": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "by": who["Arn"],
        "asked": asked,
        "trail": trail,
        "problems": [] if verified is None else verified["Problems"],
    }


def _key_names(backend: Backend) -> dict[str, str]:
    """ARN → alias, of the keys that have one. None, if the caller may not list them."""
    names: dict[str, str] = {}
    marker: dict[str, Any] = {}
    with contextlib.suppress(EnvfsError):
        while True:
            answer = backend.call("ListAliases", {"Limit": 100, **marker})
            for alias in answer["Aliases"]:
                if "TargetKeyId" in alias:
                    arn = alias["AliasArn"].rpartition(":")[0] + f":key/{alias['TargetKeyId']}"
                    names.setdefault(arn, alias["AliasName"])
            if not answer.get("Truncated"):
                break
            marker = {"Marker": answer["NextMarker"]}
    return names


def name_of(key: str, names: Mapping[str, str]) -> str:
    """A key as people know it: by its alias, else by its id."""
    return names.get(key) or key.rpartition("/")[2] or "-"


def _plain(summary: Summary, names: Mapping[str, str]) -> dict[str, Any]:
    """As JSON has it."""
    return {
        "records": summary.records,
        "first": summary.first or None,
        "last": summary.last or None,
        "uses": [
            {
                "user": user,
                "key": key,
                "alias": names.get(key),
                **{access: use.accesses[access] for access in ACCESSES},
                "direct": use.direct,
                "refused": use.refused,
                "files": sorted(use.files),
                "first": use.first,
                "last": use.last,
            }
            for (user, key), use in sorted(summary.uses.items())
        ],
        "refusals": [
            {"user": user, "key": key, "event": event, "path": path or None, **asdict(refusal)}
            for (user, key, event, path), refusal in sorted(summary.refusals.items())
        ],
        "changes": [asdict(change) for change in summary.changes],
        "alarms": [asdict(alarm) for alarm in summary.alarms],
    }


def _print(summary: Summary, head: Mapping[str, Any], names: Mapping[str, str]) -> None:
    span = f"{summary.first} to {summary.last}" if summary.records else "none"
    click.echo(f"Audit report of {head['made']} for {head['by']}")
    click.echo(f"Records: {summary.records} ({span}); the trail is {head['trail']}")
    for problem in head["problems"]:
        click.echo(f"  PROBLEM: {problem}")
    if summary.uses:
        _title("Who used which key")
        rows = [
            (user, name_of(key, names), *(use.accesses[access] for access in ACCESSES),
             use.direct, use.refused, len(use.files), use.first, use.last)
            for (user, key), use in sorted(summary.uses.items())
        ]  # fmt: skip
        print_table(["USER", "KEY", "READ", "WRITE", "CREATE", "DIRECT", "REFUSED", "FILES", "FIRST", "LAST"], rows)
    if summary.refusals:
        _title("What was refused")
        print_table(
            ["USER", "KEY", "WHAT", "TIMES", "LAST", "WHY", "PATH"],
            [
                (user, name_of(key, names), event, refusal.count, refusal.last, refusal.why, path or "-")
                for (user, key, event, path), refusal in sorted(summary.refusals.items())
            ],
        )
    for title, found in (("What was changed", summary.changes), ("Alarms", summary.alarms)):
        if found:
            _title(title)
            rows = [(one.time, one.user, one.event, name_of(one.key, names), one.what) for one in found]
            print_table(["TIME", "USER", "WHAT", "KEY", "DETAILS"], rows)


def _title(text: str) -> None:
    click.echo(f"\n{text}")
