"""The package against the test vectors: what each decoder gives, how it fails, and that encoding comes out the same."""

from __future__ import annotations

import contextlib
import hashlib
import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from envfs.crypto import b64, kdf
from envfs.crypto.aead import Suite
from envfs.crypto.secret import Secret
from envfs.errors import EnvfsError, IntegrityError
from envfs.format import context, header, names, symlink
from envfs.format.blob import Blob, open_blob, read_any_blob, read_blob, seal_blob
from envfs.format.block import BlockCodec
from envfs.format.directory import DirectoryFile
from envfs.format.foreign_blob import ForeignBlob, open_foreign_blob, seal_foreign_blob
from envfs.format.geometry import Geometry
from envfs.format.journal import Record
from envfs.format.place import Kind, Where
from envfs.format.volume import VolumeFile
from envfs.format.volume_keys import VolumeKeys
from envfs.format.xattr import LONG_PREFIX
from envfs.kms.backup_format import BackupReader, read_header
from envfs.kms.keyring import Keyring
from envfs.kms.material.token import open_token, seal_token
from envfs.kms.recovery_key import decode_recovery_key, encode_recovery_key, recovery_kek
from envfs.kms.rootkey import KekUnlock, PassphraseUnlock, RecoveryUnlock, SlotKey, open_slot, seal_slot
from envfs.kms.schema import ALL_TABLES, SEALED_TABLES, SETS, BackingKeyRow, RootSlotRow, Table
from envfs.kms.sealed_store import SealedStore
from envfs.kms.sqlite_store import SqliteStore
from tests.vectors import generate
from tests.vectors.load import Case, Decoder, all_cases, run, stored_rows, vector_names
from tests.vectors.material import to_bytes


def encodes_to(wanted: Any, encode: Callable[..., Any], *values: Any) -> None:
    """What was decoded encodes to the same again. That it cannot be encoded is no way to refuse it."""
    try:
        again = encode(*values)
    except EnvfsError as error:
        raise AssertionError("decoded what cannot be encoded") from error
    assert again == wanted


def _derive(given: Case) -> Case:
    label = kdf.Label(given["label"])
    output = kdf.derive(to_bytes(given["key"]), label, to_bytes(given["context"]), given["length"])
    return {"output": output.hex()}


def _base64url(given: Case) -> Case:
    raw = b64.decode(given["text"])
    encodes_to(given["text"], b64.encode, raw)
    return {"raw": raw.hex()}


def _context(given: Case) -> Case:
    raw = to_bytes(given["raw"])
    pairs = context.decode_context(raw)
    encodes_to(raw, context.encode_context, pairs)
    return {"pairs": [[key, value] for key, value in pairs.items()]}


def _slot(given: Case) -> Case:
    raw = to_bytes(given["raw"])
    slot = header.Slot.parse(raw)
    key = header.header_key(to_bytes(given["dek"]), slot.file_id)
    if not header.verify_slot(raw, key):
        raise IntegrityError
    encodes_to(raw, slot.seal, key)
    return {
        "suite": slot.suite.label,
        "block_size": 1 << slot.block_log2,
        "sequence": slot.sequence,
        "file_id": slot.file_id.hex(),
        "length_bound": slot.length_bound,
        "sealed_blocks": slot.sealed_blocks,
        "holes": [slot.hole_start, slot.hole_end],
        "blob": slot.blob.hex(),
        "labels": slot.labels.hex(),
        "previous": slot.previous.hex(),
    }


def _header_area(given: Case) -> Case:
    area = header.parse_header_area(to_bytes(given["raw"]))
    if area.is_absent:
        return {"empty": True}
    for parsed in area.slots:
        if parsed.verify(header.header_key(to_bytes(given["dek"]), parsed.slot.file_id)):
            return {"slot": parsed.position, "sequence": parsed.slot.sequence}
    raise IntegrityError


def _sizes(given: Case) -> Case:
    geometry = Geometry(given["block_size"])
    plain = geometry.plain_size(given["cipher_size"])
    return {"plain_size": plain, "is_exact": geometry.cipher_size(plain) == given["cipher_size"]}


