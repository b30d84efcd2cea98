"""Reading the audit trail: the records that a question is about, in the order of their times.

Only authentic records are told. That some are missing is for `envfs.kms.audit.verify` to find. Memory is bounded by the
number of records that are asked for, however long the trail is.
"""

from __future__ import annotations

import heapq
import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from json.encoder import encode_basestring_ascii as quote
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple, TypeAlias

from envfs.crypto import b64
from envfs.crypto.mac import Mac
from envfs.errors import FormatError, InvalidMarker
from envfs.kms.audit.reader import end_of_lines, read_backwards, read_forwards
from envfs.kms.audit.record import format_time
from envfs.kms.audit.trail import SUFFIX

VOLUME_PAIR: Final = "envfs:volume"  # of every encryption context of a mount (FORMAT.md section 3)
_CHAIN_NAME: Final = re.compile("[0-9a-f]{32}")
_WILDCARDS: Final = {"*": ".*", "?": "."}

ChainMac: TypeAlias = Callable[[bytes], Mac]
"""The MAC of the chain with this id."""


@dataclass(frozen=True, slots=True)
class Question:
    """What records have to be. None: whatever they may be. Times in seconds since 1970, the first inclusive, the other
    exclusive. `key` is the ARN of a key that the call was about; `error_code` "" means that there was no error; `path`
    is the path of a file or directory within its volume, or of one above it; `*` and `?` in it stand for any
    characters. `volume_id`: of the encryption context, 32 hexadecimal digits.
    """

    start: float | None = None
    end: float | None = None
    event_name: str | None = None
    key: str | None = None
    user_name: str | None = None
    error_code: str | None = None
    path: str | None = None
    volume_id: str | None = None
    _needles: tuple[bytes, ...] = field(init=False, repr=False, compare=False)
    _path_pattern: re.Pattern[str] | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        wanted = {
            "eventName": self.event_name,
            "ARN": self.key,
            "userName": self.user_name,
            "errorCode": self.error_code or None,
            VOLUME_PAIR: self.volume_id,
        }
        needles = [f"{quote(name)}:{quote(value)}".encode() for name, value in wanted.items() if value is not None]
        object.__setattr__(self, "_needles", tuple(needles))
        object.__setattr__(self, "_path_pattern", None if self.path is None else _path_pattern(self.path))

    def may_match(self, line: bytes) -> bool:
        """Whether it is worth while to look at the record in a line: most of a trail is passed over by this."""
        return all(needle in line for needle in self._needles)

    def matches(self, record: dict[str, Any]) -> bool:
        time = record.get("eventTime", "")
        return (
            (self.start is None or time >= format_time(int(self.start)))
            and (self.end is None or time < format_time(int(self.end)))
            and (self.event_name is None or record.get("eventName") == self.event_name)
            and (self.error_code is None or record.get("errorCode", "") == self.error_code)
            and (self.user_name is None or record.get("userIdentity", {}).get("userName") == self.user_name)
            and (self.key is None or any(one.get("ARN") == self.key for one in record.get("resources", ())))
            and (self.volume_id is None or _context(record).get(VOLUME_PAIR) == self.volume_id)
            and (self._path_pattern is None or self._is_at_path(record.get("envfs", {}).get("path")))
        )

    def _is_at_path(self, path: str | None) -> bool:
        return path is not None and self._path_pattern is not None and self._path_pattern.fullmatch(path) is not None


def _context(record: dict[str, Any]) -> dict[str, Any]:
    parameters = record.get("requestParameters") or {}
    found = parameters.get("encryptionContext", {})
    return found if isinstance(found, dict) else {}


def _path_pattern(path: str) -> re.Pattern[str]:
    """The path itself and everything below it."""
    wild = "".join(_WILDCARDS.get(char) or re.escape(char) for char in path.rstrip("/"))
    return re.compile(f"{wild}(/.*)?", re.DOTALL)


Offsets: TypeAlias = dict[str, int]


def query(
    directory: Path,
    chain_mac: ChainMac,
    question: Question,
    *,
    limit: int,
    marker: str | None = None,
    newest: bool = False,
) -> tuple[list[dict[str, Any]], str, bool]:
    """At most `limit` matching records after `marker`, oldest first; the marker behind them; whether there may be more.

    `newest`: the last `limit` ones instead. The marker is there also at the end, so that what is written later can be
    asked for with it.
    """
    offsets = _read_marker(marker)
    with ExitStack() as stack:
        chains = [_Chain(stack.enter_context(path.open("rb")), path.stem, chain_mac) for path in _paths(directory)]
        ends = {chain.name: chain.end for chain in chains}
        if newest:
            streams = [chain.backwards(question) for chain in chains]
            last = heapq.merge(*streams, key=_order, reverse=True)
            return [found.record for found in islice(last, limit)][::-1], _make_marker(offsets | ends), False
        records = []
        streams = [chain.forwards(question, offsets.get(chain.name, 0)) for chain in chains]
        for found in heapq.merge(*streams, key=_order):
            records.append(found.record)
            offsets[found.chain] = found.offset
            if len(records) == limit:
                return records, _make_marker(offsets), True
    return records, _make_marker(offsets | ends), False


class _Found(NamedTuple):
    """A record, and where its chain goes on behind it."""

    time: str
    chain: str
    offset: int
    record: dict[str, Any]


def _order(found: _Found) -> tuple[str, str]:
    return found.time, found.chain


class _Chain:
    """One chain as it is now; what is written later does not count."""

    def __init__(self, file: BinaryIO, name: str, chain_mac: ChainMac) -> None:
        self._file = file
        self._mac = chain_mac(bytes.fromhex(name))
        self.name = name
        self.end = end_of_lines(file)

    def forwards(self, question: Question, offset: int) -> Iterator[_Found]:
        for line, behind in read_forwards(self._file, self._mac, question.may_match, offset, self.end):
            record = json.loads(line)
            if question.matches(record):
                yield _Found(record["eventTime"], self.name, behind, record)

    def backwards(self, question: Question) -> Iterator[_Found]:
        for line in read_backwards(self._file, self._mac, question.may_match, self.end):
            record = json.loads(line)
            if question.matches(record):
                yield _Found(record["eventTime"], self.name, 0, record)


def _paths(directory: Path) -> list[Path]:
    return sorted(path for path in directory.glob(f"*{SUFFIX}") if _CHAIN_NAME.fullmatch(path.stem))


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
        _CHAIN_NAME.fullmatch(name) and type(offset) is int and 0 <= offset < 1 << 63
        for name, offset in offsets.items()
    ):
        raise InvalidMarker("the marker is none that an answer to this question had")
    return offsets
