from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from envfs.errors import IntegrityError
from envfs.kms.digest_tree import EMPTY, LEAVES, TOP, DigestTree, leaf_digest, leaf_number, node_digest
from envfs.kms.schema import SEALED_TABLES, TREE, TreeRow
from envfs.kms.sqlite_store import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

D = [bytes([number]) * 32 for number in range(10)]


class Counting(SqliteStore):
    """Tells how many digests were read."""

    reads = 0

    def select(self, *arguments: object) -> list[tuple[int | str | bytes, ...]]:
        rows = super().select(*arguments)  # type: ignore[arg-type]
        self.reads += len(rows)
        return rows


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Counting]:
    store = Counting.create(tmp_path / "kms.db")
    yield store
    store.close()


def test_digests_are_those_of_the_document() -> None:
    one, two = b"\x01" * 32, b"\x02" * 32
    assert leaf_digest([two, one]) == hashlib.sha256(one + two).digest()
    assert node_digest({258: two, 3: one}) == hashlib.sha256(b"\x00\x03" + one + b"\x01\x02" + two).digest()
    assert node_digest({}) == EMPTY == hashlib.sha256(b"").digest()
    group = hashlib.sha256(b"T\0\0\0\x04pins" + b"I" + (1001).to_bytes(8)).hexdigest()
    assert leaf_number("pins", (1001,)) == int(group[:3], 16)


def test_rows_spread_over_all_leaves_and_tables_do_not_share_them() -> None:
    numbers = [leaf_number("pins", (uid,)) for uid in range(40_000)]
    assert set(numbers) == set(range(LEAVES))
    assert len({leaf_number(table.name, (1,)) for table in SEALED_TABLES}) > len(SEALED_TABLES) // 2


def test_what_is_written_is_read_by_another(store: Counting) -> None:
    tree = DigestTree(store, "keys")
    digest = tree.update({1: D[1], 63: D[2], 64: D[3], 4095: D[4]})
    again = DigestTree(store, "keys")
    again.follow(digest)
    assert again.leaves() == {1: D[1], 63: D[2], 64: D[3], 4095: D[4]}
    assert [again.leaf(number) for number in (0, 1, 64, 4095)] == [None, D[1], D[3], D[4]]
    assert again.update({1: None, 63: None}) == node_digest({1: node_digest({64: D[3]}), 63: node_digest({4095: D[4]})})
    assert tree.update({64: D[3]}) == digest
    tree.follow(node_digest({1: node_digest({64: D[3]}), 63: node_digest({4095: D[4]})}))
    assert tree.leaves() == {64: D[3], 4095: D[4]}
    assert tree.update({64: None, 4095: None}) == EMPTY
    assert store.select(TREE, {"name": "keys"}) == []


def test_one_leaf_takes_few_digests(store: Counting) -> None:
    digest = DigestTree(store, "keys").update({number: D[number % 10] for number in range(LEAVES)})
    tree = DigestTree(store, "keys")
    tree.follow(digest)
    store.reads = 0
    assert tree.leaf(700) == D[0]
    assert store.reads == 128
    assert tree.leaf(701) == D[1]
    tree.follow(tree.update({700: D[9]}))
    assert store.reads == 128
    # Somebody else changes a leaf: one node is another one, the others are as they were.
    other = DigestTree(store, "keys")
    other.follow(tree.update({}))
    digest = other.update({0: D[7]})
    store.reads = 0
    tree.follow(digest)
    assert tree.leaf(702) == D[2]
    assert store.reads == 64
    assert tree.leaf(0) == D[7]
    assert store.reads == 128


@pytest.mark.parametrize(
    "row",
    [
        TreeRow("keys", 0, 1, D[9]),
        TreeRow("keys", 0, 2, D[9]),
        TreeRow("keys", TOP, 0, D[9]),
        TreeRow("keys", TOP, 1, D[9]),
    ],
)
def test_a_digest_that_nobody_sealed_is_refused(store: Counting, row: TreeRow) -> None:
    digest = DigestTree(store, "keys").update({1: D[1], 3: D[3]})
    store.put(TREE, row)
    tree = DigestTree(store, "keys")
    tree.follow(digest)
    for _ in range(2):
        with pytest.raises(IntegrityError, match="keys"):
            tree.leaf(1)
    with pytest.raises(IntegrityError, match="keys"):
        tree.update({1: D[2]})


def test_a_leaf_under_another_node_is_refused(store: Counting) -> None:
    """Even if whoever sealed it put it there: its rows would never be looked at."""
    store.put(TREE, TreeRow("keys", 0, 64, D[1]))
    store.put(TREE, TreeRow("keys", TOP, 0, node_digest({64: D[1]})))
    tree = DigestTree(store, "keys")
    tree.follow(node_digest({0: node_digest({64: D[1]})}))
    with pytest.raises(IntegrityError, match="keys"):
        tree.leaves()