def _blocks(given: Case) -> Any:
    suite, file_id = Suite.from_name(given["suite"]), to_bytes(given["file_id"])
    key = header.content_key(to_bytes(given["dek"]), file_id, suite)
    cipher = to_bytes(given["cipher"])
    geometry = Geometry(given["block_size"])
    plain = BlockCodec(suite, key, file_id, geometry).open(given["first_index"], cipher, *given["holes"])
    if not any(given["holes"]):
        starts = range(0, len(plain) // geometry.block_size * geometry.cipher_block + 1, geometry.cipher_block)
        nonces = b"".join(cipher[start : start + 12] for start in starts)
        again = BlockCodec(suite, key, file_id, geometry, lambda length: nonces[:length])
        assert cipher.startswith(bytes(again.seal(given["first_index"], plain)))
    return {"plain": bytes(plain)}


def _place(given: Case) -> Case:
    keys = VolumeKeys(Secret(to_bytes(given["volume_key"])))
    raw, kind, object_id = to_bytes(given["raw"]), Kind(given["kind"].encode()), to_bytes(given["object_id"])
    where = Where(to_bytes(given["parent_id"]), given["cipher_name"].encode())
    if not keys.place.check(raw, kind, object_id, where):
        raise IntegrityError
    return {"anywhere": keys.place.is_anywhere(raw, kind, object_id)}


def _directory_file(given: Case) -> Case:
    key = VolumeKeys(Secret(to_bytes(given["volume_key"]))).directory
    raw = to_bytes(given["raw"])
    directory, place = DirectoryFile.parse(key, raw)
    encodes_to(raw, directory.serialise, key, place)
    return {
        "directory_id": directory.directory_id.hex(),
        "key_arn": directory.key_arn,
        "labels": [[key, value] for key, value in directory.labels.items()],
        "place": place.hex(),
    }


def _name(given: Case) -> Case:
    cipher = VolumeKeys(Secret(to_bytes(given["volume_key"]))).names
    directory_id, full = to_bytes(given["directory_id"]), given["cipher_name"].encode()
    name = cipher.decrypt(directory_id, full)
    encodes_to(full, lambda: cipher.encrypt(directory_id, name).full)
    return {"name": name.hex(), "lower_name": cipher.encrypt(directory_id, name).lower.decode()}


def _name_file(given: Case) -> Case:
    lower = given["lower_name"].encode()
    full = names.check_name_file(lower, to_bytes(given["content"]))
    return {"cipher_name": full.decode(), "name_file": names.name_file_for(lower).decode()}


def _symlink(given: Case) -> Case:
    cipher = VolumeKeys(Secret(to_bytes(given["volume_key"]))).symlinks
    text = given["text"].encode()
    payload = symlink.parse_text(text)
    target = cipher.open(payload, Where(to_bytes(given["parent_id"]), given["cipher_name"].encode()))
    assert symlink.to_text(payload) == text
    assert symlink.plain_length(len(text)) == len(target)
    return {"link_id": payload[:16].hex(), "target": target.hex()}


def _link_file(given: Case) -> Case:
    payload = symlink.parse_link_file(given["name"].encode(), to_bytes(given["content"]))
    assert symlink.to_text(payload) is None
    return {"link_id": payload[:16].hex()}


def _xattr(given: Case) -> Case:
    cipher = VolumeKeys(Secret(to_bytes(given["volume_key"]))).xattrs
    object_id, lower, sealed = (
        to_bytes(given["object_id"]),
        given["lower_name"].encode(),
        to_bytes(given["lower_value"]),
    )
    is_long = lower.startswith(LONG_PREFIX)
    name = cipher.open_long_name(object_id, lower, sealed) if is_long else cipher.open_name(object_id, lower)
    if name is None:
        return {"foreign": True}
    value = cipher.open(object_id, name, sealed)
    encodes_to(lower, cipher.name, object_id, name)
    encodes_to(sealed, cipher.seal, object_id, name, value)
    return {"name": name.hex(), "value": value.hex()}


def _journal_record(given: Case) -> Case:
    key = VolumeKeys(Secret(to_bytes(given["volume_key"]))).undo
    record, size = Record.parse(to_bytes(given["raw"]), key)
    assert b"".join(record.serialise(key)) == to_bytes(given["raw"])[:size]
    return {
        "epoch": record.epoch.hex(),
        "number": record.number,
        "boot_id": record.boot_id.hex(),
        "file_id": record.file_id.hex(),
        "inode": record.inode,
        "path": record.path.decode(),
        "blocks": [[one.index, one.nonce.hex(), one.new_length, one.old.hex()] for one in record.entries],
        "size": size,
    }


def _volume_file(given: Case) -> Case:
    key = VolumeKeys(Secret(to_bytes(given["volume_key"]))).volume_file
    raw = to_bytes(given["raw"])
    volume = VolumeFile.parse(raw)
    if not VolumeFile.verify(raw, key):
        raise IntegrityError
    encodes_to(raw, volume.serialise, key)
    return {
        "suite": volume.suite.label,
        "block_size": volume.block_size,
        "volume_id": volume.volume_id.hex(),
        "kms_id": volume.kms_id.hex(),
        "root_id": volume.root_id.hex(),
        "created": volume.created,
        "is_bound": volume.is_bound,
        "key_arn": volume.key_arn,
        "blob": volume.blob.hex(),
    }


def _blob(given: Case) -> Case:
    raw, backing_key = to_bytes(given["raw"]), to_bytes(given["backing_key"])
    blob = Blob.parse(raw)
    encodes_to(raw, blob.serialise)
    encoded = context.encode_context(given["context"])
    plaintext = bytes(open_blob(backing_key, read_blob(raw), encoded).expose())
    encodes_to(raw, seal_blob, backing_key, blob.key_id, blob.backing_key_id, plaintext, encoded, blob.salt)
    return {
        "key_id": blob.key_id.hex(),
        "backing_key_id": blob.backing_key_id.hex(),
        "salt": blob.salt.hex(),
        "plaintext": plaintext.hex(),
    }


def _foreign_blob(given: Case) -> Case:
    raw, own, secret = (to_bytes(given[name]) for name in ("raw", "own", "foreign_secret"))
    blob = read_any_blob(raw)
    assert isinstance(blob, ForeignBlob)
    encoded = context.encode_context(given["context"])
    plaintext = bytes(open_foreign_blob(own, secret, blob, encoded).expose())
    ids = blob.key_id, blob.backing_key_id
    encodes_to(raw, seal_foreign_blob, own, secret, *ids, blob.foreign, plaintext, encoded)
    return {
        "key_id": blob.key_id.hex(),
        "backing_key_id": blob.backing_key_id.hex(),
        "foreign": blob.foreign.hex(),
        "plaintext": plaintext.hex(),
    }


def _store(given: Case) -> Case:
    tables: dict[str, Table[Any]] = {table.name: table for table in ALL_TABLES}
    with tempfile.TemporaryDirectory() as directory:
        store = SqliteStore.create(Path(directory) / "kms.db")
        with contextlib.closing(store), store.writing():
            # The reader has to see what a stranger wrote, also where constraints would have kept it out.
            for name in given["tables"]:
                store.drop_table(tables[name])
                columns = ", ".join(f"{column} {kind}" for column, kind in tables[name].stored_columns)
                store._execute(f"CREATE TABLE {name} ({columns})")
                for row in stored_rows(given)[name]:
                    store._execute(f"INSERT INTO {name} VALUES ({', '.join('?' * len(row))})", row)
        store = SqliteStore.open(Path(directory) / "kms.db")
        with contextlib.closing(store):
            sealed = SealedStore(store, Secret(to_bytes(given["root_key"])), to_bytes(given["store_id"]))
            if sealed.verify_all():
                raise IntegrityError
            for name in given["tables"]:
                if tables[name].sealed:
                    sealed.find(tables[name])
            raws = {table.name: store.select(table, {}) for table in SEALED_TABLES}
            return {
                "generation": sealed.generation,
                "leaves": {name: sorted(leaf for *_, leaf in rows) for name, rows in raws.items()},
                "digests": {row.name: row.digest.hex() for row in map(SETS.make, store.select(SETS, {}))},
            }


def _backing_key(given: Case) -> Case:
    keyring = Keyring(Secret(to_bytes(given["root_key"])), to_bytes(given["store_id"]))
    row = BackingKeyRow(
        to_bytes(given["backing_key_id"]),
        to_bytes(given["key_id"]),
        given["version"],
        given["spec"],
        to_bytes(given["wrapped"]),
        0,
    )
    material = keyring.unwrap(row)
    material_id = keyring.material_id(row.key_id, material)
    encodes_to(row.wrapped, lambda: keyring.wrap_again(row._replace(material_id=material_id), material).wrapped)
    return {"material": bytes(material.expose()).hex(), "material_id": material_id.hex()}


def _import_token(given: Case) -> Case:
    raw, store_id = to_bytes(given["raw"]), to_bytes(given["store_id"])
    token = open_token(to_bytes(given["root_key"]), store_id, raw)
    encodes_to(raw, seal_token, to_bytes(given["root_key"]), store_id, token, raw[29:61])
    return {
        "algorithm": token.algorithm,
        "wrapping_key_spec": token.wrapping_key_spec,
        "key_id": token.key_id.hex(),
        "valid_to": token.valid_to,
        "wrapping_key": token.wrapping_key.expose().hex(),
    }


def _recovery_key(given: Case) -> Case:
    seed = decode_recovery_key(given["text"])
    assert bytes(decode_recovery_key(encode_recovery_key(seed)).expose()) == bytes(seed.expose())
    return {"seed": seed.expose().hex(), "kek": recovery_kek(seed).expose().hex()}


def _root_slot(given: Case) -> Case:
    secret = Secret(to_bytes(given["secret"]))
    ways: dict[str, SlotKey] = {"passphrase": PassphraseUnlock(secret), "recovery": RecoveryUnlock(secret)}
    kind, slot_id, store_id = given["kind"], to_bytes(given["slot_id"]), to_bytes(given["store_id"])
    way = ways.get(kind) or KekUnlock(kind, secret)
    row = RootSlotRow(slot_id, kind, to_bytes(given["parameters"]), to_bytes(given["wrapped"]), 0)
    root_key = open_slot(row, store_id, way)
    if root_key is None:
        raise IntegrityError
    encodes_to(row, seal_slot, root_key, store_id, way, row.parameters, 0, slot_id)
    return {"root_key": root_key.expose().hex()}


def _backup(given: Case) -> Case:
    file = io.BytesIO(to_bytes(given["raw"]))
    found = read_header(file)
    assert found.encode() == file.getvalue()[: file.tell()]
    entries = []
    for name, size, pieces in BackupReader(file, Secret(to_bytes(given["root_key"])), found).entries():
        entries.append([name, size, hashlib.sha256(b"".join(pieces)).hexdigest()])
    slots = [[row.slot_id.hex(), row.kind, row.parameters.hex(), row.wrapped.hex(), row.created] for row in found.slots]
    return {"store_id": found.store_id.hex(), "slots": slots, "entries": entries}


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


def test_every_failure_is_met_by_every_decoder_that_can_meet_it() -> None:
    """A structure with magic and version has to have a vector for each of the four failures."""
    failures: dict[str, set[str]] = {}
    for file in generate.all_files():
        failures[file.name] = {case["failure"] for case in file.cases if "failure" in case}
    every = {"Truncated", "UnsupportedVersion", "FormatError", "IntegrityError"}
    structures = ("directory_file", "header_area", "journal_record", "place", "slot", "volume_file")
    for name in ("blob", "import_token", *structures):
        assert failures[name] == every


def test_vectors_are_what_the_generator_writes() -> None:
    assert generate.main(["--check"]) == 0
