"""From a KMS directory to data keys (docs/FORMAT.md section 9). Shares no code with the package."""

from __future__ import annotations

import hashlib
import hmac
import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from tests.reference.structures import (
    FormatError,
    IntegrityError,
    Truncated,
    UnsupportedVersion,
    derive,
    mac,
    need,
    open_blob,
    parse_blob,
)

#: Section 9.2, without the columns `mac` and `leaf` that each ends with.
TABLES = {
    "store": "id store_id partition region account owner_uid created",
    "root_slots": "slot_id kind parameters wrapped created",
    "keys": "key_id manager spec usage origin state description created backing_key_id policy"
    " deletion_date rotation_period next_rotation due",
    "backing_keys": "backing_key_id key_id version spec wrapped created rotation_type public_key material_id"
    " description valid_to",
    "aliases": "name key_id created updated",
    "grants": "grant_id key_id name grantee retiring issuing_account operations constraint_kind constraint_context"
    " created",
    "tags": "key_id name value",
    "access_keys": "access_key_id uid user wrapped created",
    "identity_policies": "principal name policy created",
    "pins": "uid name created",
    "audit_chains": "chain_id sequence tag size sealed created",
}


#: Section 9.2: what the rows of a table are grouped by, where it is not the first column.
GROUPED_BY = dict.fromkeys(("backing_keys", "aliases", "grants", "tags"), "key_id")


def fields(*values: Any) -> bytes:
    """Section 9.1."""
    encoded = b""
    for value in values:
        if isinstance(value, int):
            encoded += b"I" + struct.pack(">q", value)
            continue
        raw = value.encode() if isinstance(value, str) else bytes(value)
        encoded += (b"T" if isinstance(value, str) else b"B") + struct.pack(">I", len(raw)) + raw
    return encoded


WRAPPING_ALGORITHMS = (
    "RSAES_OAEP_SHA_1", "RSAES_OAEP_SHA_256", "RSA_AES_KEY_WRAP_SHA_1", "RSA_AES_KEY_WRAP_SHA_256",
)  # fmt: skip
WRAPPING_KEY_SPECS = ("RSA_2048", "RSA_3072", "RSA_4096")


def open_import_token(root_key: bytes, store_id: bytes, raw: bytes) -> dict[str, Any]:
    """Section 9.6."""
    need(len(raw) >= 3, Truncated())
    need(raw[:2] == b"EI", FormatError())
    need(raw[2] == 1, UnsupportedVersion())
    need(len(raw) > 61 + 16, Truncated())
    need(len(raw) <= 6144, FormatError())
    need(1 <= raw[3] <= 4 and 1 <= raw[4] <= 3, FormatError())
    cipher = AESGCM(derive(root_key, "import token", raw[29:61], 32))
    try:
        plain = cipher.decrypt(bytes(12), raw[61:], fields("import token", store_id, raw[:61]))
    except InvalidTag:
        raise IntegrityError from None
    return {
        "algorithm": WRAPPING_ALGORITHMS[raw[3] - 1],
        "wrapping_key_spec": WRAPPING_KEY_SPECS[raw[4] - 1],
        "key_id": raw[5:21].hex(),
        "valid_to": int.from_bytes(raw[21:29], "big"),
        "wrapping_key": plain.hex(),
    }


def read_recovery_key(text: str) -> bytes:
    """Section 9.3: the 20 bytes of a recovery key as it was typed."""
    text = text.upper().replace("-", "").replace(" ", "").replace("O", "0").replace("I", "1").replace("L", "1")
    alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    need(len(text) == 40 and all(char in alphabet for char in text), FormatError())
    bits = ""
    for group in range(8):
        *data, check = (alphabet.index(char) for char in text[5 * group : 5 * group + 5])
        wanted = group + 1
        for power, value in enumerate(data, start=1):
            product = value << power
            for degree in range(9, 4, -1):
                if product >> degree & 1:
                    product ^= 0b100101 << degree - 5
            wanted ^= product
        need(check == wanted, FormatError(f"group {group + 1}"))
        bits += "".join(f"{value:05b}" for value in data)
    return int(bits, 2).to_bytes(20, "big")


def recovery_kek(seed: bytes) -> bytes:
    """Section 9.3."""
    return hmac.digest(b"envfs/v1/recovery key", seed, "sha256")


