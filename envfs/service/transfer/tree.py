"""Copying a tree: the walk, the threads that copy files, and what comes after them.

First directories (open to their owner alone) and what stands in them, then further names of files that have several,
then the attributes of directories, the deepest first. Nothing is opened by a path but step by step from SRC and DST,
and no symlink is followed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import stat as stat_module
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from envfs.fs import lower
from envfs.service.errors import MountError
from envfs.service.transfer import attributes, entries
from envfs.service.transfer.content import SourceChanged
from envfs.service.transfer.entries import Different, Taken
from envfs.service.transfer.report import Outcome, Report, Wishes

Parts = tuple[bytes, ...]

# So many files for each thread may wait to be copied.
_WAITING: Final = 8
_CHANGED: Final = "it was changed while it was read: copy it again later"
_NO_SPACE: Final = frozenset((errno.ENOSPC, errno.EDQUOT))
_NO_TARGET: Final = frozenset((errno.EROFS, errno.ENOTCONN))


class Stopped(Exception):
    """Another thread has met what ends everything."""


def measure(source: Path) -> int:
    """Bytes of content below `source`: what a progress bar goes up to. What cannot be looked at is left out."""
    size = 0
    waiting = [os.fspath(source)]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as found:
            for entry in found:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    with contextlib.suppress(OSError):
                        size += entry.stat(follow_symlinks=False).st_size
    return size


class TreeCopy:
    """One copy of SRC to DST. `advance` hears how many bytes of content were dealt with, in several threads."""

    def __init__(
        self, source: Path, target: Path, wishes: Wishes, advance: Callable[[int], None], *, eio_is_damage: bool
    ) -> None:
        self._source, self._target = source, target
        self._wishes = wishes
        self._advance_bar = advance
        self._eio_is_damage = eio_is_damage
        self._report = Report()
        self._is_new = False  # DST was made by this command
        self._stop = threading.Event()
        self._slots = threading.BoundedSemaphore(wishes.jobs * _WAITING)
        self._directories: list[Parts] = []
        self._links: dict[tuple[int, int], list[Parts]] = {}  # (device, inode) in SRC → names, the first one copied
        self._is_there: set[Parts] = set()  # of the first names, those that DST has

    def run(self) -> Report:
        """All of it. MountError if another command writes to DST; OSError if SRC or DST cannot be opened."""
        _raise_descriptor_limit()
        with contextlib.ExitStack() as stack:
            source = os.open(self._source, lower.OPEN_DIRECTORY)
            stack.callback(os.close, source)
            target = self._open_target(stack)
            with ThreadPoolExecutor(self._wishes.jobs) as pool:
                try:
                    self._walk(source, target, pool)
                except BaseException:
                    self._stop.set()
                    raise
            if not self._stop.is_set():
                self._link_all(source, target)
            if not self._stop.is_set() and not self._wishes.dry_run:
                self._finish_directories(source, target)
        return self._report

    def _open_target(self, stack: contextlib.ExitStack) -> int:
        """-1 if there is none and none is to be made."""
        if not os.path.lexists(self._target):
            if self._wishes.dry_run:
                return -1
            os.mkdir(self._target, 0o700)
            self._is_new = True
        target = os.open(self._target, lower.OPEN_DIRECTORY)
        stack.callback(os.close, target)
        if not self._is_in_place(target):  # unmounted since that was looked at, or another directory has the name
            if self._is_new:
                os.rmdir(self._target)
            raise MountError(
                f"{self._target} does not lie in the mount any more: nothing was copied",
                hint="mount the volume again, and type the same command again",
            )
        try:
            fcntl.flock(target, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise MountError(
                f"another command copies to {self._target}", hint="wait until it has ended; then this one does the rest"
            ) from None
        if self._is_new:
            os.fchmod(target, 0o700)
        return target

    def _is_in_place(self, target: int) -> bool:
        """Whether what is copied into this directory of DST is encrypted, if it has to be."""
        return self._wishes.device is None or os.fstat(target).st_dev == self._wishes.device

    # Directories, and what stands in them

    def _walk(self, source_root: int, target_root: int, pool: ThreadPoolExecutor) -> None:
        waiting: list[Parts] = [()]
        while waiting and not self._stop.is_set():
            parts = waiting.pop()
            try:
                waiting += self._directory(source_root, target_root, parts, pool)
            except OSError as error:
                self._tell(parts, error)

    def _directory(self, source_root: int, target_root: int, parts: Parts, pool: ThreadPoolExecutor) -> list[Parts]:
        """Makes one directory, has its files copied, and gives the directories in it."""
        source = open_below(source_root, parts)
        try:
            target = self._make_directory(target_root, parts)
        except BaseException:
            os.close(source)
            raise
        pair = _Pair(source, target)
        inner: list[Parts] = []
        try:
            for name in sorted(os.listdir(lower.proc_path(source).encode())):
                if self._stop.is_set():
                    break
                status = entries.lstat(source, name)
                if status is None or name.startswith(entries.PART_PREFIX):
                    continue
                if stat_module.S_ISDIR(status.st_mode):
                    inner.append((*parts, name))
                elif stat_module.S_ISSOCK(status.st_mode):
                    self._report.add(_path((*parts, name)), Outcome.SKIPPED, "a socket belongs to a running program")
                elif not self._is_further_name((*parts, name), status):
                    self._submit(pool, pair, (*parts, name), status)
        finally:
            pair.release()
        inner.reverse()
        return inner

    def _make_directory(self, target_root: int, parts: Parts) -> int:
        """Its descriptor in DST; -1 in a dry run, if it is not there."""
        if target_root < 0:
            self._report.add(_path(parts), Outcome.COPIED)
            return -1
        if not parts:
            target = os.dup(target_root)
            self._report.add(b".", Outcome.COPIED if self._is_new else Outcome.PRESENT)
        else:
            target = self._make_below(target_root, parts)
        if target >= 0 and not self._wishes.dry_run:
            self._directories.append(parts)
            self._open_up(target)
            entries.remove_leavings(target)
        return target

    def _make_below(self, target_root: int, parts: Parts) -> int:
        try:
            parent = open_below(target_root, parts[:-1])
        except FileNotFoundError:
            if not self._wishes.dry_run:
                raise
            self._report.add(_path(parts), Outcome.COPIED)
            return -1
        try:
            found = entries.lstat(parent, parts[-1])
            outcome = Outcome.COPIED if found is None else Outcome.PRESENT
            if found is None and self._wishes.dry_run:
                self._report.add(_path(parts), outcome)
                return -1
            if found is None:
                os.mkdir(parts[-1], 0o700, dir_fd=parent)
            elif not stat_module.S_ISDIR(found.st_mode):
                raise FileExistsError(errno.EEXIST, "something else than a directory is there in DST")
            target = os.open(parts[-1], lower.OPEN_DIRECTORY, dir_fd=parent)
            if not self._is_in_place(target):
                os.close(target)
                raise OSError(errno.EXDEV, "another filesystem is mounted there, which would not encrypt")
            if found is None:
                os.fchmod(target, 0o700)  # whatever default ACL or umask there is
        finally:
            os.close(parent)
        self._report.add(_path(parts), outcome)
        return target

    @staticmethod
    def _open_up(target: int) -> None:
        """A directory that an earlier command has finished may be closed even to its owner."""
        status = os.fstat(target)
        if status.st_mode & 0o700 != 0o700 and status.st_uid == os.geteuid():
            os.fchmod(target, stat_module.S_IMODE(status.st_mode) | 0o700)

    def _is_further_name(self, parts: Parts, status: os.stat_result) -> bool:
        if status.st_nlink < 2:
            return False
        names = self._links.setdefault((status.st_dev, status.st_ino), [])
        names.append(parts)
        return len(names) > 1

    # Files, in threads

    def _submit(self, pool: ThreadPoolExecutor, pair: _Pair, parts: Parts, status: os.stat_result) -> None:
        self._slots.acquire()
        pair.keep()

        def work() -> None:
            try:
                self._entry(pair.source, pair.target, parts, status)
            finally:
                pair.release()
                self._slots.release()

        pool.submit(work)

    def _entry(self, source: int, target: int, parts: Parts, status: os.stat_result) -> None:
        """One entry that is no directory."""
        try:
            if self._stop.is_set():
                return
            self._entry_or_raise(source, target, parts, status)
        except Stopped:
            pass
        except SourceChanged:
            self._report.add(_path(parts), Outcome.CHANGED, _CHANGED)
        except Taken:
            self._tell_conflict(parts)
        except Different:
            self._report.add(_path(parts), Outcome.DAMAGED, "what was read back is not what was written")
        except OSError as error:
            self._tell(parts, error)
        except Exception as error:  # noqa: BLE001  (a defect in a thread must not pass for success)
            self._report.add(_path(parts), Outcome.FAILED, f"a defect: {error!r}")

    def _entry_or_raise(self, source: int, target: int, parts: Parts, status: os.stat_result) -> None:
        name = parts[-1]
        found = entries.lstat(target, name) if target >= 0 else None
        if found is not None:
            if self._has(source, target, name, status, found):
                self._report.add(_path(parts), Outcome.PRESENT)
                self._is_there.add(parts)
                return
            if not self._wishes.replace or stat_module.S_ISDIR(found.st_mode):
                raise Taken
        size = status.st_size if stat_module.S_ISREG(status.st_mode) else 0
        if self._wishes.dry_run:
            outcome, lost = Outcome.COPIED, list[str]()
        else:
            outcome, lost, size = entries.put(source, target, name, status, self._advance, replace=self._wishes.replace)
        self._report.add(_path(parts), outcome)
        self._report.add_bytes(size)
        self._report.add_lost(lost)
        self._is_there.add(parts)

    def _has(self, source: int, target: int, name: bytes, status: os.stat_result, found: os.stat_result) -> bool:
        if not entries.seems_equal(source, target, name, status, found):
            return False
        if stat_module.S_ISREG(status.st_mode):
            if self._wishes.compare and not entries.is_equal(source, target, name, self._advance):
                return False
            self._advance(status.st_size)
        return True

    def _advance(self, size: int) -> None:
        if self._stop.is_set():
            raise Stopped
        self._advance_bar(size)

    # Afterwards

    def _link_all(self, source_root: int, target_root: int) -> None:
        for names in self._links.values():
            first = names[0] if names[0] in self._is_there else None
            for parts in names[1:]:
                if self._stop.is_set():
                    return
                with contextlib.ExitStack() as stack:
                    try:
                        source = _kept(stack, open_below(source_root, parts[:-1]))
                        target = self._kept_target(stack, target_root, parts[:-1])
                        if first is None:
                            status = os.stat(parts[-1], dir_fd=source, follow_symlinks=False)
                            self._entry(source, target, parts, status)
                            first = parts if parts in self._is_there else None
                        elif self._wishes.dry_run:
                            self._report.add(_path(parts), Outcome.LINKED)
                        else:
                            first_fd = _kept(stack, open_below(target_root, first[:-1]))
                            self._link(source, first_fd, first[-1], target, parts)
                    except Taken:
                        self._tell_conflict(parts)
                    except SourceChanged:
                        self._report.add(_path(parts), Outcome.CHANGED, _CHANGED)
                    except OSError as error:
                        self._tell(parts, error)

    def _link(self, source: int, first_fd: int, first: bytes, target: int, parts: Parts) -> None:
        found = entries.lstat(target, parts[-1])
        wanted = os.stat(first, dir_fd=first_fd, follow_symlinks=False)
        if found is not None and os.path.samestat(found, wanted):
            self._report.add(_path(parts), Outcome.PRESENT)
            return
        status = os.stat(parts[-1], dir_fd=source, follow_symlinks=False)
        if stat_module.S_ISREG(wanted.st_mode) and (
            not stat_module.S_ISREG(status.st_mode) or not entries.has_time_and_size_of(status, wanted)
        ):
            raise SourceChanged  # one of the names got another file since SRC was listed
        # A copy of its own, of a time when SRC had two files, say, is what the link is of: nothing is lost with it.
        is_copy = found is not None and entries.seems_equal(source, target, parts[-1], status, found)
        entries.link(first_fd, first, target, parts[-1], replace=self._wishes.replace or is_copy)
        self._report.add(_path(parts), Outcome.LINKED)

    def _kept_target(self, stack: contextlib.ExitStack, target_root: int, parts: Parts) -> int:
        if target_root < 0:
            return -1
        try:
            return _kept(stack, open_below(target_root, parts))
        except FileNotFoundError:
            if self._wishes.dry_run:
                return -1
            raise

    def _finish_directories(self, source_root: int, target_root: int) -> None:
        for parts in reversed(self._directories):  # those within come before those around
            with contextlib.ExitStack() as stack:
                try:
                    source = _kept(stack, open_below(source_root, parts))
                    target = _kept(stack, open_below(target_root, parts))
                    os.fsync(target)
                    self._report.add_lost(attributes.apply(target, attributes.read(source, os.fstat(source))))
                except OSError as error:
                    self._tell(parts, error)

    # What is told

    def _tell(self, parts: Parts, error: OSError) -> None:
        if error.errno in _NO_SPACE or error.errno in _NO_TARGET:
            self._report.stopped = f"{self._target}: {error.strerror}"
            self._report.next_step = (
                "make room, and type the same command again: it does the rest"
                if error.errno in _NO_SPACE
                else "mount it (for writing), and type the same command again: it does the rest"
            )
            self._stop.set()
            return
        damaged = error.errno == errno.EIO and self._eio_is_damage
        outcome = Outcome.DAMAGED if damaged else Outcome.FAILED
        self._report.add(_path(parts), outcome, error.strerror or str(error))

    def _tell_conflict(self, parts: Parts) -> None:
        self._report.add(_path(parts), Outcome.CONFLICT, "something else is there; --replace puts this in its place")


class _Pair:
    """A directory of SRC and its counterpart, open until the last that needs them is done."""

    def __init__(self, source: int, target: int) -> None:
        self.source, self.target = source, target
        self._users = 1
        self._lock = threading.Lock()

    def keep(self) -> None:
        with self._lock:
            self._users += 1

    def release(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users:
                return
        os.close(self.source)
        if self.target >= 0:
            os.close(self.target)


def open_below(root: int, parts: Parts) -> int:
    """The directory `parts` below `root`, step by step. OSError."""
    fd = os.dup(root)
    for part in parts:
        try:
            inner = os.open(part, lower.OPEN_DIRECTORY, dir_fd=fd)
        finally:
            os.close(fd)
        fd = inner
    return fd


def _kept(stack: contextlib.ExitStack, fd: int) -> int:
    stack.callback(os.close, fd)
    return fd


def _path(parts: Parts) -> bytes:
    return b"/".join(parts) or b"."


def _raise_descriptor_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def notes_of(report: Report) -> Iterator[tuple[str, str, str]]:
    """Outcome, path and detail of what is worth a line."""
    for note in sorted(report.notes, key=lambda note: note.path):
        yield note.outcome.value, os.fsdecode(note.path), note.detail
