"""The keyed chain of audit records: how a line is made, and how a file of lines is checked (FORMAT.md 9.5)."""

from __future__ import annotations

import binascii
import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, Final

from envfs.crypto.kdf import Label, derive
from envfs.crypto.mac import Mac
from envfs.crypto.secret import Secret

TAG_SIZE: Final = 32
RECOVER: Final = "RecoverAuditChain"
_TAG_START: Final = b',"tag":"'
TRAILER_SIZE: Final = len(_TAG_START) + 2 * TAG_SIZE + len(b'"}\n')
# Longer than any record: `record` has bounds, and none that is longer is written.
MAX_LINE: Final = 1 << 20


def chain_mac(root_key: Secret, store_id: bytes, chain_id: bytes) -> Mac:
    """The MAC of one chain's records."""
    return Mac(derive(root_key, Label.AUDIT_CHAIN, store_id + chain_id))


def make_line(mac: Mac, previous_tag: bytes, record: bytes) -> tuple[bytes, bytes]:
    """The line of `record` (a JSON object without its closing brace), and its tag."""
    tag = mac.tag(previous_tag + record)
    return b'%b,"tag":"%b"}\n' % (record, tag.hex().encode("ascii")), tag


def claimed_tag(line: bytes) -> bytes | None:
    """The tag that a line says it has; None if there is none where it should be."""
    if len(line) < TRAILER_SIZE or not line.endswith(b'"}\n') or not line.startswith(_TAG_START, -TRAILER_SIZE):
        return None
    try:
        return binascii.unhexlify(line[-TRAILER_SIZE + len(_TAG_START) : -3])
    except binascii.Error:
        return None


@dataclass(frozen=True, slots=True)
class Head:
    """Where a chain stands: number and tag of its last record, and the file's size after it."""

    sequence: int
    tag: bytes
    size: int


START: Final = Head(0, bytes(TAG_SIZE), 0)


@dataclass(frozen=True, slots=True)
class Leavings:
    """Bytes after a good record that are no good record: a line that a crash cut off, or tampering, which has more
    lines.
    """

    offset: int
    length: int
    lines: int
    sha256: str

    @property
    def parameters(self) -> dict[str, int | str]:
        """What the record that accounts for them says."""
        return {"offset": self.offset, "length": self.length, "sha256": self.sha256}


@dataclass(frozen=True, slots=True)
class Scan:
    """What `scan` found: the head after the last good line, what stands after it, and what later records account
    for.
    """

    head: Head
    rest: Leavings | None = None
    recovered: tuple[Leavings, ...] = ()


def scan(file: BinaryIO, mac: Mac, head: Head, visit: Callable[[bytes, Head], None] | None = None) -> Scan:
    """Checks the lines of `file` from where it stands, which is after `head`, to its end.

    `visit` gets each good line and the head after it. Bytes that are no good line are passed over if a record after
    them accounts for them; otherwise the scan ends before them.
    """
    recovered: list[Leavings] = []
    while line := file.readline(MAX_LINE):
        following = _accept(mac, head, line)
        if following is None:
            leavings, line, following = _pass_over(file, mac, head, line)
            if following is None:
                return Scan(head, leavings, tuple(recovered))
            recovered.append(leavings)
        head = following
        if visit is not None:
            visit(line, head)
    return Scan(head, None, tuple(recovered))


def _pass_over(file: BinaryIO, mac: Mac, head: Head, line: bytes) -> tuple[Leavings, bytes, Head | None]:
    """Looks for the record that accounts for `line` and what follows it."""
    digest = hashlib.sha256(line.removesuffix(b"\n"))
    length, lines, end = len(line), line.count(b"\n"), line[-1:]
    while candidate := file.readline(MAX_LINE):
        following = _accept(mac, Head(head.sequence, head.tag, head.size + length), candidate)
        if following is not None and end == b"\n":
            leavings = Leavings(head.size, length - 1, lines - 1, digest.hexdigest())
            if _accounts_for(candidate, leavings):
                return leavings, candidate, following
        digest.update((end if end == b"\n" else b"") + candidate.removesuffix(b"\n"))
        length, lines, end = length + len(candidate), lines + candidate.count(b"\n"), candidate[-1:]
    if end == b"\n":
        digest.update(end)
    return Leavings(head.size, length, lines, digest.hexdigest()), b"", None


def _accept(mac: Mac, head: Head, line: bytes) -> Head | None:
    record, trailer = line[:-TRAILER_SIZE], line[-TRAILER_SIZE:]
    tag = mac.tag(head.tag + record)
    expected = b'%b%b"}\n' % (_TAG_START, tag.hex().encode("ascii"))
    if not hmac.compare_digest(trailer, expected):
        return None
    return Head(head.sequence + 1, tag, head.size + len(line))


def _accounts_for(line: bytes, leavings: Leavings) -> bool:
    try:
        record = json.loads(line)
        return bool(record["eventName"] == RECOVER and record["requestParameters"] == leavings.parameters)
    except (ValueError, KeyError, TypeError):
        return False
