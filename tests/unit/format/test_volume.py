from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from envfs.crypto.aead import Suite
from envfs.crypto.secret import Secret
from envfs.errors import FormatError
from envfs.format.volume import VolumeFile
from envfs.format.volume_keys import VolumeKeys

KEY = bytes(range(32))
VOLUME = VolumeFile(Suite.AES_256_GCM, 14, b"v" * 16, b"k" * 16, b"r" * 16, 1_700_000_000, "arn", b"blob")


def test_round_trip() -> None:
    raw = VOLUME.serialise(KEY)
    assert VolumeFile.parse(raw) == VOLUME
    assert VolumeFile.verify(raw, KEY)
    assert not VolumeFile.verify(raw, bytes(32))
    assert VOLUME.block_size == 16384


@pytest.mark.parametrize(
    "change",
    [
        {"block_log2": 11},
        {"block_log2": 17},
        {"volume_id": b""},
        {"kms_id": bytes(17)},
        {"root_id": bytes(16)},
        {"root_id": b"\xff" * 16},
        {"created": -1},
        {"created": 2**64},
        {"key_arn": ""},
        {"key_arn": "\ud800"},
        {"blob": b""},
        {"blob": bytes(8082)},
        {"key_arn": "a" * 8081},
        {"blob": bytes(70000)},
    ],
    ids=lambda change: str(change)[:40],
)
def test_what_does_not_fit_is_never_encoded(change: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        replace(VOLUME, **change)


def test_the_largest() -> None:
    largest = replace(VOLUME, blob=bytes(8192 - 76 - 3 - 32))
    raw = largest.serialise(KEY)
    assert len(raw) == 8192
    assert VolumeFile.parse(raw) == largest


def test_volume_keys_are_all_different_and_shown_to_nobody() -> None:
    volume_key = Secret(KEY)
    keys = VolumeKeys(volume_key)
    assert keys.volume_file != keys.directory
    assert keys.names.encrypt(b"d" * 16, b"n").full[:22] != keys.xattrs.name(b"d" * 16, b"n")[11:33]
    assert repr(keys) == "<VolumeKeys>"
    volume_key.wipe()
    assert keys.names.decrypt(b"d" * 16, keys.names.encrypt(b"d" * 16, b"n").full) == b"n"


def test_one_volume_key_gives_the_same_keys_each_time() -> None:
    first, second = VolumeKeys(Secret(KEY)), VolumeKeys(Secret(KEY))
    assert VolumeFile.verify(VOLUME.serialise(first.volume_file), second.volume_file)
