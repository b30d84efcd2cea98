"""Vectors of sections 4, 5 and 8: places, directory files, the volume file."""

from __future__ import annotations

from dataclasses import replace

from envfs.crypto.aead import Suite
from envfs.crypto.mac import mac
from envfs.crypto.secret import Secret
from envfs.format.context import encode_context
from envfs.format.directory import DirectoryFile
from envfs.format.place import ANYWHERE, ROOT, Kind, Where
from envfs.format.volume import VolumeFile
from envfs.format.volume_keys import VolumeKeys
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

VOLUME_KEY = fixed("volume key")
KEYS = VolumeKeys(Secret(VOLUME_KEY))
PARENT, OTHER_PARENT = identifier("parent"), identifier("another parent")
OBJECT = identifier("object")
ARN = "arn:aws:kms:eu-central-1:000000000000:key/1234abcd-12ab-34cd-56ef-1234567890ab"


def _place() -> VectorFile:
    here, before, elsewhere = Where(PARENT, b"name"), Where(OTHER_PARENT, b"old name"), Where(PARENT, b"other")

    def given(raw: bytes, kind: Kind, where: Where, object_id: bytes = OBJECT) -> Given:
        return {
            "volume_key": VOLUME_KEY.hex(),
            "raw": raw.hex(),
            "kind": kind.value.decode(),
            "object_id": object_id.hex(),
            "parent_id": where.parent_id.hex(),
            "cipher_name": where.cipher_name.decode(),
        }

    cases = []
    for kind in Kind:
        raw = KEYS.place.pack(kind, OBJECT, here)
        name = kind.name.lower()
        cases.append(gives(f"{name} at its place", given(raw, kind, here), {"anywhere": False}))
        cases.append(fails(f"{name} under another name", INTEGRITY_ERROR, given(raw, kind, elsewhere)))
        moved = given(raw, kind, Where(OTHER_PARENT, b"name"))
        cases.append(fails(f"{name} in another directory", INTEGRITY_ERROR, moved))
    raw = KEYS.place.pack(Kind.FILE, OBJECT, here, before)
    linked = KEYS.place.pack(Kind.FILE, OBJECT, ANYWHERE, here)
    unlinked = KEYS.place.pack(Kind.FILE, OBJECT, here, ANYWHERE)
    root = KEYS.place.pack(Kind.DIRECTORY, OBJECT, ROOT)
    long_name = Where(PARENT, KEYS.names.encrypt(PARENT, b"x" * 255).full)
    cases += [
        gives("during a rename, at the new place", given(raw, Kind.FILE, here), {"anywhere": False}),
        gives("during a rename, at the old place", given(raw, Kind.FILE, before), {"anywhere": False}),
        gives("several hard links", given(linked, Kind.FILE, elsewhere), {"anywhere": True}),
        gives("several hard links until now", given(unlinked, Kind.FILE, elsewhere), {"anywhere": True}),
        gives("root directory", given(root, Kind.DIRECTORY, ROOT), {"anywhere": False}),
        gives(
            "a long name counts in full",
            given(KEYS.place.pack(Kind.FILE, OBJECT, long_name), Kind.FILE, long_name),
            {"anywhere": False},
        ),
        fails("during a rename, elsewhere", INTEGRITY_ERROR, given(raw, Kind.FILE, elsewhere)),
        fails("root directory below itself", INTEGRITY_ERROR, given(root, Kind.DIRECTORY, here)),
    ]
    single = KEYS.place.pack(Kind.FILE, OBJECT, here)
    other_object = identifier("another object")
    refused = {
        "nothing": (TRUNCATED, b""),
        "one byte missing": (TRUNCATED, single[:-1]),
        "one byte left over": (FORMAT_ERROR, single + b"\0"),
        "all zero": (FORMAT_ERROR, bytes(128)),
        "version 2": (UNSUPPORTED_VERSION, patch(single, 4, b"\0\2")),
        "a flag": (FORMAT_ERROR, patch(single, 6, b"\0\1")),
        "reserved bytes": (FORMAT_ERROR, flip(single, -1)),
        "MAC changed": (INTEGRITY_ERROR, flip(single, 24)),
        "parent id changed": (INTEGRITY_ERROR, flip(single, 8)),
        "anywhere that is not authentic": (INTEGRITY_ERROR, patch(patch(single, 8, b"\xff" * 16), 24, bytes(32))),
        "anywhere of another object": (INTEGRITY_ERROR, KEYS.place.pack(Kind.FILE, other_object, ANYWHERE)),
        "place of another object": (INTEGRITY_ERROR, KEYS.place.pack(Kind.FILE, other_object, here)),
        "place of another kind": (INTEGRITY_ERROR, KEYS.place.pack(Kind.DIRECTORY, OBJECT, here)),
    }
    cases += [fails(name, failure, given(broken, Kind.FILE, here)) for name, (failure, broken) in refused.items()]
    absent = given(single, Kind.FILE, Where(bytes(16), b""))
    cases.append(fails("an absent previous place is not the root", INTEGRITY_ERROR, absent))
    return VectorFile("place", "4", "whether an object may be where it was found", cases)


