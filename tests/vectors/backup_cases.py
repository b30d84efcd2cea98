"""Vectors of sections 9.3 and 9.9: recovery keys, slots of the root key, and backups."""

from __future__ import annotations

import hashlib
import io
import struct

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from envfs.crypto.kdf import Label, derive
from envfs.crypto.secret import Secret
from envfs.kms.backup_format import CHUNK, BackupWriter, Header
from envfs.kms.recovery_key import encode_recovery_key, recovery_kek
from envfs.kms.rootkey import AWS_KMS, KEY_FILE, PASSPHRASE, RECOVERY, SYSTEMD_CREDS
from envfs.kms.schema import RootSlotRow, encode_fields
from tests.vectors.material import (
    FORMAT_ERROR,
    INTEGRITY_ERROR,
    TRUNCATED,
    UNSUPPORTED_VERSION,
    Given,
    VectorFile,
    fails,
    fixed,
    flip,
    gives,
    identifier,
    patch,
)

SEED = fixed("recovery key", 20)
ROOT_KEY, STORE_ID, SLOT_ID = fixed("root key"), identifier("store id"), identifier("slot id")
ARGON2 = struct.pack(">III", 64, 1, 1) + identifier("salt")
PASSWORD = "correct horse ü".encode()


def _recovery_key() -> VectorFile:
    cases = []
    for name, seed in {"random bits": SEED, "no bits": bytes(20), "all bits": b"\xff" * 20}.items():
        result = {"seed": seed.hex(), "kek": bytes(recovery_kek(Secret(seed)).expose()).hex()}
        text = encode_recovery_key(Secret(seed))
        cases.append(gives(name, {"text": text}, result))
        careless = text.lower().replace("-", " ").replace("0", "o").replace("1", "l")
        cases.append(gives(f"{name}, carelessly typed", {"text": careless}, result))
    text = encode_recovery_key(Secret(SEED))
    groups = text.split("-")
    wrong = {
        "nothing": "",
        "a character missing": text[:-1],
        "a character more": text + "0",
        "a character wrong": ("1" if text[0] != "1" else "2") + text[1:],
        "a check character wrong": text[:-1] + ("1" if text[-1] != "1" else "2"),
        "a letter that is none": "U" + text[1:],
        "groups exchanged": "-".join([groups[1], groups[0], *groups[2:]]),
        "characters exchanged": text[:3] + text[4] + text[3] + text[5:],
    }
    assert text[3] != text[4]
    cases += [fails(name, FORMAT_ERROR, {"text": broken}) for name, broken in wrong.items()]
    return VectorFile("recovery_key", "9.3", "a recovery key as it is typed, and its KEK", cases)


def _wrap(kek: bytes, kind: str, parameters: bytes) -> bytes:
    associated = encode_fields(("root slot", STORE_ID, SLOT_ID, kind, parameters))
    return AESGCM(derive(kek, Label.ROOT_SLOT, SLOT_ID)).encrypt(bytes(12), ROOT_KEY, associated)


def _root_slot() -> VectorFile:
    stretched = Argon2id(salt=ARGON2[12:], length=32, iterations=1, lanes=1, memory_cost=64).derive(PASSWORD)
    recovered = bytes(recovery_kek(Secret(SEED)).expose())
    kinds = {
        "a key file": (KEY_FILE, b"", fixed("key file"), fixed("key file")),
        "a key file at a path": (KEY_FILE, b"/media/usb/envfs.key", fixed("key file"), fixed("key file")),
        "a passphrase": (PASSPHRASE, ARGON2, PASSWORD, stretched),
        "a recovery key": (RECOVERY, b"", SEED, recovered),
        "systemd-creds": (SYSTEMD_CREDS, b"Whxqht+dQJax1aZeCGLxmg==", fixed("KEK"), fixed("KEK")),
        "aws-kms": (AWS_KMS, b'{"ciphertext":"AAAA","endpoint":"","key":"k","region":"r"}', fixed("KEK"), fixed("KEK")),
    }
    cases = []
    given: Given = {}
    for name, (kind, parameters, secret, kek) in kinds.items():
        given = {
            "store_id": STORE_ID.hex(),
            "slot_id": SLOT_ID.hex(),
            "kind": kind,
            "parameters": parameters.hex(),
            "wrapped": _wrap(kek, kind, parameters).hex(),
            "secret": secret.hex(),
        }
        cases.append(gives(name, given, {"root_key": ROOT_KEY.hex()}))
        for field in ("store_id", "slot_id", "wrapped", "secret"):
            broken = {**given, field: flip(bytes.fromhex(given[field]), 3).hex()}
            cases.append(fails(f"{name}: {field} changed", INTEGRITY_ERROR, broken))
    cases.append(fails("aws-kms taken for another kind", INTEGRITY_ERROR, {**given, "kind": SYSTEMD_CREDS}))
    hostile = {"memory": (4 << 20) + 1, "iterations": 101, "lanes": 65}
    for name, value in hostile.items():
        figures = {"memory": 4096, "iterations": 1, "lanes": 1, name: value}
        parameters = struct.pack(">III", *figures.values()) + bytes(16)
        broken = {**given, "kind": PASSPHRASE, "parameters": parameters.hex()}
        cases.append(fails(f"a passphrase: too much {name}", FORMAT_ERROR, broken))
    return VectorFile("root_slot", "9.3", "the root key out of a slot; secret: what opens it, see the kind", cases)


