"""After a power failure: putting back from the journal what was torn while it was written over.

It needs no key of a file: a block is put back if it is neither what it was nor what was to become of it, but pieces of
both (`torn`). What the journal speaks of and is whole, was exchanged since, or belongs to a file that has gone, stays
as it is; so an older journal that somebody puts there changes nothing that is whole.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat as stat_module
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from envfs.crypto.mac import Mac
from envfs.errors import EnvfsError, FormatError
from envfs.format.geometry import HEADER_SIZE, Geometry
from envfs.format.header import peek_file_id
from envfs.format.journal import MAGIC, RECORD_MAX, Entry, Record
from envfs.fs import lower
from envfs.fs.journal import JOURNAL_FILE, LIMIT, retire
from envfs.fs.own_file import is_without_record, open_regular
from envfs.fs.raised_mode import open_readable, open_writable
from envfs.fs.torn import is_torn

log = logging.getLogger("envfs.fs")

_FIRST: Final = 0


@dataclass(slots=True)
class Waiting:
    """What the journal says of one file."""

    file_id: bytes
    inode: int
    path: bytes
    blocks: dict[int, list[Entry]] = field(default_factory=dict)


def records(root_fd: int, key: Mac) -> list[Record]:
    """The records of the journal, in their order, up to the first that is not whole. Raises OSError."""
    try:
        fd = open_regular(root_fd, JOURNAL_FILE)
    except (FileNotFoundError, FormatError):
        return []
    try:
        return list(_parsed(fd, key))
    finally:
        os.close(fd)


def _parsed(fd: int, key: Mac) -> Iterator[Record]:
    position, first = 0, None
    number = 0
    while position < LIMIT:
        raw = os.pread(fd, RECORD_MAX, position)
        try:
            record, size = Record.parse(raw, key)
        except EnvfsError:
            return
        first = first or record
        if record.epoch != first.epoch or record.number != number:  # what is left of an earlier epoch
            return
        yield record
        number += 1
        position += size


def is_retired(root_fd: int) -> bool:
    """Whether the journal holds no record, as after an orderly unmount. Raises OSError."""
    return is_without_record(root_fd, JOURNAL_FILE, len(MAGIC), _FIRST)


def _by_file(found: Sequence[Record]) -> list[Waiting]:
    files: dict[bytes, Waiting] = {}
    for record in found:
        waiting = files.setdefault(record.file_id, Waiting(record.file_id, record.inode, record.path))
        waiting.inode, waiting.path = record.inode, record.path
        for entry in record.entries:
            waiting.blocks.setdefault(entry.index, []).append(entry)
    return list(files.values())


def recover(root_fd: int, key: Mac, block_log2: int, boot_id: bytes) -> None:
    """At mount: put back what is torn. Raises OSError if that fails; nothing is lost then, and the next mount tries."""
    found = records(root_fd, key)
    if found:
        is_same_boot = any(record.boot_id == boot_id for record in found)
        for file, fd in _files(root_fd, _by_file(found), write=True, everywhere=not is_same_boot):
            _put_back(fd, file, Geometry(1 << block_log2))
        if is_same_boot:
            # A daemon was killed and the machine runs on: what was moved since is whole, but perhaps not on the disk.
            lower.syncfs(root_fd)
    if found or _is_there(root_fd):
        retire(root_fd)


def _is_there(root_fd: int) -> bool:
    """Whether something stands there that is not a journal kept from the last mount."""
    try:
        return not is_retired(root_fd)
    except FileNotFoundError:
        return False
    except OSError:
        return True


def torn_blocks(root_fd: int, key: Mac, block_log2: int) -> dict[bytes, list[int]]:
    """What the next mount would put back: block indices by file id. Raises OSError."""
    geometry = Geometry(1 << block_log2)
    found = records(root_fd, key)
    waiting = {}
    for file, fd in _files(root_fd, _by_file(found), write=False, everywhere=True):
        torn = [index for index in file.blocks if _is_torn(fd, file, index, geometry)]
        if torn:
            waiting[file.file_id] = sorted(torn)
    return waiting


def tell_what_waits(root_fd: int, key: Mac, block_log2: int) -> None:
    """At a mount that must not write."""
    try:
        waiting = torn_blocks(root_fd, key, block_log2)
    except OSError as error:
        log.warning("the journal cannot be read: %s", error)
        return
    if waiting:
        count = sum(map(len, waiting.values()))
        log.warning(
            "%d blocks of %d files were torn by a power failure and cannot be read: to put them back, mount the volume "
            "once without -o ro, or run 'envfs fsck --repair'",
            count,
            len(waiting),
        )


# Finding the files


def _files(root_fd: int, files: Sequence[Waiting], *, write: bool, everywhere: bool) -> Iterator[tuple[Waiting, int]]:
    """Each file that is still there, with a descriptor: by its path, or `everywhere`, wherever it was moved since. One
    whose path was not known is looked for in any case.
    """
    missing: dict[int, Waiting] = {}
    for file in files:
        with contextlib.ExitStack() as stack:
            fd = _open(root_fd, file.path, file.file_id, stack, write=write) if file.path else -1
            if fd < 0:
                missing[file.inode] = file
            else:
                yield file, fd
    if not everywhere:
        missing = {inode: file for inode, file in missing.items() if not file.path}
    if not missing:
        return
    for path, inode in _walk(root_fd):
        if inode in missing:
            with contextlib.ExitStack() as stack:
                fd = _open(root_fd, path, missing[inode].file_id, stack, write=write)
                if fd >= 0:
                    yield missing.pop(inode), fd
        if not missing:
            return


def _open(root_fd: int, path: bytes, file_id: bytes, stack: contextlib.ExitStack, *, write: bool) -> int:
    """The file at a path below the root, if it has the id; -1 if it is not there. No symlink is followed."""
    fd = root_fd
    *directories, name = path.split(b"/")
    try:
        for part in directories:
            fd = os.open(part, lower.OPEN_DIRECTORY, dir_fd=fd)
            stack.callback(os.close, fd)
        opener = open_writable if write else open_readable
        fd = opener(root_fd, b"/".join(directories), fd, name)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return -1
    except OSError as error:
        if error.errno in lower.SOMETHING_ELSE:
            return -1
        if write:
            raise
        log.debug("a file of the journal cannot be looked at: %s", error)
        return -1
    stack.callback(os.close, fd)
    is_it = stat_module.S_ISREG(os.fstat(fd).st_mode) and peek_file_id(os.pread(fd, HEADER_SIZE, 0)) == file_id
    return fd if is_it else -1


def _walk(root_fd: int) -> Iterator[tuple[bytes, int]]:
    """Path and inode number of all regular files."""
    waiting = [b""]
    while waiting:
        path = waiting.pop()
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            fd = root_fd
            for part in path.split(b"/") if path else ():
                fd = os.open(part, lower.OPEN_DIRECTORY, dir_fd=fd)
                stack.callback(os.close, fd)
            with os.scandir(fd) as entries:
                for entry in entries:
                    full = os.path.join(path, os.fsencode(entry.name))
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(full)
                    elif entry.is_file(follow_symlinks=False):
                        yield full, entry.inode()


# Putting back


def _is_torn(fd: int, file: Waiting, index: int, geometry: Geometry) -> bool:
    start = geometry.block_offset(index)
    return is_torn(start, os.pread(fd, geometry.cipher_block, start), file.blocks[index])


def _put_back(fd: int, file: Waiting, geometry: Geometry) -> None:
    torn = sorted((index for index in file.blocks if _is_torn(fd, file, index, geometry)), reverse=True)
    if torn:
        before = os.fstat(fd)
        for index in torn:
            old = file.blocks[index][-1].old
            start = geometry.block_offset(index)
            lower.write_all(fd, old, start)
            if len(old) < geometry.cipher_block:  # a short block is the last one: nothing stood behind it
                os.ftruncate(fd, start + len(old))
        os.utime(fd, ns=(before.st_atime_ns, before.st_mtime_ns))
        log.warning("put back %d blocks of a file that were torn when the power failed", len(torn))
    os.fsync(fd)
