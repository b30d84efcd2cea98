from __future__ import annotations

import pytest

from envfs.errors import FormatError, IntegrityError
from envfs.format.directory import DirectoryFile
from envfs.format.place import ROOT, Kind, PlaceKey

KEY = bytes(range(32))
ID = b"d" * 16
PLACE = PlaceKey(KEY).pack(Kind.DIRECTORY, ID, ROOT)
ARN = "arn:aws:kms:eu-central-1:000000000000:key/1234abcd-12ab-34cd-56ef-1234567890ab"


@pytest.mark.parametrize(
    "directory", [DirectoryFile(ID), DirectoryFile(ID, ARN), DirectoryFile(ID, "ä", {"a": "", "b": "ü"})]
)
def test_round_trip(directory: DirectoryFile) -> None:
    raw = directory.serialise(KEY, PLACE)
    assert DirectoryFile.parse(KEY, raw) == (directory, PLACE)


def test_the_place_may_be_overwritten_alone() -> None:
    raw = DirectoryFile(ID, ARN).serialise(KEY, PLACE)
    moved = PlaceKey(KEY).pack(Kind.DIRECTORY, ID, ROOT, ROOT)
    assert DirectoryFile.parse(KEY, moved + raw[128:]) == (DirectoryFile(ID, ARN), moved)


def test_another_key_does_not_open_it() -> None:
    with pytest.raises(IntegrityError):
        DirectoryFile.parse(bytes(32), DirectoryFile(ID).serialise(KEY, PLACE))


@pytest.mark.parametrize(
    ("directory_id", "key_arn", "labels"),
    [
        (bytes(16), "", {}),
        (b"\xff" * 16, "", {}),
        (b"short", "", {}),
        (ID, "\ud800", {}),
        (ID, "", {"envfs:x": ""}),
        (ID, "", {"": ""}),
        (ID, "a" * 3907, {}),
        (ID, "", {"k": "v" * 3902}),
    ],
)
def test_what_does_not_fit_is_never_encoded(directory_id: bytes, key_arn: str, labels: dict[str, str]) -> None:
    with pytest.raises(FormatError):
        DirectoryFile(directory_id, key_arn, labels)


def test_the_largest() -> None:
    raw = DirectoryFile(ID, "a" * 3906).serialise(KEY, PLACE)
    assert len(raw) == 4096
    assert DirectoryFile.parse(KEY, raw)[0].key_arn == "a" * 3906


def test_a_place_of_another_size_is_refused() -> None:
    with pytest.raises(FormatError):
        DirectoryFile(ID).serialise(KEY, PLACE[:-1])
