"""Which volumes a KMS has keys for, and where they were last: ENVFS_HOME/volumes, one small file for each.

A convenience, not authenticated and never needed to open anything: it lets `envfs key usage` find the volumes that are
not mounted. A copy of a volume at another place is a volume of its own here.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from envfs.fs import lower

DIRECTORY: Final = "volumes"
_LARGEST: Final = 1 << 16
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KnownVolume:
    """`seen`: when it was made or mounted last, seconds since 1970. `mountpoint` is empty if it never was."""

    volume_id: bytes
    lower: Path
    mountpoint: str
    seen: int


def remember(home: Path, volume_id: bytes, lower_path: Path, mountpoint: str = "") -> None:
    """A volume was made or mounted. Failing is told to the log alone."""
    identity = volume_id + os.fsencode(lower_path)
    name = f"{volume_id.hex()}-{hashlib.sha256(identity).hexdigest()[:16]}.json"
    content = {
        "volume_id": volume_id.hex(),
        "lower": os.fspath(lower_path),
        "mountpoint": mountpoint,
        "seen": int(time.time()),
    }
    directory = home / DIRECTORY
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        fd = os.open(directory, lower.OPEN_DIRECTORY)
        try:
            lower.replace_file(fd, name.encode(), json.dumps(content).encode())
        finally:
            os.close(fd)
    except OSError as error:
        _log.warning("the list of volumes in %s could not be kept: %s", directory, error)


def known_volumes(home: Path) -> list[KnownVolume]:
    """All of them, the newest first; what cannot be read is left out. PermissionError for somebody else's KMS."""
    found: list[KnownVolume] = []
    try:
        fd = os.open(home / DIRECTORY, lower.OPEN_DIRECTORY)
    except FileNotFoundError:
        return found
    try:
        for name in sorted(os.listdir(fd)):  # noqa: PTH208 - by the descriptor
            if name.endswith(".json"):
                try:
                    found.append(_parse(lower.read_small_file(fd, os.fsencode(name), _LARGEST)))
                except (OSError, ValueError, KeyError, TypeError) as error:
                    _log.warning("%s: no volume (%s)", name, error)
    finally:
        os.close(fd)
    return sorted(found, key=lambda volume: -volume.seen)


def _parse(raw: bytes) -> KnownVolume:
    content = json.loads(raw)
    return KnownVolume(
        bytes.fromhex(content["volume_id"]), Path(content["lower"]), str(content["mountpoint"]), int(content["seen"])
    )
