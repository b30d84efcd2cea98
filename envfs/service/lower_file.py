"""What can be said about a file in a lower directory without mounting it: the header is public, its authenticity is not
checked.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from envfs.errors import ConfigError, FormatError
from envfs.format.blob import read_any_blob
from envfs.format.geometry import HEADER_SIZE, Geometry
from envfs.format.header import parse_header_area
from envfs.format.names import RESERVED_PREFIX, VOLUME_FILE
from envfs.service.volume import parse_volume_file, read_volume_file

if TYPE_CHECKING:
    from envfs.format.volume import VolumeFile


def describe_lower_file(path: Path) -> dict[str, Any]:
    """The header of a file in LOWER, as `envfs file show` prints it. Sizes in bytes.

    ConfigError if it is not a regular file of a volume; Truncated, UnsupportedVersion, FormatError or IntegrityError
    for its header.
    """
    lower, volume = _volume_above(path)
    if path.name.startswith(os.fsdecode(RESERVED_PREFIX)) and not path.name.startswith("envfs.long."):
        raise ConfigError(f"{path} is a file of the volume itself, not of a user", hint="name one of the other files")
    raw, size = _read_start(path)
    plain_size = Geometry(volume.block_size).plain_size(size)
    described: dict[str, Any] = {
        "path": os.fspath(path),
        "volume": os.fspath(lower),
        "volume_id": volume.volume_id.hex(),
        "plain_size": plain_size,
        "cipher_size": size,
    }
    area = parse_header_area(raw)
    if area.is_absent:
        if size > HEADER_SIZE:
            raise FormatError(f"{path} has blocks but no header", hint="it is damaged: restore it from a backup")
        return described | {"has_header": False}
    slot = area.slots[0].slot
    return described | {
        "has_header": True,
        "key_id": _key_id(slot.blob),
        **slot.facts(),
    }


def _volume_above(path: Path) -> tuple[Path, VolumeFile]:
    """The nearest directory upwards that holds a volume file, and what that says (not authenticated)."""
    for directory in path.absolute().parents:
        if os.path.lexists(directory / os.fsdecode(VOLUME_FILE)):
            return directory, parse_volume_file(read_volume_file(directory), directory)
    raise ConfigError(
        f"{path} lies neither in an envfs mount nor in a lower directory", hint="envfs status lists the mounts"
    )


def _read_start(path: Path) -> tuple[bytes, int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ConfigError(f"{path} is no regular file", hint="only regular files have a key of their own")
        return file.read(HEADER_SIZE), found.st_size


def _key_id(blob: bytes) -> str | None:
    """The CMK's id, from a blob of the embedded KMS; another KMS's blobs say nothing."""
    try:
        raw = read_any_blob(blob).key_id.hex()
    except FormatError:
        return None
    return "-".join((raw[:8], raw[8:12], raw[12:16], raw[16:20], raw[20:]))
