"""Reading a file of a lower directory without a mount: finding what shows where it belongs, and its blocks in order.

The lower directory may be hostile, and may be in use: nothing is followed but directories from the volume's root down,
each by its descriptor, and what is not authentic is looked at again, since a mount may have been writing it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat as stat_module
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, Self, TypeVar

from envfs.errors import ConfigError, FormatError, IntegrityError
from envfs.format.directory import MAX_DIRECTORY_FILE_SIZE
from envfs.format.evidence import Evidence, Step
from envfs.format.geometry import HEADER_SIZE, Geometry
from envfs.format.names import (
    CIPHER_NAME_MAX,
    DIRECTORY_FILE,
    LONG_PREFIX,
    RESERVED_PREFIX,
    VOLUME_FILE,
    check_name_file,
    name_file_for,
)
from envfs.fs import lower
from envfs.service.errors import MountError
from envfs.service.volume import parse_volume_file, read_volume_file

if TYPE_CHECKING:
    from envfs.format.header import Slot

T = TypeVar("T")

CHUNK: Final = 256 << 10  # bytes of sealed blocks that are opened at once, at most
_PASSES: Final = 5
_BETWEEN_PASSES: Final = 0.25  # seconds


class OpenedFile(Protocol):
    """A file whose header is authentic and that the KMS lets the caller read."""

    @property
    def slot(self) -> Slot: ...
    def open(self, first_index: int, cipher: bytes, /) -> tuple[bytes, int | None]:
        """The plain bytes of sealed blocks before the first that is not authentic, and that one's index."""


#: Asks the KMS; None for an empty file. Raises KmsErrors, IntegrityError, FormatError.
Opener = Callable[[Evidence], OpenedFile | None]


class Changed(MountError):
    """The file was written to while it was read."""


