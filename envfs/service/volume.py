"""Making a volume and opening one: the volume file, its key, the root's directory file (docs/FORMAT.md, 5 and 8)."""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from envfs.crypto.aead import Suite
from envfs.crypto.secret import Secret
from envfs.errors import ConfigError, EnvfsError, FormatError, IntegrityError, InvalidCiphertext, UnsupportedVersion
from envfs.format.directory import DirectoryFile
from envfs.format.header import volume_context
from envfs.format.names import DIRECTORY_FILE, TEMPORARY_PREFIX, VOLUME_BACKUP, VOLUME_FILE
from envfs.format.place import ROOT, Kind
from envfs.format.volume import MAX_VOLUME_FILE_SIZE, VolumeFile
from envfs.format.volume_keys import VolumeKeys

if TYPE_CHECKING:
    from pathlib import Path

    from envfs.kms.engine import Engine

# A page: the kernel writes whole pages, so no write has to read and seal again what stands around it.
DEFAULT_BLOCK_SIZE = 4096
BLOCK_SIZES = (4096, 8192, 16384, 32768, 65536)
DEFAULT_SUITE = Suite.AES_256_GCM
SERVICE_KEY_ALIAS = "alias/envfs/volume"

# What a volume of which no file was made yet consists of; lost+found stands in the root of a filesystem of its own.
_OF_AN_EMPTY_VOLUME = frozenset((DIRECTORY_FILE, VOLUME_BACKUP))
_NOT_OURS = frozenset((b"lost+found",))


@dataclass(frozen=True, slots=True)
class OpenVolume:
    """An authentic volume file and the keys derived from its volume key."""

    file: VolumeFile
    keys: VolumeKeys


def block_size_log2(block_size: int) -> int:
    """log2 of a block size in bytes; ConfigError if the format has no such size."""
    if block_size not in BLOCK_SIZES:
        raise ConfigError(f"no block size: {block_size}", hint="one of " + ", ".join(map(str, BLOCK_SIZES)))
    return block_size.bit_length() - 1


