"""One entry that is no directory: whether DST has it already, and putting it there whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat as stat_module
from collections.abc import Callable
from typing import Final

from envfs.fs import lower
from envfs.service.transfer import attributes
from envfs.service.transfer.content import SourceChanged, copy, digest_of
from envfs.service.transfer.report import Outcome

PART_PREFIX: Final = b".envfs-part."
_ATTEMPTS: Final = 2

Advance = Callable[[int], None]


class Different(Exception):
    """What was read back is not what was written."""


class Taken(Exception):
    """Something else has the name in DST."""


def lstat(dir_fd: int, name: bytes) -> os.stat_result | None:
    """None if there is nothing."""
    try:
        return os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return None


def seems_equal(source_fd: int, target_fd: int, name: bytes, source: os.stat_result, target: os.stat_result) -> bool:
    """Whether DST has it: a name is given to what is whole alone, so size and time are enough."""
    kind = stat_module.S_IFMT(source.st_mode)
    if kind != stat_module.S_IFMT(target.st_mode):
        return False
    if kind == stat_module.S_IFREG:
        return has_time_and_size_of(source, target)
    if kind == stat_module.S_IFLNK:
        return os.readlink(name, dir_fd=source_fd) == os.readlink(name, dir_fd=target_fd)
    if kind in {stat_module.S_IFCHR, stat_module.S_IFBLK}:
        return source.st_rdev == target.st_rdev
    return kind == stat_module.S_IFIFO


def has_time_and_size_of(source: os.stat_result, target: os.stat_result) -> bool:
    """Whether a regular file in DST may be a copy of one in SRC, as far as their inodes say."""
    return (source.st_size, source.st_mtime_ns) == (target.st_size, target.st_mtime_ns)


def is_equal(source_fd: int, target_fd: int, name: bytes, advance: Advance) -> bool:
    """Whether two regular files have the same content, by reading them."""
    digests = []
    for dir_fd in (source_fd, target_fd):
        fd = _open_to_read(dir_fd, name)
        try:
            digests.append(digest_of(fd, os.fstat(fd).st_size, advance))
        finally:
            os.close(fd)
    return digests[0] == digests[1]


def put(
    source_fd: int, target_fd: int, name: bytes, status: os.stat_result, advance: Advance, *, replace: bool
) -> tuple[Outcome, list[str], int]:
    """Copies one entry. What became of it, what was not kept of it, and how many bytes it has.

    OSError, SourceChanged, Different, Taken; then DST is as it was.
    """
    if not stat_module.S_ISREG(status.st_mode):
        return Outcome.COPIED, _put_special(source_fd, target_fd, name, status, replace=replace), 0
    for attempt in range(_ATTEMPTS):
        try:
            lost, size = _put_file(source_fd, target_fd, name, advance, replace=replace)
        except SourceChanged:
            if attempt == _ATTEMPTS - 1:
                raise
        else:
            return Outcome.COPIED, lost, size
    raise AssertionError  # the last attempt returns or raises


def link(first_fd: int, first: bytes, target_fd: int, name: bytes, *, replace: bool) -> None:
    """Gives what `first` names in DST another name. OSError, Taken."""
    temporary = part_name()
    os.link(first, temporary, src_dir_fd=first_fd, dst_dir_fd=target_fd, follow_symlinks=False)
    try:
        _give_name(target_fd, temporary, name, replace=replace)
    finally:
        lower.unlink_if_there(target_fd, temporary)  # rename(2) of one link over another leaves both


def part_name() -> bytes:
    return PART_PREFIX + secrets.token_hex(8).encode()


def _put_file(source_fd: int, target_fd: int, name: bytes, advance: Advance, *, replace: bool) -> tuple[list[str], int]:
    with contextlib.ExitStack() as stack:
        source = _open_to_read(source_fd, name)
        stack.callback(os.close, source)
        before = os.fstat(source)
        temporary = part_name()
        try:
            digest, written = _write(source, target_fd, temporary, before, advance)
            wanted = attributes.read(source, before)
            if _stamp(os.fstat(source)) != _stamp(before) or not _is_named(source_fd, name, before):
                raise SourceChanged
            back, lost = _open_back(target_fd, temporary)
            stack.callback(os.close, back)
            if not lost:
                _verify(back, written, before.st_size, digest, advance)
            lost += attributes.apply(back, wanted, is_path=bool(lost))
            # Whoever else may write the directory could have put something in its place.
            if not _is_named(target_fd, temporary, written):
                raise Different
            _give_name(target_fd, temporary, name, replace=replace)
        except BaseException:
            lower.unlink_if_there(target_fd, temporary)
            raise
    return lost, before.st_size


def _write(
    source: int, target_fd: int, temporary: bytes, before: os.stat_result, advance: Advance
) -> tuple[bytes, os.stat_result]:
    """The content under a temporary name, synced and closed: its digest, and what it is."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    target = os.open(temporary, flags, 0o600, dir_fd=target_fd)
    try:
        digest = copy(source, target, before, advance)
        os.fsync(target)
        return digest, os.fstat(target)
    finally:
        os.close(target)


