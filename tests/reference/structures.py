"""Decoders for docs/FORMAT.md sections 1 to 9, written from that page alone. Shares no code with the package.

Everything takes bytes and returns plain values, or raises the failure that the page names.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import struct
import zlib
from dataclasses import dataclass
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESGCMSIV, AESSIV, ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand


class Failure(Exception):
    """Base of the four failures."""


class Truncated(Failure):
    pass


class UnsupportedVersion(Failure):
    pass


class FormatError(Failure):
    pass


class IntegrityError(Failure):
    def __init__(self, message: str = "", block: int | None = None) -> None:
        super().__init__(message)
        self.block = block


def need(condition: object, failure: Failure) -> None:
    if not condition:
        raise failure


def start(raw: bytes, magic: bytes, what: str, version_size: int = 2) -> None:
    need(len(raw) >= len(magic) + version_size, Truncated(what))
    need(raw.startswith(magic), FormatError(f"no {what}"))
    version = int.from_bytes(raw[len(magic) : len(magic) + version_size], "big")
    need(version == 1, UnsupportedVersion(f"{what} of version {version}"))


def exactly(raw: bytes, length: int, what: str) -> None:
    need(len(raw) >= length, Truncated(what))
    need(len(raw) == length, FormatError(f"{what}: bytes left over"))


def text(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise FormatError("not UTF-8") from None


# Section 1: keys


def derive(key: bytes, label: str, context: bytes = b"", length: int = 32) -> bytes:
    need(len(key) == 32, FormatError("a key that has not 32 bytes"))
    return HKDFExpand(SHA256(), length, b"envfs/v1/" + label.encode() + b"\0" + context).derive(key)


def mac(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "sha256")


def siv_open(key: bytes, associated: list[bytes], sealed: bytes) -> bytes:
    try:
        return AESSIV(key).decrypt(sealed, associated)
    except InvalidTag:
        raise IntegrityError("AES-SIV") from None


def unbase64url(string: bytes) -> bytes:
    try:
        raw = base64.b64decode(string + b"=" * (-len(string) % 4), b"-_", validate=True)
    except ValueError:
        raise FormatError("no base64url") from None
    need(base64url(raw) == string, FormatError("not the base64url of its bytes"))
    return raw


def base64url(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


SUITES: dict[int, type[AESGCM | AESGCMSIV | ChaCha20Poly1305]] = {1: AESGCM, 2: AESGCMSIV, 3: ChaCha20Poly1305}


# Section 2: files


def plain_size(cipher_size: int, block_size: int) -> int:
    if cipher_size <= 1024:
        return 0
    full, rest = divmod(cipher_size - 1024, block_size + 28)
    return full * block_size + max(0, rest - 28)


@dataclass
class Slot:
    suite: int
    block_size: int
    sequence: int
    file_id: bytes
    length_bound: int
    sealed_blocks: int
    holes: tuple[int, int]
    blob: bytes
    labels: bytes
    previous: bytes
    raw: bytes

    def is_authentic(self, file_key: bytes) -> bool:
        header_key = derive(file_key, "file header", self.file_id)
        return hmac.compare_digest(mac(header_key, self.raw[:416]), self.raw[416:])


def parse_slot(raw: bytes) -> Slot:
    start(raw, b"ENVF", "slot")
    exactly(raw, 448, "slot")
    suite, log2, sequence, file_id, bound, sealed, hole, hole_end, flags, blob_size, label_size, key_size = (
        struct.unpack(">BBQ16sQQQQHHHH", raw[6:72])
    )
    labels_end = 72 + blob_size + label_size
    end = labels_end + key_size
    need(suite in SUITES and 12 <= log2 <= 16 and sequence >= 1, FormatError("slot: number out of range"))
    need(hole < hole_end or hole == hole_end == 0, FormatError("slot: hole range"))
    need(not flags and key_size in {0, 50}, FormatError("slot: reserved bits, previous key"))
    need(blob_size >= 1 and end <= 416 and not any(raw[end:416]), FormatError("slot: blob and labels"))
    blob, labels, previous = raw[72 : 72 + blob_size], raw[72 + blob_size : labels_end], raw[labels_end:end]
    parse_labels(labels)
    return Slot(suite, 1 << log2, sequence, file_id, bound, sealed, (hole, hole_end), blob, labels, previous, raw)


def parse_header_area(raw: bytes) -> list[Slot]:
    """The slots that parse, in the order in which they are to be tried; none for a file without header."""
    slots, failures = [], []
    for offset in (128, 576):
        piece = raw[offset : offset + 448]
        if any(piece):
            try:
                slots.append(parse_slot(piece))
            except Failure as failure:
                failures.append(failure)
    if failures and not slots:
        raise failures[0]
    need(len({slot.file_id for slot in slots}) <= 1, IntegrityError("slots of two files"))
    return sorted(slots, key=lambda slot: -slot.sequence)


def open_block(suite: int, key: bytes, file_id: bytes, index: int, holes: tuple[int, int], sealed: bytes) -> bytes:
    if holes[0] <= index < holes[1] and not any(sealed):
        return bytes(len(sealed) - 28)
    try:
        return SUITES[suite](key).decrypt(sealed[:12], sealed[12:], file_id + struct.pack(">Q", index))
    except InvalidTag:
        raise IntegrityError(f"block {index}", index) from None


def file_key(volume_key: bytes, dek: bytes, *, is_bound: bool) -> bytes:
    return derive(dek, "bound file", derive(volume_key, "file binding")) if is_bound else dek


def content_key(file_key: bytes, file_id: bytes, suite: int) -> bytes:
    return derive(file_key, "file content", file_id + bytes([suite]))


def content_keys(file_key: bytes, slot: Slot) -> list[bytes]:
    """Sections 2.3 and 2.4: every key that may have sealed a block, the newest first."""
    keys = _generations(file_key, slot, slot.sealed_blocks >> 31)
    if slot.previous:
        wrapping = AESGCM(derive(file_key, "previous file key", slot.file_id))
        number = slot.previous[:2]
        try:
            previous = wrapping.decrypt(bytes(12), slot.previous[2:], slot.file_id + number)
        except InvalidTag:
            raise IntegrityError("previous key") from None
        keys += _generations(previous, slot, int.from_bytes(number, "big"))
    return keys


def _generations(file_key: bytes, slot: Slot, newest: int) -> list[bytes]:
    later = derive(file_key, "file generations", slot.file_id)
    need(newest < 1024, FormatError("generation"))
    context = slot.file_id + bytes([slot.suite])
    keys = [derive(later, "file content", context + struct.pack(">I", number)) for number in range(newest, 0, -1)]
    return [*keys, content_key(file_key, slot.file_id, slot.suite)]


def open_block_by_any(
    suite: int, keys: list[bytes], file_id: bytes, index: int, holes: tuple[int, int], sealed: bytes
) -> bytes:
    for key in keys[:-1]:
        try:
            return open_block(suite, key, file_id, index, holes, sealed)
        except IntegrityError:
            continue
    return open_block(suite, keys[-1], file_id, index, holes, sealed)


# Section 3: string pairs


def encode_pairs(pairs: dict[str, str]) -> bytes:
    encoded = sorted((key.encode(), value.encode()) for key, value in pairs.items())
    strings = b"".join(struct.pack(">H", len(part)) + part for pair in encoded for part in pair)
    return struct.pack(">H", len(encoded)) + strings


def parse_pairs(raw: bytes) -> dict[str, str]:
    need(len(raw) <= 8192, FormatError("pairs: too long"))
    rest, pairs, last = raw, {}, b""

    def take(length: int) -> bytes:
        nonlocal rest
        need(len(rest) >= length, Truncated("pairs"))
        piece, rest = rest[:length], rest[length:]
        return piece

    for _ in range(int.from_bytes(take(2), "big")):
        key = take(int.from_bytes(take(2), "big"))
        value = take(int.from_bytes(take(2), "big"))
        need(key > last, FormatError("pairs: empty, repeated or unsorted key"))
        pairs[text(key)] = text(value)
        last = key
    need(not rest, FormatError("pairs: bytes left over"))
    return pairs


def parse_labels(raw: bytes) -> dict[str, str]:
    labels = parse_pairs(raw)
    need(not any(key.startswith(("envfs:", "aws:")) for key in labels), FormatError("labels: reserved key"))
    return labels


# Section 4: places


class Where(NamedTuple):
    parent_id: bytes
    cipher_name: bytes


ROOT, ANYWHERE = Where(bytes(16), b""), Where(b"\xff" * 16, b"")


def place_mac(place_key: bytes, kind: bytes, object_id: bytes, where: Where) -> bytes:
    length = struct.pack(">H", len(where.cipher_name))
    return mac(place_key, kind + object_id + where.parent_id + length + where.cipher_name)


def check_place(place_key: bytes, raw: bytes, kind: bytes, object_id: bytes, where: Where) -> bool:
    """IntegrityError unless the object may be at `where`; returns whether it may be anywhere."""
    start(raw, b"ENVP", "place")
    exactly(raw, 128, "place")
    need(not any(raw[6:8]) and not any(raw[104:]), FormatError("place: reserved bits"))
    stored = [(raw[8:24], raw[24:56]), (raw[56:72], raw[72:104])]
    anywhere = (ANYWHERE.parent_id, place_mac(place_key, kind, object_id, ANYWHERE)) in stored
    here = (where.parent_id, place_mac(place_key, kind, object_id, where)) in stored
    need(anywhere or here, IntegrityError("out of its place"))
    return anywhere


# Sections 5 and 8: directory and volume files


def check_directory_id(value: bytes) -> None:
    need(value not in {bytes(16), b"\xff" * 16}, FormatError("directory id"))


def parse_directory_file(volume_key: bytes, raw: bytes) -> dict[str, Any]:
    body = raw[128:]
    start(body, b"ENVD", "directory file")
    need(len(body) >= 28, Truncated("directory file"))
    flags, directory_id, arn_size, label_size = struct.unpack(">H16sHH", body[6:28])
    length = 128 + 28 + arn_size + label_size + 32
    need(length <= 4096, FormatError("directory file: too long"))
    exactly(raw, length, "directory file")
    need(not flags, FormatError("directory file: reserved bits"))
    check_directory_id(directory_id)
    arn = text(body[28 : 28 + arn_size])
    labels = parse_labels(body[28 + arn_size : -32])
    authentic = hmac.compare_digest(mac(derive(volume_key, "directory file"), body[:-32]), body[-32:])
    need(authentic, IntegrityError("directory file"))
    return {"directory_id": directory_id, "key_arn": arn, "labels": labels, "place": raw[:128]}


def parse_volume_file(raw: bytes) -> dict[str, Any]:
    start(raw, b"ENVFSVOL", "volume file")
    need(len(raw) >= 76, Truncated("volume file"))
    suite, log2, volume_id, kms_id, root_id, created, flags, arn_size, blob_size, zero = struct.unpack(
        ">BB16s16s16sQHHHH", raw[10:76]
    )
    length = 76 + arn_size + blob_size + 32
    need(length <= 8192, FormatError("volume file: too long"))
    exactly(raw, length, "volume file")
    need(suite in SUITES and 12 <= log2 <= 16 and arn_size and blob_size, FormatError("volume file: number"))
    need(flags in {0, 1} and not zero, FormatError("volume file: reserved bits"))
    check_directory_id(root_id)
    return {
        "suite": suite,
        "block_size": 1 << log2,
        "volume_id": volume_id,
        "kms_id": kms_id,
        "root_id": root_id,
        "created": created,
        "is_bound": bool(flags),
        "key_arn": text(raw[76 : 76 + arn_size]),
        "blob": raw[76 + arn_size : -32],
    }


def check_volume_file(volume_key: bytes, raw: bytes) -> None:
    authentic = hmac.compare_digest(mac(derive(volume_key, "volume file"), raw[:-32]), raw[-32:])
    need(authentic, IntegrityError("volume file"))


def parse_journal_record(volume_key: bytes, raw: bytes) -> dict[str, Any]:
    """Section 8.1."""
    start(raw, b"ENVJ", "journal record")
    need(len(raw) >= 88, Truncated("journal record"))
    zero, epoch, number, boot_id, file_id, inode, size, checksum, count, path_size, also_zero = struct.unpack(
        ">H16sQ16s16sQIIIHH", raw[6:88]
    )
    need(not (zero or also_zero or size % 512), FormatError("journal record: reserved bits"))
    need(512 <= size <= 1_310_720 and path_size <= 32768 and count, FormatError("journal record: number"))
    end = 88 + path_size + 28 * count
    need(len(raw) >= size >= end + 32, Truncated("journal record"))
    tag = mac(derive(volume_key, "undo record"), raw[:end])
    need(hmac.compare_digest(tag, raw[end : end + 32]), IntegrityError("journal record"))
    blocks, position = [], end + 32
    for index, nonce, new_length, length in struct.iter_unpack(">Q12sII", raw[88 + path_size : end]):
        is_hole, old_length = length >> 31, length & 0x7FFFFFFF
        need(1 <= new_length <= 65564 and 1 <= old_length <= 65564, FormatError("journal record: length of a block"))
        old = bytes(old_length) if is_hole else raw[position : position + old_length]
        blocks.append((index, nonce, new_length, old))
        position += 0 if is_hole else old_length
    need(position <= size, FormatError("journal record: old blocks"))
    need(zlib.crc32(raw[end + 32 : position]) == checksum, IntegrityError("journal record: old blocks"))
    return {
        "epoch": epoch, "number": number, "boot_id": boot_id, "file_id": file_id, "inode": inode,
        "path": raw[88 : 88 + path_size], "blocks": blocks, "size": size,
    }  # fmt: skip


# Section 6: names


def open_name(volume_key: bytes, directory_id: bytes, cipher_name: bytes) -> bytes:
    name = siv_open(derive(volume_key, "names", length=64), [directory_id], unbase64url(cipher_name))
    fits = 1 <= len(name) <= 255 and name not in {b".", b".."} and not set(name) & set(b"/\0")
    need(fits, FormatError("no name"))
    return name


def name_hash(cipher_name: bytes) -> bytes:
    return base64url(hashlib.sha256(cipher_name).digest())


def check_name_file(lower_name: bytes, content: bytes) -> bytes:
    need(256 <= len(content) <= 362, FormatError("name file: size"))
    need(lower_name == b"envfs.long." + name_hash(content), IntegrityError("name file"))
    return content


# Section 7: symlinks and extended attributes


def check_payload(payload: bytes) -> None:
    need(len(payload) > 64, Truncated("symlink"))
    need(len(payload) <= 64 + 4095, FormatError("symlink: too long"))


def parse_link_text(string: bytes) -> bytes:
    need(len(string) <= 4095, FormatError("symlink: too long"))
    payload = unbase64url(string)
    check_payload(payload)
    return payload


def parse_link_file(name: bytes, content: bytes) -> bytes:
    check_payload(content)
    need(name == b"envfs.link." + content[:16].hex().encode(), IntegrityError("link file of another symlink"))
    need(len(base64url(content)) > 4095, FormatError("link file: target is not long"))
    return content


def open_symlink(volume_key: bytes, payload: bytes, where: Where) -> bytes:
    link_id, current, previous = payload[:16], payload[16:32], payload[32:48]
    place_key = derive(volume_key, "place")
    allowed = [place_mac(place_key, b"L", link_id, place)[:16] for place in (where, ANYWHERE)]
    need(current in allowed or previous in allowed, IntegrityError("symlink out of its place"))
    target = siv_open(derive(volume_key, "symlink", length=64), [link_id], payload[48:])
    need(target and b"\0" not in target, FormatError("no target"))
    return target


def open_xattr(volume_key: bytes, object_id: bytes, lower_name: bytes, value: bytes) -> tuple[bytes, bytes] | None:
    """Name and value, or None for an attribute that is not part of the volume."""
    key = derive(volume_key, "xattr", length=64)
    if not lower_name.startswith(b"user.envfs."):
        return None
    try:
        if lower_name.startswith(b"user.envfs.long."):
            end = 2 + int.from_bytes(value[:2], "big")
            need(len(value) >= max(2, end), Truncated("attribute"))
            sealed_name, value = value[2:end], value[end:]
            text = base64url(sealed_name)
            need(len(text) > 255 - 11, FormatError("not long"))
            need(lower_name[16:] == base64url(hashlib.sha256(text).digest()), IntegrityError("another name"))
        else:
            sealed_name = unbase64url(lower_name[11:])
            need(len(lower_name) <= 255, FormatError("too long"))
        name = siv_open(key, [object_id, b"name"], sealed_name)
    except Failure:
        return None
    if not 1 <= len(name) <= 255 or b"\0" in name:
        return None
    return name, siv_open(key, [object_id, b"value", name], value)


# Section 9: ciphertext blobs


class Blob(NamedTuple):
    key_id: bytes
    backing_key_id: bytes
    salt: bytes
    sealed: bytes
    header: bytes


def parse_blob(raw: bytes) -> Blob:
    start(raw, b"EK", "ciphertext blob", version_size=1)
    need(len(raw) >= 85, Truncated("ciphertext blob"))
    need(raw[3] == 1 and len(raw) <= 68 + 4096 + 16, FormatError("ciphertext blob"))
    return Blob(raw[4:20], raw[20:36], raw[36:68], raw[68:], raw[:68])


def open_blob(backing_key: bytes, blob: Blob, context: dict[str, str]) -> bytes:
    key = derive(backing_key, "ciphertext blob", blob.salt)
    try:
        return AESGCM(key).decrypt(bytes(12), blob.sealed, blob.header + encode_pairs(context))
    except InvalidTag:
        raise IntegrityError("ciphertext blob") from None


class ForeignBlob(NamedTuple):
    key_id: bytes
    backing_key_id: bytes
    foreign: bytes
    sealed: bytes
    header: bytes


def parse_foreign_blob(raw: bytes) -> ForeignBlob:
    start(raw, b"EK", "foreign ciphertext blob", version_size=1)
    need(len(raw) >= 38, Truncated("foreign ciphertext blob"))
    need(raw[3] == 2, FormatError("foreign ciphertext blob"))
    size = int.from_bytes(raw[36:38], "big")
    need(1 <= size <= 1024, FormatError("foreign ciphertext"))
    end = 38 + size
    need(len(raw) >= end + 1 + 16, Truncated("foreign ciphertext blob"))
    need(len(raw) <= end + 4096 + 16, FormatError("foreign ciphertext blob"))
    return ForeignBlob(raw[4:20], raw[20:36], raw[38:end], raw[end:], raw[:end])


def open_foreign_blob(own: bytes, foreign_secret: bytes, blob: ForeignBlob, context: dict[str, str]) -> bytes:
    need(len(foreign_secret) == 32, FormatError("foreign secret"))
    key = derive(own, "foreign blob", foreign_secret)
    try:
        return AESGCM(key).decrypt(bytes(12), blob.sealed, blob.header + encode_pairs(context))
    except InvalidTag:
        raise IntegrityError("foreign ciphertext blob") from None