def make_volume(lower: Path, engine: Engine, *, key_arn: str, suite: Suite, block_size: int, now: int) -> VolumeFile:
    """Make a volume in `lower`, an empty directory or a name that is free. `now`: seconds since 1970.

    Everything is written under temporary names first, and `envfs.volume` gets its name last: a failure takes back
    what was made, and what a crash leaves behind is no volume, and `make_volume` clears it away. ConfigError,
    OSError, or what the KMS says.
    """
    block_log2 = block_size_log2(block_size)
    created = _make_directory(lower)
    try:
        if created:
            _sync_directory(lower.parent)
        directory = os.open(lower, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _lock(directory, lower)
            leavings = _check_free(directory, lower)
            volume, contents = _compose(engine, key_arn, suite, block_log2, now)
            for name in leavings:
                os.unlink(name, dir_fd=directory)
            _write_all(directory, contents)
        finally:
            os.close(directory)
    except BaseException:
        if created:
            lower.rmdir()
        raise
    return volume


def check_new_volume(lower: Path) -> None:
    """What can be said against `make_volume` without doing anything: ConfigError, OSError."""
    try:
        directory = os.open(lower, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        if not lower.parent.is_dir():
            raise _no_parent(lower) from None
        return
    except NotADirectoryError:
        raise _no_directory(lower) from None
    try:
        _check_free(directory, lower)
    finally:
        os.close(directory)


def open_volume(lower: Path, engine: Engine) -> OpenVolume:
    """Read and authenticate the volume file of `lower`.

    ConfigError (no volume, another KMS), UnsupportedVersion, FormatError, IntegrityError.
    """
    raw = read_volume_file(lower)
    return authenticate_volume_file(parse_volume_file(raw, lower), raw, engine, lower)


def authenticate_volume_file(volume: VolumeFile, raw: bytes, engine: Engine, lower: Path) -> OpenVolume:
    """`volume`, which `raw` says, if it is of this KMS and authentic. ConfigError, IntegrityError."""
    if volume.kms_id != engine.store_id:
        raise ConfigError(
            f"the volume {lower} belongs to another KMS ({volume.kms_id.hex()}), this one is {engine.store_id.hex()}",
            hint="set ENVFS_HOME to the directory of the KMS with which the volume was made",
        )
    try:
        volume_key = engine.unwrap_service_owned(volume.blob, volume_context(volume.volume_id))
    except (InvalidCiphertext, FormatError) as error:
        raise _damaged(lower, "its volume key cannot be unwrapped") from error
    with volume_key:
        keys = VolumeKeys(volume_key)
    if not VolumeFile.verify(raw, keys.volume_file):
        raise _damaged(lower, "it is not authentic")
    return OpenVolume(volume, keys)


def read_volume_file(lower: Path) -> bytes:
    """The bytes of `envfs.volume`. ConfigError if `lower` is no volume."""
    path = lower / os.fsdecode(VOLUME_FILE)
    try:
        # O_NONBLOCK: should it be a FIFO, it is refused below and not waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise _no_volume(lower) from None
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _damaged(lower, "it is not a regular file")
        return file.read(MAX_VOLUME_FILE_SIZE + 1)


def parse_volume_file(raw: bytes, lower: Path) -> VolumeFile:
    """What a volume file says, unauthenticated, with errors that tell what to do."""
    try:
        return VolumeFile.parse(raw)
    except UnsupportedVersion as error:
        raise UnsupportedVersion(
            f"the volume {lower} was made by a newer release: {error.message}", hint="update envfs on this machine"
        ) from None
    except FormatError as error:
        raise _damaged(lower, error.message, of=type(error)) from None


def _no_volume(lower: Path) -> ConfigError:
    if not lower.is_dir():
        return ConfigError(f"the lower directory {lower} does not exist", hint=f"envfs init {lower} makes a volume")
    backup = lower / os.fsdecode(VOLUME_BACKUP)
    if backup.exists():
        hint = f"its copy is still there: cp {backup} {lower / os.fsdecode(VOLUME_FILE)}"
        return ConfigError(f"the volume file of {lower} is missing", hint=hint)
    return ConfigError(f"{lower} is not an envfs volume", hint=f"envfs init {lower} makes one in an empty directory")


def _damaged(lower: Path, how: str, *, of: type[FormatError | IntegrityError] = IntegrityError) -> EnvfsError:
    path, backup = lower / os.fsdecode(VOLUME_FILE), lower / os.fsdecode(VOLUME_BACKUP)
    return of(f"the volume file {path} is damaged: {how}", hint=f"put its copy in its place: cp {backup} {path}")


def _make_directory(lower: Path) -> bool:
    """Whether the directory had to be made."""
    try:
        lower.mkdir()
    except FileExistsError:
        if not lower.is_dir():
            raise _no_directory(lower) from None
        return False
    except FileNotFoundError:
        raise _no_parent(lower) from None
    return True


def _no_directory(lower: Path) -> ConfigError:
    return ConfigError(f"{lower} is not a directory", hint="name an empty directory, or one that is to be made")


def _no_parent(lower: Path) -> ConfigError:
    return ConfigError(f"the directory {lower.parent} does not exist", hint=f"mkdir -p {lower.parent}")


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lock(directory: int, lower: Path) -> None:
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError(f"another process makes a volume in {lower}", hint="wait until it has ended") from None


def _check_free(directory: int, lower: Path) -> list[bytes]:
    """The leavings of an interrupted `make_volume`, if there is nothing else in the directory; else ConfigError."""
    names = {os.fsencode(name) for name in os.listdir(directory)} - _NOT_OURS
    if VOLUME_FILE in names:
        raise ConfigError(f"{lower} is an envfs volume already", hint=f"envfs mount {lower} MOUNTPOINT")
    leavings = {name for name in names if name.startswith(TEMPORARY_PREFIX)} | (names & _OF_AN_EMPTY_VOLUME)
    if names == leavings:
        return sorted(names)
    if VOLUME_BACKUP in names:
        raise _no_volume(lower)
    raise ConfigError(
        f"{lower} is not empty",
        hint="make the volume in an empty directory, mount it, and copy the files into the mount",
    )


def _compose(
    engine: Engine, key_arn: str, suite: Suite, block_log2: int, now: int
) -> tuple[VolumeFile, dict[bytes, bytes]]:
    """The volume file, and the files to write, in the order in which they get their names."""
    volume_id, root_id = secrets.token_bytes(16), _directory_id()
    with Secret.random() as volume_key:
        blob = engine.wrap_service_owned(volume_key, volume_context(volume_id))
        keys = VolumeKeys(volume_key)
    volume = VolumeFile(suite, block_log2, volume_id, engine.store_id, root_id, now, key_arn, blob)
    raw = volume.serialise(keys.volume_file)
    root = DirectoryFile(root_id).serialise(keys.directory, keys.place.pack(Kind.DIRECTORY, root_id, ROOT))
    return volume, {DIRECTORY_FILE: root, VOLUME_BACKUP: raw, VOLUME_FILE: raw}


def _directory_id() -> bytes:
    """A random id other than the two that FORMAT.md section 5 sets apart."""
    while True:
        candidate = secrets.token_bytes(16)
        if candidate not in (bytes(16), b"\xff" * 16):
            return candidate


def _write_all(directory: int, contents: dict[bytes, bytes]) -> None:
    """Write files durably: all under temporary names, then each renamed, in order. Takes back everything on failure."""
    made: list[bytes] = []
    try:
        temporary = {name: TEMPORARY_PREFIX + secrets.token_hex(8).encode() for name in contents}
        for name, content in contents.items():
            made.append(temporary[name])
            _write(directory, temporary[name], content)
        for name in contents:
            os.rename(temporary[name], name, src_dir_fd=directory, dst_dir_fd=directory)
            made.append(name)
            os.fsync(directory)
    except BaseException:
        for name in made:
            try:
                os.unlink(name, dir_fd=directory)
            except FileNotFoundError:
                pass
        raise


def _write(directory: int, name: bytes, content: bytes) -> None:
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
