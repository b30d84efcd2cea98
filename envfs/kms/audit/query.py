"""Reading the audit trail: the records that a question is about, in the order of their times.

The records are read as they stand in the files, unverified (`envfs.kms.audit.verify` does that), and a line that is not
complete yet is left for the next time.
"""

from __future__ import annotations

import heapq
import json
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from envfs.crypto import b64
from envfs.errors import FormatError, InvalidMarker
from envfs.kms.audit.record import format_time
from envfs.kms.audit.trail import SUFFIX

_NAME_LENGTH: Final = 32  # hexadecimal digits of a chain's id


@dataclass(frozen=True, slots=True)
class Question:
    """What records have to be. None: whatever they may be. Times in seconds since 1970, the first inclusive, the other
    exclusive. `key` is the ARN of the key that the call was about; `error_code` "" means that there was no error.
    """

    start: float | None = None
    end: float | None = None
    event_name: str | None = None
    key: str | None = None
    user_name: str | None = None
    error_code: str | None = None

    def matches(self, record: dict[str, Any]) -> bool:
        time = record.get("eventTime", "")
        return (
            (self.start is None or time >= format_time(int(self.start)))
            and (self.end is None or time < format_time(int(self.end)))
            and (self.event_name is None or record.get("eventName") == self.event_name)
            and (self.error_code is None or record.get("errorCode", "") == self.error_code)
            and (self.user_name is None or record.get("userIdentity", {}).get("userName") == self.user_name)
            and (self.key is None or any(one.get("ARN") == self.key for one in record.get("resources", ())))
        )


Offsets = dict[str, int]


def query(
    directory: Path, question: Question, *, limit: int, marker: str | None = None, newest: bool = False
) -> tuple[list[dict[str, Any]], str, bool]:
    """At most `limit` matching records after `marker`, oldest first; the marker behind them; whether there may be more.

    `newest`: the last `limit` ones instead. The marker is there also at the end, so that what is written later can be
    asked for with it.
    """
    offsets = _read_marker(marker)
    found: deque[dict[str, Any]] = deque(maxlen=limit)
    streams = [_lines(path, offsets.get(path.stem, 0)) for path in sorted(directory.glob(f"*{SUFFIX}"))]
    try:
        for _, name, offset, record in heapq.merge(*streams, key=lambda line: line[:3]):
            if question.matches(record):
                found.append(record)
            offsets[name] = offset
            if not newest and len(found) == limit:
                return list(found), _make_marker(offsets), True
    finally:
        for stream in streams:
            stream.close()
    return list(found), _make_marker(offsets), False


def _lines(path: Path, offset: int) -> Generator[tuple[str, str, int, dict[str, Any]], None, None]:
    """Time, chain, the offset behind the line, and the record of each complete line from `offset` on."""
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            try:
                record = json.loads(line)
            except ValueError:
                continue  # what a crash cut off; verification accounts for it
            if isinstance(record, dict):
                yield str(record.get("eventTime", "")), path.stem, offset, record


def _make_marker(offsets: Offsets) -> str:
    return b64.encode(json.dumps(offsets, separators=(",", ":")).encode("ascii"))


def _read_marker(marker: str | None) -> Offsets:
    if marker is None:
        return {}
    try:
        offsets = json.loads(b64.decode(marker))
    except (FormatError, ValueError, RecursionError):
        offsets = None
    if not isinstance(offsets, dict) or not all(
        len(name) == _NAME_LENGTH and type(offset) is int and 0 <= offset < 1 << 63 for name, offset in offsets.items()
    ):
        raise InvalidMarker("the marker is none that an answer to this question had")
    return offsets
