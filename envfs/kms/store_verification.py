"""Verification of the whole store, which reports whatever is wrong with it instead of the first thing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from envfs.crypto.mac import Mac
from envfs.errors import IntegrityError
from envfs.kms.digest_tree import LEAVES, LEAVES_OF_NODE, TOP, leaf_digest, node_digest
from envfs.kms.schema import SEALED_TABLES, TREE, SetRow, StateRow, TreeRow, encode_fields
from envfs.kms.sealed_table import SealedTable, macs_by_leaf
from envfs.kms.store import Store


def state_fields(generation: int, rows: Sequence[SetRow]) -> bytes:
    """What the MAC of the state is over; `rows` are sorted by the bytes of their names."""
    return encode_fields(("state", generation, *(value for row in rows for value in row)))


def problems_of_state(mac: Mac, states: Sequence[StateRow], sets: Sequence[SetRow], generation: int) -> list[str]:
    """What is wrong with the state. `generation` was reached before."""
    if len(states) != 1 or not mac.verify(state_fields(states[0].generation, sets), states[0].mac):
        return ["the state of the KMS's store is not authentic"]
    if states[0].generation < generation:
        return ["the KMS's store was put back to an older state"]
    if {row.name for row in sets} != {table.name for table in SEALED_TABLES}:
        return ["the KMS's store has other tables than it should have"]
    return []


def problems_of_table(store: Store, sealed: SealedTable[Any], row: SetRow | None) -> list[str]:
    """What is wrong with a table: its rows, its digest tree, and the row of `sets` that the state vouches for."""
    name = sealed.table.name
    where = f"table {name} of the KMS's store:"
    try:
        raws = store.select(sealed.table, {})
        tree_rows = [TreeRow._make(raw) for raw in store.select(TREE, {"name": name})]
    except IntegrityError as error:
        return [error.message]
    problems: list[str] = []
    for raw in raws:
        try:
            sealed.open_row(raw)
        except IntegrityError as error:
            problems.append(error.message)
    macs = macs_by_leaf(raws)
    children: dict[int, dict[int, bytes]] = {}
    for tree_row in tree_rows:
        if not 0 <= tree_row.number < LEAVES:
            problems.append(f"{where} its digest tree is not authentic (number {tree_row.number})")
            continue
        children.setdefault(tree_row.parent, {})[tree_row.number] = tree_row.digest
    nodes = children.pop(TOP, {})
    stored = {number: (node, digest) for node, leaves in children.items() for number, digest in leaves.items()}
    problems += [
        f"{where} rows were added, removed or put back (leaf {leaf})"
        for leaf in sorted(macs.keys() | stored.keys())
        if stored.get(leaf) != (leaf // LEAVES_OF_NODE, leaf_digest(macs.get(leaf, [])))
    ]
    problems += [
        f"{where} its digest tree is not authentic (node {node})"
        for node in sorted(nodes.keys() | children.keys())
        if nodes.get(node) != node_digest(children.get(node, {}))
    ]
    if row is None or row.digest != node_digest(nodes):
        problems.append(f"{where} its digest tree is not authentic")
    elif row.rows != len(raws):
        problems.append(f"{where} there are {len(raws)} rows instead of {row.rows}")
    return problems
