"""What hangs on a key in one volume: counted from the headers in the lower directory, which say so without any key.

Nothing here is authenticated: somebody who can write the lower directory can make a file look as if it were under
another key. It is for people who are about to delete one.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from envfs.errors import ConfigError, EnvfsError, FormatError, IntegrityError
from envfs.format.blob import blob_ids
from envfs.format.geometry import HEADER_SIZE, Geometry
from envfs.format.header import parse_header_area
from envfs.format.names import DIRECTORY_FILE, LONG_PREFIX, RESERVED_PREFIX
from envfs.fs import lower
from envfs.service.volume import parse_volume_file, read_volume_file

if TYPE_CHECKING:
    from envfs.format.volume import VolumeFile

_DIRECTORY_START: Final = 128
_KEY_LENGTH: Final = struct.Struct(">H")


@dataclass(slots=True)
class Usage:
    """Of one key in one volume. `size` counts plain bytes; `unreadable` what could not be looked at."""

    files: int = 0
    size: int = 0
    directories: int = 0  # that give the key to new files
    is_default: bool = False  # whether the volume does where no directory says otherwise
    unreadable: int = 0
    looked_at: int = 0

    def as_dict(self) -> dict[str, Any]:
        """For people and scripts."""
        return {
            "files": self.files,
            "bytes": self.size,
            "directories": self.directories,
            "default": self.is_default,
            "unreadable": self.unreadable,
        }


def volume_of(path: Path, volume_id: bytes) -> VolumeFile | None:
    """The volume file of a lower directory, if that volume still stands there."""
    try:
        volume = parse_volume_file(read_volume_file(path), path)
    except (OSError, EnvfsError):
        return None
    return volume if volume.volume_id == volume_id else None


def count_usage(
    path: Path, volume: VolumeFile, key_arn: str, advance: Callable[[int], None], stop: Callable[[], bool]
) -> Usage:
    """Count what is under a key below a lower directory. `advance` hears how many files were looked at, now and then.

    Raises OSError if the directory cannot be opened.
    """
    usage = Usage(is_default=volume.key_arn == key_arn)
    counting = _Counting(usage, key_arn, Geometry(volume.block_size), advance, stop)
    fd = os.open(path, lower.OPEN_DIRECTORY)
    try:
        counting.directory(fd)
    finally:
        os.close(fd)
    return usage


class _Counting:
    def __init__(
        self, usage: Usage, key_arn: str, geometry: Geometry, advance: Callable[[int], None], stop: Callable[[], bool]
    ) -> None:
        self._usage = usage
        self._key_arn = key_arn.encode()
        self._key_id = key_id_of(key_arn)
        self._geometry = geometry
        self._advance = advance
        self._stop = stop

    def directory(self, fd: int) -> None:
        usage = self._usage
        try:
            if self._own_key(fd) == self._key_arn:
                usage.directories += 1
            with os.scandir(fd) as entries:
                for entry in entries:
                    if self._stop():
                        return
                    raw = os.fsencode(entry.name)
                    if raw.startswith(RESERVED_PREFIX) and not raw.startswith(LONG_PREFIX):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        self._below(fd, entry.name)
                    elif entry.is_file(follow_symlinks=False):
                        self._file(fd, entry.name)
        except (OSError, RecursionError):
            usage.unreadable += 1

    def _below(self, fd: int, name: str) -> None:
        inner = os.open(name, lower.OPEN_DIRECTORY, dir_fd=fd)
        try:
            self.directory(inner)
        finally:
            os.close(inner)

    def _file(self, dir_fd: int, name: str) -> None:
        usage = self._usage
        usage.looked_at += 1
        if usage.looked_at % 512 == 0:
            self._advance(usage.looked_at)
        try:
            fd = os.open(name, lower.OPEN_READ, dir_fd=dir_fd)
            try:
                area = parse_header_area(os.pread(fd, HEADER_SIZE, 0))
                if not area.is_absent and blob_ids(area.slots[0].slot.blob)[0] == self._key_id:
                    usage.files += 1
                    usage.size += self._geometry.plain_size(os.fstat(fd).st_size)
            finally:
                os.close(fd)
        except FileNotFoundError:
            return
        except (OSError, FormatError, IntegrityError):
            usage.unreadable += 1

    def _own_key(self, fd: int) -> bytes:
        """The key that a directory file names; empty for none."""
        raw = lower.read_small_file(fd, DIRECTORY_FILE, 4096)[_DIRECTORY_START:]
        size = _KEY_LENGTH.unpack_from(raw, 24)[0] if len(raw) > 28 else 0
        return raw[28 : 28 + size]


def key_id_of(key_arn: str) -> bytes:
    """The 16 bytes of the key id in an ARN. ConfigError if there is none."""
    try:
        raw = bytes.fromhex(key_arn.rpartition("/")[2].replace("-", ""))
    except ValueError:
        raw = b""
    if len(raw) != 16:
        raise ConfigError(f"{key_arn!r} is no ARN of a key")
    return raw
