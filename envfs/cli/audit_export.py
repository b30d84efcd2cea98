"""`envfs audit export`: the trail for other systems, in CloudTrail's shape."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from envfs.cli.audit_question import DENIED, pages, question_of, question_options
from envfs.cli.audit_record import line_of
from envfs.cli.audit_summary import ALARMS, key_of, user_of
from envfs.cli.backend import open_backend
from envfs.cli.output import examples
from envfs.cli.passphrase import passphrase_file_option
from envfs.cli.private_file import write_privately
from envfs.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import IO, TypeAlias

    Send: TypeAlias = Callable[[dict[str, Any]], None]
    Flush: TypeAlias = Callable[[], None]

LOOK_EVERY = 2.0  # seconds between two looks of --follow; each of them is a record itself
_OWN = ("sequence", "tag", "envfs")  # what CloudTrail has no field for
_LOOKING = "QueryAudit"
_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command(
    epilog=examples(
        "envfs audit export --since yesterday -o trail.jsonl",
        "envfs audit export --syslog tcp:loghost:514 --state /var/lib/envfs-export --follow",
        "envfs audit export --journald --denied --follow",
    )
)
@question_options
@click.option("-o", "--output", type=_FILE, metavar="FILE", help="Append to FILE.  [default: stdout]")
@click.option("--syslog", metavar="WHERE", help="Send to a syslog server: local, udp:HOST:514 or tcp:HOST:514.")
@click.option("--journald", is_flag=True, help="Send to systemd's journal.")
@click.option("--state", type=_FILE, metavar="FILE", help="Go on where the export with the same FILE ended.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written from now on.")
@passphrase_file_option
def export(
    output: Path | None,
    syslog: str | None,
    state: Path | None,
    passphrase_file: Path | None,
    *,
    journald: bool,
    follow: bool,
    **wanted: Any,
) -> None:
    """Hand the records on: to a file, to syslog or to journald.

    One JSON object for each, as CloudTrail has it; what CloudTrail has no field for stands in additionalEventData.
    With --state nothing is left out but who looked at the trail (QueryAudit) as the user of this export, or it would
    find itself for ever. What was under way when an export was killed comes twice.
    """
    if sum((output is not None, syslog is not None, journald)) > 1:
        raise click.UsageError("--output, --syslog and --journald: name one of them")
    question = question_of(**wanted)
    marker = _read_state(state)
    with ExitStack() as stack:
        send, flush = _destination(stack, output, syslog, journald=journald)
        backend = stack.enter_context(open_backend(passphrase_file))
        arn = str(backend.call("EnvfsKms.WhoAmI", {})["Arn"])
        while True:
            for page, behind in pages(backend, question, marker=marker):
                for record in page:
                    if not is_look_of(arn, record):
                        send(record)
                flush()
                marker = behind
                if state is not None:
                    write_privately(state, f"{marker}\n")
            if not follow:
                return
            time.sleep(LOOK_EVERY)


def is_look_of(arn: str, record: dict[str, Any]) -> bool:
    """Whether it only says that this principal looked at the trail, as an export does all the time."""
    return record.get("eventName") == _LOOKING and (record.get("userIdentity") or {}).get("arn") == arn


def cloudtrail(record: dict[str, Any]) -> dict[str, Any]:
    """The record with CloudTrail's fields alone.

    https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-record-contents.html
    """
    own = {name: record[name] for name in _OWN if name in record}
    return {name: value for name, value in record.items() if name not in _OWN} | {"additionalEventData": own}


def _destination(stack: ExitStack, output: Path | None, syslog: str | None, *, journald: bool) -> tuple[Send, Flush]:
    if syslog is not None:
        return _to_syslog(stack, syslog), lambda: None
    if journald:
        return _to_journal(stack), lambda: None
    if output is None:
        return _to_file(sys.stdout), sys.stdout.flush
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    file = stack.enter_context(os.fdopen(descriptor, "a", encoding="ascii"))

    def flush() -> None:
        file.flush()
        os.fsync(file.fileno())  # before the state says that this was handed on

    return _to_file(file), flush


def _to_file(file: IO[str]) -> Send:
    return lambda record: print(json.dumps(cloudtrail(record)), file=file)


def _to_syslog(stack: ExitStack, address: str) -> Send:
    from envfs.service.syslog import NOTICE, WARNING, Syslog  # noqa: PLC0415  (only this way needs it)

    try:
        server = stack.enter_context(Syslog(address, "envfs-audit"))
    except OSError as error:
        raise ConfigError(
            f"nobody takes records at {address}: {error.strerror or error}",
            hint="start the syslog server there, or name another: local, udp:HOST:514 or tcp:HOST:514",
        ) from error

    def send(record: dict[str, Any]) -> None:
        shown = cloudtrail(record)
        severity = WARNING if _is_serious(record) else NOTICE
        for fields in _shorter_and_shorter(shown):
            if server.send(str(record.get("eventTime", "")), str(record.get("eventName", "")), fields, severity):
                return
        raise ConfigError("a record is too long for the syslog server", hint="use tcp:HOST:PORT")

    return send


def _shorter_and_shorter(shown: dict[str, Any]) -> Iterable[str]:
    """The record, and if that is too long for a datagram, without what makes it long."""
    yield json.dumps(shown)
    yield json.dumps({**shown, "requestParameters": {"omitted": True, "reason": "requestParameters too large"}})
    yield json.dumps({name: shown.get(name) for name in ("eventTime", "eventName", "eventID", "userIdentity")})


def _to_journal(stack: ExitStack) -> Send:
    from envfs.service.journal import Journal  # noqa: PLC0415  (only this way needs it)

    try:
        journal = stack.enter_context(Journal())
    except OSError as error:
        raise ConfigError(
            f"systemd's journal does not answer: {error.strerror or error}", hint="use --syslog or -o FILE"
        ) from error

    def send(record: dict[str, Any]) -> None:
        fields = {
            "MESSAGE": line_of(record),
            "PRIORITY": "4" if _is_serious(record) else "5",
            "SYSLOG_IDENTIFIER": "envfs-audit",
            "ENVFS_EVENT": str(record.get("eventName", "")),
            "ENVFS_USER": user_of(record),
            "ENVFS_KEY": key_of(record),
            "ENVFS_ERROR": str(record.get("errorCode", "")),
            "ENVFS_PATH": str(record.get("envfs", {}).get("path", "")),
            "ENVFS_RECORD": json.dumps(cloudtrail(record)),
        }
        journal.send({name: value for name, value in fields.items() if value})

    return send


def _is_serious(record: dict[str, Any]) -> bool:
    return record.get("errorCode") == DENIED or record.get("eventName") in ALARMS


def _read_state(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text(encoding="ascii", errors="replace").strip() or None
    except FileNotFoundError:
        return None