class LowerReader:
    """One lower file, opened. A context manager that closes it. ConfigError if it is no file of a volume."""

    def __init__(self, path: Path, opener: Opener) -> None:
        self._path = path
        self._opener = opener
        with contextlib.ExitStack() as stack:
            try:
                self._root, parent = _find_root(path)
                self._fd, self._way = self._settle(lambda: _locate(path, self._root, parent))
            except PermissionError as error:
                raise ConfigError(
                    f"{path}: you may not read {_named(error, path)} in the lower directory",
                    hint="besides the file it takes envfs.volume, and envfs.dir in each directory above it, which hold "
                    "no secret: ask whoever owns them; or read the file in a mount",
                ) from None
            stack.callback(os.close, self._fd)
            self._geometry = Geometry(parse_volume_file(self._way.volume_file, path).block_size)
            self._state = self._stamp()
            self._opened = self._settle(self._open)
            self.size = self._geometry.plain_size(os.fstat(self._fd).st_size) if self._opened is not None else 0
            stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def read(self, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Authentic plain bytes, in order. IntegrityError at the first block that is none; Changed, at the end, if the
        file was written to meanwhile.
        """
        end = self.size if length is None else min(self.size, offset + length)
        blocks = max(1, CHUNK // self._geometry.cipher_block)
        first, last = self._geometry.blocks(offset, end - offset)
        for index in range(first, last, blocks):
            plain, damaged = self._chunk(index, min(last, index + blocks))
            start = index * self._geometry.block_size
            yield plain[max(0, offset - start) : max(0, end - start)]
            if damaged is not None:
                self._check_unchanged()
                raise IntegrityError(
                    f"{self._path}: block {damaged} is damaged",
                    hint="envfs fsck LOWER --read-data tells how much is; restore the file from a backup",
                    block=damaged,
                )
        self._check_unchanged()

    def _check_unchanged(self) -> None:
        if self._stamp() != self._state:
            raise Changed(
                f"{self._path} was written to while it was read", hint="read it in the mount, or try again later"
            )

    def _chunk(self, first: int, end: int) -> tuple[bytes, int | None]:
        """Blocks `first` to `end` (exclusive), as they are once a writer has come to rest."""
        plain, damaged = b"", None
        for number in range(_PASSES):
            if number:
                if not _is_mounted(self._root):
                    break
                time.sleep(_BETWEEN_PASSES)
                self._opened = self._open()
            assert self._opened is not None  # a file of blocks has a header
            start = self._geometry.block_offset(first)
            stop = min(self._geometry.block_offset(end), self._geometry.cipher_size(self.size))
            cipher = os.pread(self._fd, stop - start, start)
            plain, damaged = self._opened.open(first, cipher)
            if damaged is None and len(cipher) == stop - start:
                return plain, None
            if damaged is None:
                damaged = first + len(plain) // self._geometry.block_size
        return plain, damaged

    def _open(self) -> OpenedFile | None:
        size = os.fstat(self._fd).st_size
        way = self._way
        header = os.pread(self._fd, HEADER_SIZE, 0)
        try:
            opened = self._opener(Evidence(way.volume_file, way.steps, way.cipher_name, header))
        except (IntegrityError, FormatError) as error:
            raise type(error)(f"{self._path}: {error.message}", hint=error.hint) from None
        if opened is None:
            if size > HEADER_SIZE:
                raise IntegrityError(f"{self._path} has blocks but no header")
            return None
        plain = self._geometry.plain_size(size)
        if plain < opened.slot.length_bound:
            raise IntegrityError(f"{self._path} was cut: {plain} bytes are left of at least {opened.slot.length_bound}")
        return opened

    def _settle(self, look: Callable[[], T]) -> T:
        """What `look` gives, or what is wrong still after a second: a rename may have been under way."""
        for _ in range(_PASSES - 1):
            try:
                return look()
            except (IntegrityError, FormatError, FileNotFoundError):
                if not _is_mounted(self._root):
                    break
                time.sleep(_BETWEEN_PASSES)
        return look()

    def _stamp(self) -> tuple[int, int]:
        found = os.fstat(self._fd)
        return found.st_size, found.st_mtime_ns


def _named(error: PermissionError, path: Path) -> str:
    return os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else str(path)


def _is_mounted(root: Path) -> bool:
    """Whether somebody may be changing the volume: then what is wrong now may be right in a moment."""
    try:
        fd = os.open(root / os.fsdecode(VOLUME_FILE), lower.OPEN_READ)
    except OSError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # which a mount holds against us
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


def _find_root(path: Path) -> tuple[Path, Path]:
    """The root of the volume in which the file lies, and the directory in which it lies; both without symlinks."""
    # A symlink among the directories is resolved here; one in the volume itself leads to no authentic place.
    parent = Path(os.path.realpath(path.absolute().parent))
    root = next((one for one in (parent, *parent.parents) if os.path.lexists(one / os.fsdecode(VOLUME_FILE))), None)
    if root is None:
        raise ConfigError(
            f"{path} does not lie in a lower directory: no directory above it holds {os.fsdecode(VOLUME_FILE)}",
            hint="name a file in LOWER; what lies in a mount can be read with cat(1)",
        )
    return root, parent


def _locate(path: Path, root: Path, parent: Path) -> tuple[int, Evidence]:
    """The file's descriptor, and all but its header of what shows where it belongs."""
    name = os.fsencode(path.name)
    if name.startswith(RESERVED_PREFIX) and not name.startswith(LONG_PREFIX):
        raise ConfigError(f"{path} is a file of the volume itself, not of a user", hint="name one of the other files")
    steps: list[Step] = []
    with contextlib.ExitStack() as stack:
        fd = os.open(root, lower.OPEN_DIRECTORY)
        stack.callback(os.close, fd)
        steps.append(Step(b"", lower.read_small_file(fd, DIRECTORY_FILE, MAX_DIRECTORY_FILE_SIZE)))
        for part in parent.relative_to(root).parts:
            cipher_name = _full_name(fd, os.fsencode(part))
            fd = os.open(part, lower.OPEN_DIRECTORY, dir_fd=fd)
            stack.callback(os.close, fd)
            steps.append(Step(cipher_name, lower.read_small_file(fd, DIRECTORY_FILE, MAX_DIRECTORY_FILE_SIZE)))
        cipher_name = _full_name(fd, name)
        file = _open_file(fd, name, path)
    return file, Evidence(read_volume_file(root), tuple(steps), cipher_name, b"")


def _open_file(dir_fd: int, name: bytes, path: Path) -> int:
    what = os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_mode
    if stat_module.S_ISREG(what):
        file = os.open(name, lower.OPEN_READ, dir_fd=dir_fd)
        if stat_module.S_ISREG(os.fstat(file).st_mode):
            return file
        os.close(file)
    kind = "a symlink" if stat_module.S_ISLNK(what) else "no regular file"
    raise ConfigError(f"{path} is {kind}", hint="only regular files have content of their own")


def _full_name(dir_fd: int, name: bytes) -> bytes:
    if not name.startswith(LONG_PREFIX):
        return name
    return check_name_file(name, lower.read_small_file(dir_fd, name_file_for(name), CIPHER_NAME_MAX))