def _resealed(raw: bytes, start: int, key: bytes) -> bytes:
    """`raw` without its last 32 bytes, and an authentic MAC over what lies behind `start`."""
    return raw[:-32] + mac(key, raw[start:-32])


def _directory_file() -> VectorFile:
    place = KEYS.place.pack(Kind.DIRECTORY, OBJECT, Where(PARENT, b"name"))
    labels = {"project": "apollo", "tier": "gold"}
    good = {
        "plain": DirectoryFile(OBJECT),
        "key": DirectoryFile(OBJECT, ARN),
        "labels": DirectoryFile(OBJECT, "", labels),
        "key and labels": DirectoryFile(OBJECT, ARN, labels),
        "4,096 bytes": DirectoryFile(OBJECT, "", {"k": "v" * (4096 - 156 - 32 - 7)}),
    }

    def given(raw: bytes) -> Given:
        return {"volume_key": VOLUME_KEY.hex(), "raw": raw.hex()}

    cases = [
        gives(
            name,
            given(file.serialise(KEYS.directory, place)),
            {
                "directory_id": OBJECT.hex(),
                "key_arn": file.key_arn,
                "labels": sorted([key, value] for key, value in file.labels.items()),
                "place": place.hex(),
            },
        )
        for name, file in good.items()
    ]
    raw = good["key and labels"].serialise(KEYS.directory, place)
    plain = good["plain"].serialise(KEYS.directory, place)

    def changed(offset: int, new: bytes) -> bytes:
        return _resealed(patch(raw, offset, new), 128, KEYS.directory)

    reserved = encode_context({"aws:x": "y"})
    with_reserved = plain[:154] + len(reserved).to_bytes(2, "big") + reserved
    refused = {
        "nothing": (TRUNCATED, b""),
        "place alone": (TRUNCATED, place),
        "its fixed part cut": (TRUNCATED, raw[:150]),
        "one byte missing": (TRUNCATED, raw[:-1]),
        "one byte left over": (FORMAT_ERROR, raw + b"\0"),
        "another magic": (FORMAT_ERROR, changed(128, b"ENVF")),
        "version 2": (UNSUPPORTED_VERSION, changed(132, b"\0\2")),
        "a flag": (FORMAT_ERROR, changed(134, b"\0\1")),
        "id all zero": (FORMAT_ERROR, changed(136, bytes(16))),
        "id all ones": (FORMAT_ERROR, changed(136, b"\xff" * 16)),
        "more than 4,096 bytes": (FORMAT_ERROR, changed(152, b"\xff\xff")),
        "no labels": (TRUNCATED, _resealed(patch(plain[:-34], 154, b"\0\0") + bytes(32), 128, KEYS.directory)),
        "a reserved label": (FORMAT_ERROR, _resealed(with_reserved + bytes(32), 128, KEYS.directory)),
        "key not UTF-8": (FORMAT_ERROR, changed(156, b"\xff")),
        "MAC changed": (INTEGRITY_ERROR, flip(raw, -1)),
        "id changed": (INTEGRITY_ERROR, flip(raw, 136)),
        "key changed": (INTEGRITY_ERROR, flip(raw, 156)),
        "label changed": (INTEGRITY_ERROR, flip(raw, -33)),
    }
    cases += [fails(name, failure, given(broken)) for name, (failure, broken) in refused.items()]
    return VectorFile("directory_file", "5", "a directory file; its place is checked apart", cases)