def open_root_slot(
    store_id: bytes, slot_id: bytes, kind: str, parameters: bytes, wrapped: bytes, secret: bytes
) -> bytes:
    """Section 9.3. `secret`: the passphrase, the 20 bytes of the recovery key, else the KEK."""
    kek = secret
    if kind == "passphrase":
        memory, iterations, lanes = struct.unpack(">III", parameters[:12])
        within = memory <= 4 << 20 and iterations <= 100 and lanes <= 64 and len(parameters) == 28
        need(within, FormatError("root slot: parameters"))
        salt = parameters[12:]
        kek = Argon2id(salt=salt, length=32, iterations=iterations, lanes=lanes, memory_cost=memory).derive(secret)
    elif kind == "recovery":
        kek = recovery_kek(secret)
    associated = fields("root slot", store_id, slot_id, kind, parameters)
    try:
        return AESGCM(derive(kek, "root slot", slot_id)).decrypt(bytes(12), wrapped, associated)
    except InvalidTag:
        raise IntegrityError("root slot") from None


def read_backup(raw: bytes, root_key: bytes) -> tuple[bytes, list[tuple[Any, ...]], list[tuple[str, bytes]]]:
    """Section 9.9: store id, slots as (slot id, kind, parameters, wrapped, created), entries as (name, content)."""
    need(b"ENVFSKMB".startswith(raw[:8]), FormatError("no backup"))
    need(len(raw) < 9 or raw[8] == 1, UnsupportedVersion())
    need(len(raw) >= 60, Truncated())
    log2, count, store_id, salt = struct.unpack(">BH16s32s", raw[9:60])
    need(log2 == 16 and 1 <= count <= 64, FormatError())
    at, slots = 60, []
    for _ in range(count):
        need(len(raw) >= at + 25, Truncated())
        slot_id, created, length = struct.unpack(">16sQB", raw[at : at + 25])
        kind, at = raw[at + 25 : at + 25 + length], at + 25 + length
        need(len(raw) >= at + 4, Truncated())
        (length,), at = struct.unpack(">I", raw[at : at + 4]), at + 4
        need(length <= 65_536, FormatError())
        need(len(raw) >= at + length + 48, Truncated())
        slots.append((slot_id, kind.decode("ascii"), raw[at : at + length], raw[at + length :][:48], created))
        at += length + 48
    cipher = AESGCM(derive(root_key, "backup", salt))
    digest, body, content = hashlib.sha256(raw[:at]).digest(), raw[at:], b""
    pieces = [body[start : start + 65_552] for start in range(0, len(body), 65_552)]
    need(pieces and len(pieces[-1]) > 16, IntegrityError("cut"))
    for number, piece in enumerate(pieces):
        nonce = bytes(8) + struct.pack(">I", number << 8 | (number == len(pieces) - 1))
        try:
            content += cipher.decrypt(nonce, piece, digest)
        except InvalidTag:
            raise IntegrityError(f"chunk {number}") from None
    return store_id, slots, list(_entries(content))


def _entries(content: bytes) -> Iterator[tuple[str, bytes]]:
    at = 0
    while True:
        need(len(content) >= at + 2, IntegrityError("no end"))
        (length,), at = struct.unpack(">H", content[at : at + 2]), at + 2
        if length == 0:
            break
        name, at = content[at : at + length], at + length
        need(len(content) >= at + 8, IntegrityError("cut"))
        (size,), at = struct.unpack(">Q", content[at : at + 8]), at + 8
        need(len(content) >= at + size, IntegrityError("cut"))
        yield name.decode("ascii"), content[at : at + size]
        at += size
    need(at == len(content), IntegrityError("something behind the end"))


def leaf_number(table: str, group: Any) -> int:
    """Section 9.2."""
    return int.from_bytes(hashlib.sha256(fields(table, group)).digest(), "big") >> 244


