"""Checking the audit trail: what was removed, changed or reordered (docs/KMS.md says what can be found, and what
cannot).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from envfs.crypto.secret import Secret
from envfs.kms.audit.chain import START, Head, Leavings, Scan, chain_mac, scan
from envfs.kms.audit.checkpoint import Checkpoint, stands_in
from envfs.kms.audit.trail import AUDIT_DIRECTORY, SUFFIX
from envfs.kms.schema import AUDIT_CHAINS, AuditChainRow
from envfs.kms.sealed_store import SealedStore

_SHOWN: Final = 8  # hexadecimal digits of a chain id that a message shows


@dataclass(frozen=True, slots=True)
class Verification:
    """`problems` are tampering (or a damaged disk); `notices` what a crash leaves behind. Both are sentences. `records`
    are those that were read.
    """

    chains: int
    records: int
    problems: tuple[str, ...]
    notices: tuple[str, ...]

    @property
    def is_intact(self) -> bool:
        return not self.problems


class _Findings:
    def __init__(self) -> None:
        self.records = 0
        self.newest_generation = 0
        self.problems: list[str] = []
        self.notices: list[str] = []


def verify_trail(
    directory: Path, store: SealedStore, root_key: Secret, store_id: bytes, since: Checkpoint | None = None
) -> Verification:
    """Checks all chains, also while others write. IntegrityError if the store that has the anchors is not authentic.

    `since`: what stands before this checkpoint is not read again; but all that it speaks of has to be there.
    """
    # The anchors first: what is written while this runs comes after them.
    rows = store.find(AUDIT_CHAINS)
    heads = {} if since is None else since.heads
    findings = _Findings()
    for row in rows:
        path = directory / f"{row.chain_id.hex()}{SUFFIX}"
        name = _name(row.chain_id)
        start = heads.get(row.chain_id, START)
        try:
            with path.open("rb") as file:
                if not stands_in(file.fileno(), start):
                    findings.problems.append(
                        f"{name}: its first {start.size} bytes do not end as the checkpoint says: records were cut off"
                    )
                    continue
                file.seek(start.size)
                anchor = _Anchor(row, start)
                result = scan(file, chain_mac(root_key, store_id, row.chain_id), start, anchor.visit)
        except FileNotFoundError:
            findings.problems.append(f"{name} is missing")
            continue
        findings.records += result.head.sequence - start.sequence
        findings.newest_generation = max(findings.newest_generation, anchor.newest_generation)
        _judge(findings, name, row, anchor, result)
    _judge_strangers(findings, directory, {f"{row.chain_id.hex()}{SUFFIX}" for row in rows})
    for chain_id in heads.keys() - {row.chain_id for row in rows}:
        findings.problems.append(f"{_name(chain_id)}, of which the checkpoint speaks, is not known to the KMS any more")
    if findings.newest_generation > store.generation:
        findings.problems.append(
            f"the KMS's store was put back: records speak of its generation {findings.newest_generation}, "
            f"it has {store.generation}"
        )
    elif since is not None and since.generation > store.generation:
        findings.problems.append(
            f"the KMS's store was put back: the checkpoint speaks of its generation {since.generation}, "
            f"it has {store.generation}"
        )
    return Verification(len(rows), findings.records, tuple(findings.problems), tuple(findings.notices))


def _name(chain_id: bytes) -> str:
    return f"{AUDIT_DIRECTORY}/{chain_id.hex()[:_SHOWN]}…{SUFFIX}"


class _Anchor:
    """Compares a chain with its anchor on the way."""

    def __init__(self, row: AuditChainRow, start: Head) -> None:
        self._wanted = Head(row.sequence, row.tag, row.size)
        # An anchor before the start was passed when the checkpoint was taken, whose tag follows on it.
        self.is_met = row.size < start.size or self._wanted == start
        self.newest_generation = 0

    def visit(self, line: bytes, head: Head) -> None:
        self.is_met = self.is_met or head == self._wanted
        generation = json.loads(line).get("envfs", {}).get("generation", 0)
        self.newest_generation = max(self.newest_generation, generation)


def _judge(findings: _Findings, name: str, row: AuditChainRow, anchor: _Anchor, result: Scan) -> None:
    if not anchor.is_met:
        findings.problems.append(
            f"{name}: its first {row.size} bytes are not what was anchored: records were changed or cut off"
            f" after record {result.head.sequence}"
        )
    elif row.sealed and (result.head.size != row.size or result.rest is not None):
        findings.problems.append(f"{name}: records were added after it was closed for good")
    for leavings in result.recovered:
        _judge_leavings(findings, name, leavings, recovered=True)
    if result.rest is not None and anchor.is_met and not row.sealed:
        _judge_leavings(findings, name, result.rest, recovered=False)


def _judge_leavings(findings: _Findings, name: str, leavings: Leavings, *, recovered: bool) -> None:
    if leavings.lines:
        findings.problems.append(
            f"{name}: {leavings.lines} lines from byte {leavings.offset} on are not authentic:"
            " changed, removed or reordered"
        )
    else:
        state = "a crash cut off a record" if recovered else "a record is not complete (being written, or cut off)"
        findings.notices.append(f"{name}: {state} at byte {leavings.offset}, {leavings.length} bytes")


def _judge_strangers(findings: _Findings, directory: Path, known: set[str]) -> None:
    if not directory.is_dir():
        return
    for path in sorted(directory.iterdir()):
        if path.name in known:
            continue
        if path.suffix == SUFFIX and path.stat().st_size == 0:
            findings.notices.append(
                f"{AUDIT_DIRECTORY}/{path.name} is empty: a process was killed before it wrote there"
            )
        else:
            findings.problems.append(
                f"{AUDIT_DIRECTORY}/{path.name} is not known to the KMS: the store was put back, or it is not its file"
            )
