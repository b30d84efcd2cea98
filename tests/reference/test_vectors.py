"""The reference reader's decoders against the test vectors: the page and the package mean the same."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.reference import kms, structures
from tests.reference.structures import Where
from tests.vectors.load import Case, Decoder, all_cases, run, stored_rows, vector_names
from tests.vectors.material import to_bytes

HERE = Path(__file__).resolve().parent
SUITE_NUMBERS = {"aes-256-gcm": 1, "aes-256-gcm-siv": 2, "chacha20-poly1305": 3}
SUITE_NAMES = {number: name for name, number in SUITE_NUMBERS.items()}


def _derive(given: Case) -> Case:
    output = structures.derive(to_bytes(given["key"]), given["label"], to_bytes(given["context"]), given["length"])
    return {"output": output.hex()}


def _base64url(given: Case) -> Case:
    return {"raw": structures.unbase64url(given["text"].encode()).hex()}


def _context(given: Case) -> Case:
    raw = to_bytes(given["raw"])
    pairs = structures.parse_pairs(raw)
    assert structures.encode_pairs(pairs) == raw
    return {"pairs": [[key, value] for key, value in pairs.items()]}


def _slot(given: Case) -> Case:
    slot = structures.parse_slot(to_bytes(given["raw"]))
    structures.need(slot.is_authentic(to_bytes(given["dek"])), structures.IntegrityError())
    return {
        "suite": SUITE_NAMES[slot.suite],
        "block_size": slot.block_size,
        "sequence": slot.sequence,
        "file_id": slot.file_id.hex(),
        "length_bound": slot.length_bound,
        "sealed_blocks": slot.sealed_blocks,
        "holes": list(slot.holes),
        "blob": slot.blob.hex(),
        "labels": slot.labels.hex(),
        "previous": slot.previous.hex(),
    }


def _header_area(given: Case) -> Case:
    raw = to_bytes(given["raw"])
    slots = structures.parse_header_area(raw)
    for slot in slots:
        if slot.is_authentic(to_bytes(given["dek"])):
            return {"slot": int(slot.raw != raw[128:576]), "sequence": slot.sequence}
    structures.need(not slots, structures.IntegrityError())
    return {"empty": True}


def _sizes(given: Case) -> Case:
    block_size, cipher_size = given["block_size"], given["cipher_size"]
    plain = structures.plain_size(cipher_size, block_size)
    return {"plain_size": plain, "is_exact": cipher_size == 1024 + plain + 28 * -(-plain // block_size)}


def _blocks(given: Case) -> Any:
    file_id, suite = to_bytes(given["file_id"]), SUITE_NUMBERS[given["suite"]]
    key = structures.content_key(to_bytes(given["dek"]), file_id, suite)
    cipher, step = to_bytes(given["cipher"]), given["block_size"] + 28
    size = structures.plain_size(1024 + len(cipher), given["block_size"])
    holes = (given["holes"][0], given["holes"][1])
    plain = b""
    for number in range(-(-size // given["block_size"])):
        sealed = cipher[number * step : (number + 1) * step]
        plain += structures.open_block(suite, key, file_id, given["first_index"] + number, holes, sealed)
    return {"plain": plain}


def _place(given: Case) -> Case:
    key = structures.derive(to_bytes(given["volume_key"]), "place")
    where = Where(to_bytes(given["parent_id"]), given["cipher_name"].encode())
    kind, object_id = given["kind"].encode(), to_bytes(given["object_id"])
    return {"anywhere": structures.check_place(key, to_bytes(given["raw"]), kind, object_id, where)}


def _directory_file(given: Case) -> Case:
    directory = structures.parse_directory_file(to_bytes(given["volume_key"]), to_bytes(given["raw"]))
    return {
        "directory_id": directory["directory_id"].hex(),
        "key_arn": directory["key_arn"],
        "labels": [[key, value] for key, value in directory["labels"].items()],
        "place": directory["place"].hex(),
    }


def _name(given: Case) -> Case:
    cipher_name = given["cipher_name"].encode()
    name = structures.open_name(to_bytes(given["volume_key"]), to_bytes(given["directory_id"]), cipher_name)
    lower = cipher_name if len(cipher_name) <= 255 else b"envfs.long." + structures.name_hash(cipher_name)
    return {"name": name.hex(), "lower_name": lower.decode()}


def _name_file(given: Case) -> Case:
    lower = given["lower_name"].encode()
    cipher_name = structures.check_name_file(lower, to_bytes(given["content"]))
    name_file = b"envfs.name." + structures.name_hash(cipher_name)
    return {"cipher_name": cipher_name.decode(), "name_file": name_file.decode()}


def _symlink(given: Case) -> Case:
    payload = structures.parse_link_text(given["text"].encode())
    where = Where(to_bytes(given["parent_id"]), given["cipher_name"].encode())
    target = structures.open_symlink(to_bytes(given["volume_key"]), payload, where)
    assert len(target) == len(given["text"]) * 3 // 4 - 64
    return {"link_id": payload[:16].hex(), "target": target.hex()}


def _link_file(given: Case) -> Case:
    payload = structures.parse_link_file(given["name"].encode(), to_bytes(given["content"]))
    return {"link_id": payload[:16].hex()}


def _xattr(given: Case) -> Case:
    opened = structures.open_xattr(
        to_bytes(given["volume_key"]),
        to_bytes(given["object_id"]),
        given["lower_name"].encode(),
        to_bytes(given["lower_value"]),
    )
    return {"foreign": True} if opened is None else {"name": opened[0].hex(), "value": opened[1].hex()}


def _journal_record(given: Case) -> Case:
    record = structures.parse_journal_record(to_bytes(given["volume_key"]), to_bytes(given["raw"]))
    readable = {key: value.hex() if isinstance(value, bytes) else value for key, value in record.items()}
    blocks = [[index, nonce.hex(), length, old.hex()] for index, nonce, length, old in record["blocks"]]
    return {**readable, "path": record["path"].decode(), "blocks": blocks}


def _volume_file(given: Case) -> Case:
    raw = to_bytes(given["raw"])
    volume = structures.parse_volume_file(raw)
    structures.check_volume_file(to_bytes(given["volume_key"]), raw)
    readable = {key: value.hex() if isinstance(value, bytes) else value for key, value in volume.items()}
    return {**readable, "suite": SUITE_NAMES[volume["suite"]]}


def _blob(given: Case) -> Case:
    blob = structures.parse_blob(to_bytes(given["raw"]))
    plaintext = structures.open_blob(to_bytes(given["backing_key"]), blob, given["context"])
    return {
        "key_id": blob.key_id.hex(),
        "backing_key_id": blob.backing_key_id.hex(),
        "salt": blob.salt.hex(),
        "plaintext": plaintext.hex(),
    }


def _foreign_blob(given: Case) -> Case:
    blob = structures.parse_foreign_blob(to_bytes(given["raw"]))
    own, secret = to_bytes(given["own"]), to_bytes(given["foreign_secret"])
    plaintext = structures.open_foreign_blob(own, secret, blob, given["context"])
    return {
        "key_id": blob.key_id.hex(),
        "backing_key_id": blob.backing_key_id.hex(),
        "foreign": blob.foreign.hex(),
        "plaintext": plaintext.hex(),
    }


def _store(given: Case) -> Case:
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        columns = {name: [*names.split(), "mac", "leaf"] for name, names in kms.TABLES.items()}
        columns["tree"] = ["name", "parent", "number", "digest"]
        columns["sets"] = ["name", "generation", "rows", "digest"]
        columns["state"] = ["id", "generation", "mac"]
        for name, rows in stored_rows(given).items():
            database.execute(f"CREATE TABLE {name} ({', '.join(columns[name])})")
            for row in rows:
                database.execute(f"INSERT INTO {name} VALUES ({', '.join('?' * len(row))})", row)
        kms.verify(database, to_bytes(given["root_key"]), to_bytes(given["store_id"]))
        (generation,) = database.execute("SELECT generation FROM state").fetchone()
        leaves = {name: sorted(leaf for (leaf,) in database.execute(f"SELECT leaf FROM {name}")) for name in kms.TABLES}
        digests = {name: digest.hex() for name, digest in database.execute("SELECT name, digest FROM sets")}
    return {"generation": generation, "leaves": leaves, "digests": digests}


def _backing_key(given: Case) -> Case:
    root_key, store_id, key_id = (to_bytes(given[name]) for name in ("root_key", "store_id", "key_id"))
    row = to_bytes(given["backing_key_id"]), key_id, given["version"], given["spec"], to_bytes(given["wrapped"])
    material = kms.unwrap(root_key, store_id, *row)
    return {"material": material.hex(), "material_id": kms.material_id(root_key, store_id, key_id, material).hex()}


def _import_token(given: Case) -> Case:
    return kms.open_import_token(to_bytes(given["root_key"]), to_bytes(given["store_id"]), to_bytes(given["raw"]))


def _recovery_key(given: Case) -> Case:
    seed = kms.read_recovery_key(given["text"])
    return {"seed": seed.hex(), "kek": kms.recovery_kek(seed).hex()}


def _root_slot(given: Case) -> Case:
    names = ("store_id", "slot_id", "parameters", "wrapped", "secret")
    store_id, slot_id, parameters, wrapped, secret = (to_bytes(given[name]) for name in names)
    root_key = kms.open_root_slot(store_id, slot_id, given["kind"], parameters, wrapped, secret)
    return {"root_key": root_key.hex()}


def _backup(given: Case) -> Case:
    store_id, slots, entries = kms.read_backup(to_bytes(given["raw"]), to_bytes(given["root_key"]))
    return {
        "store_id": store_id.hex(),
        "slots": [[value.hex() if isinstance(value, bytes) else value for value in slot] for slot in slots],
        "entries": [[name, len(content), hashlib.sha256(content).hexdigest()] for name, content in entries],
    }


DECODERS: dict[str, Decoder] = {
    "backing_key": _backing_key,
    "backup": _backup,
    "base64url": _base64url,
    "blob": _blob,
    "blocks": _blocks,
    "context": _context,
    "derive": _derive,
    "directory_file": _directory_file,
    "foreign_blob": _foreign_blob,
    "header_area": _header_area,
    "import_token": _import_token,
    "journal_record": _journal_record,
    "link_file": _link_file,
    "name": _name,
    "name_file": _name_file,
    "place": _place,
    "recovery_key": _recovery_key,
    "root_slot": _root_slot,
    "sizes": _sizes,
    "slot": _slot,
    "store": _store,
    "symlink": _symlink,
    "volume_file": _volume_file,
    "xattr": _xattr,
}


@pytest.mark.parametrize(("name", "case"), all_cases())
def test_vector(name: str, case: Case) -> None:
    run(DECODERS, name, case)


def test_every_file_is_run() -> None:
    assert vector_names() == sorted(DECODERS)


@pytest.mark.parametrize("module", ["structures", "kms", "read_volume"])
def test_the_reader_shares_no_code_with_the_package(module: str) -> None:
    tree = ast.parse((HERE / f"{module}.py").read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    ours = {"tests.reference", "tests.reference.kms", "tests.reference.structures"}
    assert not {name for name in imported - ours if name.partition(".")[0] in {"envfs", "tests"}}
