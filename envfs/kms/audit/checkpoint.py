"""Checkpoints of the audit trail: where each chain stood at a moment, written down to be kept elsewhere.

Whoever can write the KMS's directory can put all of it back to an older copy, whose store and trail agree. A checkpoint
that he cannot reach gives that away (docs/KMS.md, Audit).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from envfs.crypto.kdf import Label, derive
from envfs.crypto.mac import Mac
from envfs.crypto.secret import Secret
from envfs.errors import IntegrityError, Validation
from envfs.kms.audit.chain import TRAILER_SIZE, Head, chain_mac, claimed_tag, scan
from envfs.kms.audit.trail import SUFFIX
from envfs.kms.schema import AUDIT_CHAINS
from envfs.kms.sealed_store import SealedStore

VERSION: Final = 1
_MOST: Final = 1 << 62  # a number beyond is none that a chain could have


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """`time` in seconds since 1970; `generation` of the store; `heads` by chain id."""

    store_id: bytes
    time: int
    generation: int
    heads: Mapping[bytes, Head]


def checkpoint_mac(root_key: Secret, store_id: bytes) -> Mac:
    """What authenticates the checkpoints of one KMS."""
    return Mac(derive(root_key, Label.AUDIT_CHECKPOINT, store_id))


def take(directory: Path, store: SealedStore, root_key: Secret, store_id: bytes, now: int) -> Checkpoint:
    """Where all chains stand now, each followed from its anchor to its end. IntegrityError if one does not go on from
    its anchor: then there is something to verify, and nothing to write down.
    """
    heads = {}
    for row in store.find(AUDIT_CHAINS):
        path = directory / f"{row.chain_id.hex()}{SUFFIX}"
        anchor = Head(row.sequence, row.tag, row.size)
        try:
            with path.open("rb") as file:
                if not stands_in(file.fileno(), anchor):
                    raise FileNotFoundError
                file.seek(anchor.size)
                heads[row.chain_id] = scan(file, chain_mac(root_key, store_id, row.chain_id), anchor).head
        except FileNotFoundError:
            raise IntegrityError(
                f"the audit trail is not what was anchored: {path.name}", hint="see what is wrong: envfs audit verify"
            ) from None
    return Checkpoint(store_id, now, store.generation, heads)


def stands_in(descriptor: int, head: Head) -> bool:
    """Whether a chain's file has the head's tag where its line ends, as far as the line itself says."""
    if head.size == 0:
        return True
    length = min(head.size, TRAILER_SIZE)
    return claimed_tag(os.pread(descriptor, length, head.size - length)) == head.tag


def to_text(checkpoint: Checkpoint, mac: Mac) -> str:
    """As it is kept: one line of JSON."""
    shown = _fields(checkpoint)
    return json.dumps({**shown, "mac": mac.tag(_canonical(shown)).hex()})


def from_text(text: str, mac: Mac, store_id: bytes) -> Checkpoint:
    """Validation if it is no checkpoint of the KMS with this store id, or was changed."""
    try:
        shown = json.loads(text)
        if shown["version"] != VERSION or bytes.fromhex(shown["kms"]) != store_id:
            raise Validation(
                "the checkpoint is of another KMS, or of another release", hint=f"this is the KMS {store_id.hex()}"
            )
        if not mac.verify(_canonical(shown), bytes.fromhex(shown["mac"])):
            raise ValueError
        heads = {bytes.fromhex(chain): _head(one) for chain, one in shown["chains"].items()}
        return Checkpoint(store_id, _number(shown["time"]), _number(shown["generation"]), heads)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Validation(
            "that is no checkpoint, or it was changed", hint="make one with: envfs audit checkpoint"
        ) from None


def _fields(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "version": VERSION,
        "kms": checkpoint.store_id.hex(),
        "time": checkpoint.time,
        "generation": checkpoint.generation,
        "chains": {
            chain.hex(): {"sequence": head.sequence, "size": head.size, "tag": head.tag.hex()}
            for chain, head in checkpoint.heads.items()
        },
    }


def _canonical(shown: Mapping[str, Any]) -> bytes:
    """What the MAC is of: all but itself."""
    shown = {name: value for name, value in shown.items() if name != "mac"}
    return json.dumps(shown, separators=(",", ":"), sort_keys=True).encode("ascii")


def _head(shown: Mapping[str, Any]) -> Head:
    return Head(_number(shown["sequence"]), bytes.fromhex(shown["tag"]), _number(shown["size"]))


def _number(value: object) -> int:
    if type(value) is not int or not 0 <= value < _MOST:
        raise ValueError(value)
    return value