def _header() -> Header:
    slots = (
        RootSlotRow(SLOT_ID, RECOVERY, b"", fixed("wrapped", 48), 1_700_000_000),
        RootSlotRow(identifier("another slot"), PASSPHRASE, ARGON2, fixed("wrapped too", 48), 1_700_000_001),
    )
    return Header(STORE_ID, fixed("salt"), slots)


def _write(entries: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    writer = BackupWriter(out, Secret(ROOT_KEY), _header())
    for name, content in entries.items():
        writer.add(name, len(content), [content])
    writer.close()
    return out.getvalue()


def _seal(number: int, content: bytes, *, last: bool) -> bytes:
    header = _header()
    cipher = AESGCM(derive(ROOT_KEY, Label.BACKUP, header.salt))
    nonce = bytes(8) + number.to_bytes(3, "big") + bytes([last])
    return cipher.encrypt(nonce, content, hashlib.sha256(header.encode()).digest())


def _backup() -> VectorFile:
    small = {"manifest.json": b"{}", "kms.db": fixed("database", 100)}
    cases = []
    for name, entries in {"small": small, "two chunks": {**small, "root.key": fixed("many", CHUNK)}}.items():
        slots = [
            [slot.slot_id.hex(), slot.kind, slot.parameters.hex(), slot.wrapped.hex(), slot.created]
            for slot in _header().slots
        ]
        listed = [[entry, len(content), hashlib.sha256(content).hexdigest()] for entry, content in entries.items()]
        given = {"root_key": ROOT_KEY.hex(), "raw": _write(entries).hex()}
        cases.append(gives(name, given, {"store_id": STORE_ID.hex(), "slots": slots, "entries": listed}))
    raw, head = _write(small), _header().encode()
    end = b"\0\0"
    refused = {
        "nothing": (TRUNCATED, b""),
        "a part of the magic": (TRUNCATED, raw[:5]),
        "a part of the header": (TRUNCATED, raw[:59]),
        "a part of a slot": (TRUNCATED, raw[: len(head) - 1]),
        "another magic": (FORMAT_ERROR, patch(raw, 0, b"e")),
        "version 2": (UNSUPPORTED_VERSION, patch(raw, 8, b"\2")),
        "version 2, short": (UNSUPPORTED_VERSION, patch(raw, 8, b"\2")[:9]),
        "another chunk size": (FORMAT_ERROR, patch(raw, 9, b"\x11")),
        "no slots": (FORMAT_ERROR, patch(raw, 10, b"\0\0")),
        "65 slots": (FORMAT_ERROR, patch(raw, 10, b"\0\x41")),
        "65,537 bytes of parameters": (FORMAT_ERROR, patch(raw, 60 + 25 + 8, struct.pack(">I", 65_537))),
        "store id changed": (INTEGRITY_ERROR, flip(raw, 12)),
        "salt changed": (INTEGRITY_ERROR, flip(raw, 28)),
        "a slot changed": (INTEGRITY_ERROR, flip(raw, len(head) - 1)),
        "a chunk changed": (INTEGRITY_ERROR, flip(raw, len(head))),
        "a tag changed": (INTEGRITY_ERROR, flip(raw, -1)),
        "no chunk": (INTEGRITY_ERROR, head),
        "a byte missing": (INTEGRITY_ERROR, raw[:-1]),
        "a byte more": (INTEGRITY_ERROR, raw + b"\0"),
        "the last chunk not marked": (INTEGRITY_ERROR, head + _seal(0, end, last=False)),
        "an empty chunk": (INTEGRITY_ERROR, head + _seal(0, b"", last=True)),
        "counted from 1": (INTEGRITY_ERROR, head + _seal(1, end, last=True)),
        "something behind the end": (INTEGRITY_ERROR, head + _seal(0, end + b"x", last=True)),
        "no end": (INTEGRITY_ERROR, head + _seal(0, b"\0\1a" + bytes(8), last=True)),
        "an entry that is cut": (INTEGRITY_ERROR, head + _seal(0, b"\0\1a" + bytes(7) + b"\5x", last=True)),
    }
    for name, (failure, broken) in refused.items():
        cases.append(fails(name, failure, {"root_key": ROOT_KEY.hex(), "raw": broken.hex()}))
    other = {"root_key": fixed("another root key").hex(), "raw": raw.hex()}
    cases.append(fails("another root key", INTEGRITY_ERROR, other))
    return VectorFile("backup", "9.9", "a backup's header, and its entries as [name, size, SHA-256]", cases)


def vector_files() -> list[VectorFile]:
    return [_recovery_key(), _root_slot(), _backup()]
