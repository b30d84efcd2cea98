"""When a key was used last: the newest record of a cryptographic operation on it that succeeded."""

from __future__ import annotations

import calendar
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from envfs.errors import IntegrityError
from envfs.kms.actions import CRYPTOGRAPHIC
from envfs.kms.audit.query import ChainMac
from envfs.kms.audit.reader import end_of_lines, read_backwards
from envfs.kms.audit.trail import SUFFIX
from envfs.kms.model import Usage
from envfs.kms.schema import AuditChainRow

_TIME: Final = b'"eventTime":"'
_TIME_SIZE: Final = len("2023-11-14T22:13:20Z")


def find_last_usage(
    directory: Path, chains: Iterable[AuditChainRow], chain_mac: ChainMac, key_arn: str
) -> Usage | None:
    """None if no record of the trail says that the key was used. IntegrityError if a part of the trail is missing."""
    newest: dict[str, Any] | None = None
    # The chain that was begun last has the newest records, most likely: then little of the others needs to be read.
    for row in sorted(chains, key=lambda row: row.created, reverse=True):
        found = _newest_of(directory / f"{row.chain_id.hex()}{SUFFIX}", chain_mac, row, key_arn, newest)
        newest = found or newest
    return None if newest is None else _usage(newest)


def _newest_of(
    path: Path, chain_mac: ChainMac, row: AuditChainRow, key_arn: str, newest: dict[str, Any] | None
) -> dict[str, Any] | None:
    """The chain's last record of such an operation, if it is newer than `newest`."""
    needle = f'"ARN":"{key_arn}"'.encode("ascii")
    bound = b"" if newest is None else newest["eventTime"].encode("ascii")

    def is_wanted(line: bytes) -> bool:
        return needle in line or _time(line) <= bound  # which ends the search

    try:
        with path.open("rb") as file:
            end = end_of_lines(file)
            if end < row.size:
                raise _incomplete(path)
            for line in read_backwards(file, chain_mac(row.chain_id), is_wanted, end):
                if _time(line) <= bound:
                    return None
                record = json.loads(line)
                if _is_use(record, key_arn):
                    return dict(record)
    except FileNotFoundError:
        raise _incomplete(path) from None
    return None


def _time(line: bytes) -> bytes:
    """The time of a record, as it stands there; it can be compared."""
    start = line.find(_TIME) + len(_TIME)
    return line[start : start + _TIME_SIZE]


def _is_use(record: dict[str, Any], key_arn: str) -> bool:
    return (
        record["eventName"] in CRYPTOGRAPHIC
        and "errorCode" not in record
        and any(one["ARN"] == key_arn for one in record.get("resources", ()))
    )


def _usage(record: dict[str, Any]) -> Usage:
    second = calendar.timegm(time.strptime(record["eventTime"], "%Y-%m-%dT%H:%M:%SZ"))
    return Usage(record["eventName"], second, record["eventID"], record["requestID"])


def _incomplete(path: Path) -> IntegrityError:
    return IntegrityError(
        f"{path.name} of the audit trail is missing or was cut off, so that nobody knows when the key was used last",
        hint="see: envfs audit verify",
    )