def _volume_file() -> VectorFile:
    plain = VolumeFile(
        Suite.AES_256_GCM,
        14,
        identifier("volume id"),
        identifier("KMS id"),
        identifier("root directory"),
        1_700_000_000,
        ARN,
        fixed("wrapped volume key", 116),
    )
    unbound = replace(plain, is_bound=False)
    largest = VolumeFile(
        Suite.CHACHA20_POLY1305,
        16,
        plain.volume_id,
        plain.kms_id,
        plain.root_id,
        2**64 - 1,
        "k",
        fixed("largest blob", 8192 - 76 - 1 - 32),
    )

    def given(raw: bytes, key: bytes = VOLUME_KEY) -> Given:
        return {"volume_key": key.hex(), "raw": raw.hex()}

    cases = [
        gives(
            name,
            given(file.serialise(KEYS.volume_file)),
            {
                "suite": file.suite.label,
                "block_size": file.block_size,
                "volume_id": file.volume_id.hex(),
                "kms_id": file.kms_id.hex(),
                "root_id": file.root_id.hex(),
                "created": file.created,
                "is_bound": file.is_bound,
                "key_arn": file.key_arn,
                "blob": file.blob.hex(),
            },
        )
        for name, file in {"plain": plain, "8,192 bytes": largest, "not bound": unbound}.items()
    ]
    raw = plain.serialise(KEYS.volume_file)

    def changed(offset: int, new: bytes) -> bytes:
        return _resealed(patch(raw, offset, new), 0, KEYS.volume_file)

    no_arn = patch(raw, 70, b"\0\0")[:76] + raw[76 + len(ARN) :]
    no_blob = patch(raw, 72, b"\0\0")[: 76 + len(ARN)] + bytes(32)
    refused = {
        "nothing": (TRUNCATED, b""),
        "nine bytes": (TRUNCATED, raw[:9]),
        "its fixed part cut": (TRUNCATED, raw[:75]),
        "one byte missing": (TRUNCATED, raw[:-1]),
        "one byte left over": (FORMAT_ERROR, raw + b"\0"),
        "another magic": (FORMAT_ERROR, changed(0, b"ENVFSVOM")),
        "version 0": (UNSUPPORTED_VERSION, changed(8, b"\0\0")),
        "version 2": (UNSUPPORTED_VERSION, changed(8, b"\0\2")),
        "version 2, cut": (UNSUPPORTED_VERSION, changed(8, b"\0\2")[:10]),
        "suite 9": (FORMAT_ERROR, changed(10, b"\x09")),
        "blocks of 2 KiB": (FORMAT_ERROR, changed(11, b"\x0b")),
        "root id all zero": (FORMAT_ERROR, changed(44, bytes(16))),
        "root id all ones": (FORMAT_ERROR, changed(44, b"\xff" * 16)),
        "another flag": (FORMAT_ERROR, changed(68, b"\0\3")),
        "reserved bytes": (FORMAT_ERROR, changed(74, b"\0\1")),
        "no key ARN": (FORMAT_ERROR, _resealed(no_arn, 0, KEYS.volume_file)),
        "no blob": (FORMAT_ERROR, _resealed(no_blob, 0, KEYS.volume_file)),
        "key ARN not UTF-8": (FORMAT_ERROR, changed(76, b"\xff")),
        "more than 8,192 bytes": (FORMAT_ERROR, changed(72, b"\xff\xff")),
        "MAC changed": (INTEGRITY_ERROR, flip(raw, -1)),
        "suite changed": (INTEGRITY_ERROR, patch(raw, 10, b"\2")),
        "key ARN changed": (INTEGRITY_ERROR, flip(raw, 76)),
        "binding taken away": (INTEGRITY_ERROR, patch(raw, 68, b"\0\0")),
        "KMS id changed": (INTEGRITY_ERROR, flip(raw, 28)),
    }
    cases += [fails(name, failure, given(broken)) for name, (failure, broken) in refused.items()]
    cases.append(fails("another volume key", INTEGRITY_ERROR, given(raw, fixed("another volume key"))))
    return VectorFile("volume_file", "8", "a volume file and whether it is authentic", cases)


def vector_files() -> list[VectorFile]:
    return [_place(), _directory_file(), _volume_file()]
