"""Vectors of sections 9.2 and 9.4: whole sealed stores, and backing keys."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from envfs.crypto.kdf import Label, derive
from envfs.crypto.mac import mac
from envfs.kms.digest_tree import LEAVES_OF_NODE, TOP, leaf_digest, leaf_number, node_digest
from envfs.kms.schema import SEALED_TABLES, Table, Value, encode_fields
from tests.unit.kms.stores import alias, backing_key, grant, key, key_id
from tests.vectors.material import INTEGRITY_ERROR, Given, VectorFile, fails, fixed, flip, gives, identifier

ROOT_KEY, STORE_ID = fixed("root key"), identifier("store id")
Rows: TypeAlias = list[tuple[Value, ...]]

TABLES: dict[str, Table[Any]] = {table.name: table for table in SEALED_TABLES}
#: Enough for several nodes, for nodes of several leaves, and for leaves of several rows.
LARGE: dict[str, Rows] = {
    "store": [(1, STORE_ID, "envfs", "local", "000000000000", 1000, 1_700_000_000)],
    "keys": [key(number, description="payroll ä" * (number % 2)) for number in range(1, 7)],
    "backing_keys": [backing_key(number, 1 + number % 2) for number in range(1, 5)],
    "aliases": [alias(f"number {number}", number) for number in range(50)],
    "grants": [grant(f"grant {number}", number % 5) for number in range(12)],
    "tags": [(key_id(1), "tier", "gold"), (key_id(1), "project", ""), (key_id(2), "tier", "")],
    "identity_policies": [("alice", "one", "{}", 1), ("alice", "two", "{}", 2), ("bob", "one", "{}", 3)],
    "pins": [(0, "root", 1), (2**31, "nobody", 1)],
}
SMALL: dict[str, Rows] = {"aliases": [alias("a", 1), alias("b", 1), alias("c", 2)], "pins": [(0, "root", 1)]}


@dataclass(frozen=True)
class Sealed:
    """The tables of a store as a database holds them."""

    rows: dict[str, Rows]
    tree: Rows
    sets: Rows
    state: Rows

    def given(self, root_key: bytes = ROOT_KEY, store_id: bytes = STORE_ID) -> Given:
        tables = {**self.rows, "tree": self.tree, "sets": self.sets, "state": self.state}
        readable = {name: [[_readable(value) for value in row] for row in rows] for name, rows in tables.items()}
        return {"root_key": root_key.hex(), "store_id": store_id.hex(), "tables": readable}


def _readable(value: Value) -> int | str:
    return f"0x{value.hex()}" if isinstance(value, bytes) else value


def _key() -> bytes:
    return derive(ROOT_KEY, Label.STORE, STORE_ID)


def _seal_row(name: str, row: tuple[Value, ...]) -> tuple[Value, ...]:
    table = TABLES[name]
    columns = [column for column, _ in table.columns]
    leaf = leaf_number(name, (row[columns.index(column)] for column in table.group_columns))
    return (*row, mac(_key(), encode_fields(("row", name, *row))), leaf)


def _seal_rows(rows: dict[str, Rows]) -> Sealed:
    return _digests({name: [_seal_row(name, row) for row in rows.get(name, [])] for name in TABLES})


def _digests(rows: dict[str, Rows], generation: int = 3) -> Sealed:
    """Digests and state for rows that have MACs and leaf numbers, right or not."""
    tree: Rows = []
    sets: Rows = []
    for name, of_table in rows.items():
        leaves: dict[int, bytes] = {}
        for leaf in {row[-1] for row in of_table}:
            assert isinstance(leaf, int)
            leaves[leaf] = leaf_digest(bytes(row[-2]) for row in of_table if row[-1] == leaf)  # type: ignore[arg-type]
        nodes = {
            node: node_digest({leaf: digest for leaf, digest in leaves.items() if leaf // LEAVES_OF_NODE == node})
            for node in {leaf // LEAVES_OF_NODE for leaf in leaves}
        }
        tree += [(name, leaf // LEAVES_OF_NODE, leaf, digest) for leaf, digest in sorted(leaves.items())]
        tree += [(name, TOP, node, digest) for node, digest in sorted(nodes.items())]
        sets.append((name, generation - len(of_table) % 2, len(of_table), node_digest(nodes)))
    return _state(Sealed(rows, tree, sorted(sets), []), generation)


def _state(sealed: Sealed, generation: int = 3) -> Sealed:
    fields = encode_fields(("state", generation, *(value for row in sealed.sets for value in row)))
    return replace(sealed, state=[(1, generation, mac(_key(), fields))])


def _result(sealed: Sealed) -> Given:
    return {
        "generation": sealed.state[0][1],
        "leaves": {name: sorted(_integers(row[-1] for row in rows)) for name, rows in sealed.rows.items()},
        "digests": {row[0]: row[3].hex() for row in sealed.sets if isinstance(row[3], bytes)},
    }


def _integers(values: Iterable[Value]) -> list[int]:
    return [value for value in values if isinstance(value, int)]


def _store() -> VectorFile:
    stores = {"empty": _seal_rows({}), "few rows": _seal_rows(SMALL), "many rows": _seal_rows(LARGE)}
    cases = [gives(name, sealed.given(), _result(sealed)) for name, sealed in stores.items()]
    good = stores["few rows"]
    broken = {**_broken_rows(good), **_broken_digests(good)}
    cases += [fails(name, INTEGRITY_ERROR, sealed.given()) for name, sealed in broken.items()]
    cases += [
        fails("another root key", INTEGRITY_ERROR, good.given(fixed("another root key"))),
        fails("another store id", INTEGRITY_ERROR, good.given(store_id=identifier("another store id"))),
    ]
    return VectorFile("store", "9.2", "a whole sealed store: its rows, digests and state", cases)


def _broken_rows(good: Sealed) -> dict[str, Sealed]:
    """Changes of rows, and what does not help: digests that fit."""
    first, second, third = good.rows["aliases"]
    name, of, created, updated, tag, leaf = first
    assert isinstance(tag, bytes)
    assert isinstance(leaf, int)
    assert leaf == second[-1] != third[-1]
    changes: dict[str, Rows] = {
        "a value changed": [(name, of, 2, updated, tag, leaf), second, third],
        "a group changed": [(name, key_id(9), created, updated, tag, leaf), second, third],
        "a MAC changed": [(name, of, created, updated, flip(tag, 0), leaf), second, third],
        "a MAC cut short": [(name, of, created, updated, tag[:31], leaf), second, third],
        "MACs exchanged": [(*first[:-2], *second[-2:]), (*second[:-2], *first[-2:]), third],
        "another leaf": [(*first[:-1], leaf ^ 1), second, third],
        "another leaf of another node": [(*first[:-1], leaf ^ 1024), second, third],
        "a leaf beyond the last": [(*first[:-1], leaf + 4096), second, third],
    }
    found = {}
    for what, rows in changes.items():
        found[what] = replace(good, rows=good.rows | {"aliases": rows})
        found[f"{what}, and the digests fit"] = _digests(good.rows | {"aliases": rows})
    added = _seal_row("aliases", alias("d", 3))
    for what, rows in {
        "a row removed": [first, third],
        "a leaf removed": [first, second],
        "all rows removed": [],
        "a row added": [first, second, third, added],
        "a row put back": [_seal_row("aliases", alias("a", 9)), second, third],
    }.items():
        found[what] = replace(good, rows=good.rows | {"aliases": rows})
        other = _digests(found[what].rows)
        found[f"{what}, with its digests"] = replace(found[what], tree=other.tree)
        found[f"{what}, with its digests and sets"] = replace(other, state=good.state)
    return found


def _broken_digests(good: Sealed) -> dict[str, Sealed]:
    leaves = [row for row in good.tree if row[0] == "aliases" and row[1] != TOP]
    nodes = [row for row in good.tree if row[0] == "aliases" and row[1] == TOP]
    rest = [row for row in good.tree if row[0] != "aliases"]
    (table, parent, number, digest), *more = leaves
    assert isinstance(parent, int)
    assert isinstance(digest, bytes)
    aliases, *sets = good.sets
    assert aliases[0] == "access_keys"
    tag = good.state[0][2]
    assert isinstance(tag, bytes)
    return {
        "a leaf's digest changed": replace(good, tree=[*rest, *nodes, (table, parent, number, flip(digest, 0)), *more]),
        "a leaf's digest under another node": replace(
            good, tree=[*rest, *nodes, (table, parent ^ 1, number, digest), *more]
        ),
        "a leaf's digest missing": replace(good, tree=[*rest, *nodes, *more]),
        "a leaf's digest added": replace(good, tree=[*good.tree, (table, 63, 4095, digest)]),
        "nodes missing": replace(good, tree=[*rest, *leaves]),
        "a node added": replace(good, tree=[*good.tree, (table, TOP, 63, digest)]),
        "no tree": replace(good, tree=[]),
        "a set's digest changed": replace(good, sets=[(*aliases[:3], flip(fixed("digest"), 0)), *sets]),
        "a set's digest changed, and the state fits": _state(
            replace(good, sets=[(*aliases[:3], flip(fixed("digest"), 0)), *sets])
        ),
        "a set's generation changed": replace(good, sets=[(aliases[0], 99, *aliases[2:]), *sets]),
        "a set's count changed, and the state fits": _state(replace(good, sets=[(*aliases[:2], 1, aliases[3]), *sets])),
        "a set missing": replace(good, sets=sets),
        "a set missing, and the state fits": _state(replace(good, sets=sets)),
        "a set too many, and the state fits": _state(replace(good, sets=[*good.sets, ("zzz", 1, 0, digest)])),
        "the state's generation changed": replace(good, state=[(1, 4, tag)]),
        "the state's MAC changed": replace(good, state=[(1, 3, flip(tag, 31))]),
        "no state": replace(good, state=[]),
        "two states": replace(good, state=[*good.state, (2, 3, tag)]),
    }


def _backing_key() -> VectorFile:
    row: dict[str, Any] = {"backing_key_id": identifier("backing key id"), "key_id": identifier("key id"), "version": 1,
           "spec": "SYMMETRIC_DEFAULT"}  # fmt: skip
    cases = []
    for name, spec, material in (
        ("32 bytes", "SYMMETRIC_DEFAULT", fixed("backing key")),
        ("an HMAC key", "HMAC_512", fixed("HMAC key", 64)),
        ("PKCS #8", "ECC_NIST_EDWARDS25519", bytes.fromhex("302e020100300506032b657004220420") + fixed("seed")),
        ("a long one", "RSA_4096", fixed("as long as an RSA key", 2_374)),
    ):
        given = row | {"spec": spec, "wrapped": _wrap(row | {"spec": spec}, material)}
        material_key = derive(ROOT_KEY, Label.MATERIAL_ID, STORE_ID)
        material_id = mac(material_key, encode_fields(("material", identifier("key id"), material)))
        cases.append(gives(name, _given(given), {"material": material.hex(), "material_id": material_id.hex()}))
    wrapped = _wrap(row, fixed("backing key"))
    refused: dict[str, dict[str, Any]] = {
        "nothing": {"wrapped": b""},
        "a tag alone": {"wrapped": wrapped[-16:]},
        "shorter than a tag": {"wrapped": wrapped[:15]},
        "ciphertext changed": {"wrapped": flip(wrapped, 0)},
        "tag changed": {"wrapped": flip(wrapped, -1)},
        "another version": {"version": 2},
        "another spec": {"spec": "HMAC_256"},
        "another key id": {"key_id": identifier("another key id")},
        "another backing key id": {"backing_key_id": identifier("another backing key id")},
    }
    cases += [
        fails(name, INTEGRITY_ERROR, _given(row | {"wrapped": wrapped} | change)) for name, change in refused.items()
    ]
    given = _given(row | {"wrapped": wrapped})
    cases.append(fails("another root key", INTEGRITY_ERROR, given | {"root_key": fixed("another root key").hex()}))
    cases.append(fails("another store id", INTEGRITY_ERROR, given | {"store_id": identifier("another").hex()}))
    return VectorFile("backing_key", "9.4", "the material of a backing key, wrapped under the root key", cases)


def _wrap(row: dict[str, Any], material: bytes) -> bytes:
    cipher = AESGCM(derive(ROOT_KEY, Label.BACKING_KEY, row["backing_key_id"]))
    fields = encode_fields(("backing key", STORE_ID, row["key_id"], row["version"], row["spec"]))
    return cipher.encrypt(bytes(12), material, fields)


def _given(row: dict[str, Any]) -> Given:
    readable = {name: value.hex() if isinstance(value, bytes) else value for name, value in row.items()}
    return {"root_key": ROOT_KEY.hex(), "store_id": STORE_ID.hex(), **readable}


def vector_files() -> list[VectorFile]:
    return [_store(), _backing_key()]