def _open_back(target_fd: int, temporary: bytes) -> tuple[int, list[str]]:
    """What was written, opened anew, as any reader does; with O_PATH by those who may make files and not read them:
    theirs are not compared.
    """
    try:
        return _open_to_read(target_fd, temporary), []
    except PermissionError:
        return os.open(temporary, lower.OPEN_PATH, dir_fd=target_fd), ["comparison (you may not read it)"]
    except SourceChanged:
        raise Different from None


def _verify(back: int, written: os.stat_result, size: int, digest: bytes, advance: Advance) -> None:
    """That who opens it reads what was read from SRC: through the filesystem, not out of the pages just written."""
    found = os.fstat(back)
    if not os.path.samestat(found, written) or found.st_size != size:
        raise Different
    os.posix_fadvise(back, 0, 0, os.POSIX_FADV_DONTNEED)
    try:
        if digest_of(back, size, advance) != digest:
            raise Different
    except SourceChanged:
        raise Different from None


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    # Without the time of the last change: in a mount it moves when envfs writes a header.
    return status.st_size, status.st_mtime_ns, status.st_mode, status.st_uid, status.st_gid


def _is_named(dir_fd: int, name: bytes, status: os.stat_result) -> bool:
    found = lstat(dir_fd, name)
    return found is not None and os.path.samestat(found, status)


def _open_to_read(dir_fd: int, name: bytes) -> int:
    """OSError if it is no regular file (any more)."""
    flags = lower.OPEN_READ | os.O_NOATIME
    try:
        fd = os.open(name, flags, dir_fd=dir_fd)
    except PermissionError:  # not ours, or not allowed at all
        fd = os.open(name, lower.OPEN_READ, dir_fd=dir_fd)
    if not stat_module.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise SourceChanged
    return fd


def _put_special(source_fd: int, target_fd: int, name: bytes, status: os.stat_result, *, replace: bool) -> list[str]:
    """A symlink, FIFO or device."""
    temporary = part_name()
    if stat_module.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(name, dir_fd=source_fd), temporary, dir_fd=target_fd)
    else:
        os.mknod(temporary, stat_module.S_IFMT(status.st_mode) | 0o600, status.st_rdev, dir_fd=target_fd)
    try:
        fd = os.open(temporary, lower.OPEN_PATH, dir_fd=target_fd)
        try:
            if stat_module.S_IFMT(os.fstat(fd).st_mode) != stat_module.S_IFMT(status.st_mode):
                raise Taken  # somebody plays with our directory
            lost = attributes.apply(fd, attributes.Attributes(status, {}), is_path=True)
        finally:
            os.close(fd)
        _give_name(target_fd, temporary, name, replace=replace)
    except BaseException:
        lower.unlink_if_there(target_fd, temporary)
        raise
    return lost


def _give_name(dir_fd: int, temporary: bytes, name: bytes, *, replace: bool) -> None:
    try:
        lower.rename(dir_fd, temporary, dir_fd, name, 0 if replace else lower.RENAME_NOREPLACE)
    except FileExistsError:
        raise Taken from None
    except IsADirectoryError:
        raise Taken from None
    except OSError as error:
        if replace or error.errno != errno.EINVAL:
            raise
        # A filesystem that cannot promise it: look first.
        if lower.exists(dir_fd, name):
            raise Taken from None
        os.rename(temporary, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)


def remove_leavings(dir_fd: int) -> None:
    """What a command that was killed left in a directory of DST."""
    for name in os.listdir(lower.proc_path(dir_fd).encode()):
        if name.startswith(PART_PREFIX):
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=dir_fd)
