"""Digests over the rows of one table, in a tree, so that few of them vouch for a few rows (FORMAT.md 9.2).

Each row belongs to one of 4,096 leaves, each leaf to one of 64 nodes. The digests in the store are not authentic by
themselves: they are followed down from the table's digest, which the MAC of the state covers.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Mapping
from typing import Final, NoReturn

from envfs.errors import IntegrityError
from envfs.kms.schema import TREE, TreeRow, Value, encode_fields
from envfs.kms.store import Store

LEAVES: Final = 1 << 12
LEAVES_OF_NODE: Final = 64
TOP: Final = -1  # the parent of a table's nodes; the parent of a leaf is its node

EMPTY: Final = hashlib.sha256().digest()  # the digest of a table without rows

HINT: Final = "somebody changed the database by hand, or it is damaged: restore the KMS from a backup"

_CHILD: Final = struct.Struct(">H")


def leaf_number(table: str, group: Iterable[Value]) -> int:
    """The leaf of the rows of `table` whose group columns have the values `group`."""
    digest = hashlib.sha256(encode_fields((table, *group))).digest()
    return int.from_bytes(digest[:2]) >> 4


def leaf_digest(macs: Iterable[bytes]) -> bytes:
    """The digest of a leaf from the MACs of its rows."""
    return hashlib.sha256(b"".join(sorted(macs))).digest()


def node_digest(children: Mapping[int, bytes]) -> bytes:
    """The digest of a node from those of its leaves, or of a table from those of its nodes, by number; what is empty is
    left out.
    """
    return hashlib.sha256(b"".join(_CHILD.pack(number) + children[number] for number in sorted(children))).digest()


class DigestTree:
    """The digests of one table, as far as they were looked at. `follow` says which digest of the table is the right
    one.
    """

    def __init__(self, store: Store, table: str) -> None:
        self._store = store
        self._table = table
        self._digest = EMPTY
        self._nodes: dict[int, bytes] | None = {}
        # Node → its digest, and the digests of its leaves, which that digest vouches for.
        self._leaves: dict[int, tuple[bytes, dict[int, bytes]]] = {}

    def follow(self, digest: bytes) -> None:
        """From now on the table has this digest. What was verified under another stays where it is the same."""
        if digest != self._digest:
            self._digest = digest
            self._nodes = None

    def forget(self) -> None:
        """Everything is to be read and verified anew."""
        self._nodes = None
        self._leaves.clear()

    def leaf(self, number: int) -> bytes | None:
        """The digest that a leaf must have; None if it must be empty."""
        return self._leaves_of(number // LEAVES_OF_NODE).get(number)

    def leaves(self) -> dict[int, bytes]:
        """The digests of all leaves that are not empty."""
        return {number: digest for node in self._verified_nodes() for number, digest in self._leaves_of(node).items()}

    def update(self, changes: Mapping[int, bytes | None]) -> bytes:
        """Writes new digests of leaves (None: now empty) and what follows from them. Returns the table's new digest."""
        nodes = dict(self._verified_nodes())
        for node in {number // LEAVES_OF_NODE for number in changes}:
            leaves = dict(self._leaves_of(node))
            for number, digest in changes.items():
                if number // LEAVES_OF_NODE == node:
                    self._write(node, number, digest, leaves)
            digest = node_digest(leaves) if leaves else None
            self._write(TOP, node, digest, nodes)
            if digest is not None:
                self._leaves[node] = (digest, leaves)
        self._nodes = nodes
        self._digest = node_digest(nodes)
        return self._digest

    def _write(self, parent: int, number: int, digest: bytes | None, children: dict[int, bytes]) -> None:
        if digest is None:
            children.pop(number, None)
            self._store.delete(TREE, (self._table, parent, number))
        elif children.get(number) != digest:
            children[number] = digest
            self._store.put(TREE, TreeRow(self._table, parent, number, digest))

    def _verified_nodes(self) -> dict[int, bytes]:
        if self._nodes is None:
            nodes = self._children(TOP)
            if node_digest(nodes) != self._digest:
                self._refuse()
            self._nodes = nodes
        return self._nodes

    def _leaves_of(self, node: int) -> dict[int, bytes]:
        digest = self._verified_nodes().get(node)
        if digest is None:
            return {}
        known = self._leaves.get(node)
        if known is not None and known[0] == digest:
            return known[1]
        leaves = self._children(node)
        # A leaf under another node would never be asked for, and its rows would be missed.
        if node_digest(leaves) != digest or any(number // LEAVES_OF_NODE != node for number in leaves):
            self._refuse()
        self._leaves[node] = (digest, leaves)
        return leaves

    def _children(self, parent: int) -> dict[int, bytes]:
        rows = (TreeRow._make(row) for row in self._store.select(TREE, {"name": self._table, "parent": parent}))
        return {row.number: row.digest for row in rows if 0 <= row.number < LEAVES}

    def _refuse(self) -> NoReturn:
        raise IntegrityError(f"table {self._table} of the KMS's store: its digest tree is not authentic", hint=HINT)