def table_digest(macs: dict[int, list[bytes]]) -> tuple[list[tuple[int, int, bytes]], bytes]:
    """Section 9.2: the rows of `tree` (parent, number, digest), and the digest of a table with these MACs by leaf."""
    leaves = {leaf: hashlib.sha256(b"".join(sorted(of_leaf))).digest() for leaf, of_leaf in macs.items()}
    nodes = {
        node: joined_digest({leaf: digest for leaf, digest in leaves.items() if leaf // 64 == node})
        for node in {leaf // 64 for leaf in leaves}
    }
    tree = [(leaf // 64, leaf, digest) for leaf, digest in leaves.items()]
    tree += [(-1, node, digest) for node, digest in nodes.items()]
    return tree, joined_digest(nodes)


def joined_digest(digests: dict[int, bytes]) -> bytes:
    return hashlib.sha256(b"".join(struct.pack(">H", number) + digests[number] for number in sorted(digests))).digest()


class Kms:
    """The keys in ENVFS_HOME, read without changing anything. `passphrase` for slots of that kind."""

    def __init__(self, home: Path, passphrase: bytes | None = None) -> None:
        self.database = sqlite3.connect(f"{(home / 'kms.db').absolute().as_uri()}?mode=ro", uri=True)
        try:
            self._open(home / "root.key", passphrase)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self.database.close()

    def _open(self, key_file: Path, passphrase: bytes | None) -> None:
        """Section 9.1."""
        (application,) = self.database.execute("PRAGMA application_id").fetchone()
        (schema,) = self.database.execute("PRAGMA user_version").fetchone()
        need(application == 0x454E564B, FormatError("kms.db is not the database of a KMS"))
        need(schema == 2, UnsupportedVersion(f"kms.db has schema version {schema}"))
        (self.store_id,) = self.database.execute("SELECT store_id FROM store").fetchone()
        self.root_key = self._root_key(key_file, passphrase)
        verify(self.database, self.root_key, self.store_id)

    def _root_key(self, key_file: Path, passphrase: bytes | None) -> bytes:
        """Section 9.3: the first slot that can be opened."""
        for slot_id, kind, parameters, wrapped in self.database.execute(
            "SELECT slot_id, kind, parameters, wrapped FROM root_slots"
        ):
            if kind == "keyfile":
                secret = key_file.read_bytes() if key_file.exists() else None
            else:
                secret = passphrase if kind == "passphrase" else None
            if secret is None:
                continue
            try:
                return open_root_slot(self.store_id, slot_id, kind, parameters, wrapped, secret)
            except IntegrityError:
                continue
        raise IntegrityError("no slot of the root key can be opened with what there is")

    def decrypt(self, raw: bytes, context: dict[str, str]) -> bytes:
        """Section 9.4: the plaintext of a ciphertext blob."""
        blob = parse_blob(raw)
        row = self.database.execute(
            "SELECT version, spec, wrapped FROM backing_keys WHERE backing_key_id = ? AND key_id = ?",
            (blob.backing_key_id, blob.key_id),
        ).fetchone()
        need(row, IntegrityError("the blob's backing key is not in this KMS"))
        backing_key = unwrap(self.root_key, self.store_id, blob.backing_key_id, blob.key_id, *row)
        return open_blob(backing_key, blob, context)


def verify(database: sqlite3.Connection, root_key: bytes, store_id: bytes) -> None:
    """Section 9.2: every row, every digest, and the state."""
    key = derive(root_key, "store", store_id)
    sets = {}
    for table, columns in TABLES.items():
        names = columns.split()
        group = names.index(GROUPED_BY.get(table, names[0]))
        macs: dict[int, list[bytes]] = {}
        for *row, stored, leaf in database.execute(f"SELECT {', '.join(names)}, mac, leaf FROM {table}"):
            need(hmac.compare_digest(mac(key, fields("row", table, *row)), stored), IntegrityError(table))
            need(leaf == leaf_number(table, row[group]), IntegrityError(table))
            macs.setdefault(leaf, []).append(stored)
        tree, digest = table_digest(macs)
        stored_tree = database.execute("SELECT parent, number, digest FROM tree WHERE name = ?", (table,))
        need(sorted(stored_tree) == sorted(tree), IntegrityError(f"tree of {table}"))
        sets[table] = (sum(map(len, macs.values())), digest)
    states = database.execute("SELECT generation, mac FROM state").fetchall()
    need(len(states) == 1, IntegrityError("state"))
    ((generation, stored),) = states
    listed = database.execute("SELECT name, generation, rows, digest FROM sets").fetchall()
    listed.sort(key=lambda row: row[0].encode())
    need({row[0]: row[2:] for row in listed} == sets, IntegrityError("sets"))
    state = fields("state", generation, *[value for row in listed for value in row])
    need(hmac.compare_digest(mac(key, state), stored), IntegrityError("state"))


def unwrap(
    root_key: bytes, store_id: bytes, backing_key_id: bytes, key_id: bytes, version: int, spec: str, wrapped: bytes
) -> bytes:
    """Section 9.4: the material of a backing key."""
    associated = fields("backing key", store_id, key_id, version, spec)
    try:
        return AESGCM(derive(root_key, "backing key", backing_key_id)).decrypt(bytes(12), wrapped, associated)
    except InvalidTag:
        raise IntegrityError("backing key") from None


def material_id(root_key: bytes, store_id: bytes, key_id: bytes, material: bytes) -> bytes:
    """Section 9.4."""
    return mac(derive(root_key, "material id", store_id), fields("material", key_id, material))
