"""The pyfuse3 adapter: translates requests, attributes and errors, and decides nothing.

Handlers never await, except where the lower filesystem may keep them waiting: then the wait is in a thread and other
requests go on (`waiting.give_way`). Between the return of a handler and the sending of its reply nothing else runs,
which is what lets a read answer out of a shared buffer.
"""

# ruff: noqa: ARG002 - pyfuse3 decides the parameters
from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Coroutine, Sequence
from functools import partial, wraps
from typing import Concatenate, NoReturn, ParamSpec, TypeVar, cast

import pyfuse3
import trio
from pyfuse3 import EntryAttributes, FileInfo, FUSEError, RequestContext, SetattrFields, StatvfsData

from envfs.errors import AccessDenied, EnvfsError, FormatError, IntegrityError, KeyUnavailable
from envfs.foreign.waiting import ForeignWait
from envfs.fs.attributes import Change, change_attributes, close_handle, drop_set_id
from envfs.fs.errno_table import errno_of
from envfs.fs.filesystem import Filesystem
from envfs.fs.handles import Handle, Opened
from envfs.fs.locking import Phase
from envfs.fs.nodes import Node
from envfs.fs.patience import WouldWait
from envfs.fs.protection import Protection
from envfs.fs.waiting import give_way
from envfs.fs.xattrs import SELINUX
from envfs.kms.foreign.exchange import Pending

log = logging.getLogger("envfs.fs")

P = ParamSpec("P")
R = TypeVar("R")

_CAPABILITY = b"security.capability"
_WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_TRUNC
# What a read-only mount refuses: root may take the flag away from the kernel's side of it (mount -o remount,rw).
_CHANGES = (
    *("create", "mknod", "mkdir", "symlink", "link", "unlink", "rmdir", "rename"),
    *("setattr", "write", "setxattr", "removexattr"),
)


def _failed(error: BaseException, request: str) -> FUSEError:
    """The reply to a request that raised."""
    if isinstance(error, FUSEError):
        return error
    if isinstance(error, OSError):
        return FUSEError(error.errno or errno.EIO)
    if isinstance(error, EnvfsError):
        if isinstance(error, IntegrityError | FormatError):
            log.error("%s: damage or tampering: %s", request, error)
        elif isinstance(error, KeyUnavailable):
            log.warning("%s: %s%s", request, error, f" ({error.hint})" if error.hint else "")
        elif errno_of(error) == errno.EIO:
            log.error("%s: %s: %s", request, type(error).__name__, error)
        else:
            log.debug("%s: %s: %s", request, type(error).__name__, error)
        return FUSEError(errno_of(error))
    log.critical("%s: broken invariant", request, exc_info=error)
    return FUSEError(errno.EIO)


# What a locked mount refuses: all but closing and forgetting. Counting blocks tells nothing.
_LOCKED = (
    *("lookup", "getattr", "setattr", "readlink", "access"),
    *("create", "mknod", "mkdir", "symlink", "link", "unlink", "rmdir", "rename"),
    *("opendir", "readdir", "fsyncdir", "open", "read", "write", "fsync"),
    *("getxattr", "setxattr", "listxattr", "removexattr"),
)


async def _refuse_locked(*_arguments: object) -> NoReturn:
    raise FUSEError(errno.ENOKEY)


async def _refuse_change(*_arguments: object) -> NoReturn:
    raise FUSEError(errno.EROFS)


def _uid_of(arguments: tuple[object, ...]) -> int:
    return next((one.uid for one in arguments if isinstance(one, RequestContext)), -1)


def inline(
    handler: Callable[Concatenate[Operations, P], R],
) -> Callable[Concatenate[Operations, P], Coroutine[None, None, R]]:
    """Make a handler that never awaits into the coroutine that pyfuse3 wants, with errors as errno values."""
    name = handler.__name__.lstrip("_")

    async def handle(self: Operations, /, *args: P.args, **kwargs: P.kwargs) -> R:
        self._counts[name] += 1
        try:
            return handler(self, *args, **kwargs)
        except FUSEError:
            raise
        except Pending as pending:
            return await self.ask_foreign_kms(name, _uid_of(args), partial(handler, self, *args, **kwargs), pending)
        except Exception as error:  # noqa: BLE001 - every error becomes a reply, or the kernel would wait for ever
            raise self._failed(error, name) from None
        finally:
            if len(self.open_directories) > self.most_directories:
                self.nodes.trim()

    return handle


def looking(
    handler: Callable[Concatenate[Operations, P], R],
) -> Callable[Concatenate[Operations, P], Coroutine[None, None, R]]:
    """The same for a handler that only looks: where that would take waiting, it waits in a thread, and runs again."""
    at_once = inline(handler)
    name = handler.__name__.lstrip("_")

    @wraps(handler)
    def run_again(self: Operations, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return handler(self, *args, **kwargs)
        finally:
            if (left := self.patience.take_fetched()) >= 0:
                os.close(left)

    patiently = inline(run_again)

    async def handle(self: Operations, /, *args: P.args, **kwargs: P.kwargs) -> R:
        patience = self.patience
        if not patience.needed:
            return await at_once(self, *args, **kwargs)
        self._counts[name] += 1
        patience.lacks = True
        try:
            return handler(self, *args, **kwargs)
        except WouldWait as would_wait:
            self._counts[name] -= 1  # it comes again
            work = would_wait.work
        except FUSEError:
            raise
        except Pending as pending:
            again = partial(handler, self, *args, **kwargs)
            return await self.ask_foreign_kms(name, _uid_of(args), again, pending)
        except Exception as error:  # noqa: BLE001 - every error becomes a reply, or the kernel would wait for ever
            raise self._failed(error, name) from None
        finally:
            patience.lacks = False
            if len(self.open_directories) > self.most_directories:
                self.nodes.trim()
        give_way()
        fetched = await trio.to_thread.run_sync(work)
        patience.fetched = fetched
        if self.filesystem.lock.phase is not Phase.OPEN:
            if (left := patience.take_fetched()) >= 0:
                os.close(left)
            raise FUSEError(errno.ENOKEY)
        return await patiently(self, *args, **kwargs)

    return handle


class Operations(pyfuse3.Operations):
    """Requests of one mount."""

    supports_dot_lookup = False

    def __init__(self, filesystem: Filesystem, on_ready: Callable[[], None]) -> None:
        super().__init__()
        self.filesystem = filesystem
        self._counts = filesystem.counters.operations
        state = filesystem.state
        self.nodes = state.nodes
        self.open_directories, self.most_directories = state.nodes.open_directories, state.nodes.most_directories
        self.enable_writeback_cache = state.options.writeback
        self.enable_acl = state.options.acl
        self._plain_size = filesystem.tree.plain_size
        self._options = state.options
        self._timeout = state.options.entry_timeout
        self._never_blocks = state.never_blocks
        self.patience = state.nodes.patience
        self._on_ready = on_ready
        self._foreign = ForeignWait()
        state.engine.never_wait()
        self._nowait = 0 if state.never_blocks else os.RWF_NOWAIT
        self._cannot_say = False  # whether this lower filesystem is one that does not know if a read would wait
        self._set_phase(Phase.OPEN)
        filesystem.lock.on_phase = self._set_phase

    def _set_phase(self, phase: Phase) -> None:
        """What is answered at all: nothing is looked at in a request for it."""
        for name in (*_CHANGES, *_LOCKED):
            self.__dict__.pop(name, None)
        if self._options.read_only:
            for name in _CHANGES:
                setattr(self, name, _refuse_change)
        if phase is not Phase.OPEN:
            for name in _LOCKED:
                setattr(self, name, _refuse_locked)
        if phase is Phase.DRAINING and not self._options.read_only:
            del self.write  # what was written before is written now, by the kernel alone
            self.setattr = self._setattr_of_kernel  # type: ignore[method-assign]

    async def _setattr_of_kernel(
        self, inode: int, attr: EntryAttributes, fields: SetattrFields, fh: int | None, ctx: RequestContext
    ) -> EntryAttributes:
        """With write-back the kernel tells the times of what it writes."""
        if fields.update_mode or fields.update_uid or fields.update_gid or fields.update_size:
            return await _refuse_locked()
        return await Operations.setattr(self, inode, attr, fields, fh, ctx)

    def _require_open(self) -> None:
        """For what has waited: what comes after the beginning of a lock is not done, or the kernel would hold it."""
        if self.filesystem.lock.phase is not Phase.OPEN:
            raise FUSEError(errno.ENOKEY)

    def init(self) -> None:
        self._on_ready()

    def stacktrace(self) -> None:
        """pyfuse3 would print stack traces for whoever sets a magic attribute; that is nobody's business."""

    async def ask_foreign_kms(self, request: str, uid: int, handler: Callable[[], R], pending: Pending) -> R:
        """A handler needs the answer of a foreign KMS: others are served meanwhile, then it runs once more."""
        give_way()

        def again() -> R:
            self._require_open()
            return handler()

        try:
            return await self._foreign.complete(self.filesystem.state.engine, uid, again, pending)
        except FUSEError:
            raise
        except Exception as error:  # noqa: BLE001 - every error becomes a reply, or the kernel would wait for ever
            raise self._failed(error, request) from None

    # Attributes

    def _attributes(self, node: Node, found: os.stat_result) -> EntryAttributes:
        entry = EntryAttributes()
        entry.st_ino = node.node_id
        entry.st_mode = found.st_mode
        entry.st_nlink = found.st_nlink
        entry.st_uid = found.st_uid
        entry.st_gid = found.st_gid
        if found.st_rdev:
            entry.st_rdev = found.st_rdev
        entry.st_size = found.st_size if node.is_directory else self._plain_size(node, found)
        entry.st_blocks = found.st_blocks
        entry.st_atime_ns = found.st_atime_ns
        entry.st_mtime_ns = found.st_mtime_ns
        entry.st_ctime_ns = found.st_ctime_ns
        entry.entry_timeout = entry.attr_timeout = self._timeout
        if node.guard is not None:
            entry.attr_timeout = 0  # so that the kernel asks before each read(2) and write(2)
        return entry

    def _entry(self, node: Node, found: os.stat_result) -> EntryAttributes:
        """Attributes for a reply that gives the kernel one more reference to the node."""
        entry = self._attributes(node, found)
        node.lookups += 1
        return entry

    @looking
    def lookup(self, parent: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        try:
            node, found = self.filesystem.tree.lookup(parent, name)
        except FileNotFoundError:
            missing = EntryAttributes()  # st_ino 0: the kernel may remember that there is nothing
            missing.entry_timeout = self._timeout
            return missing
        return self._entry(node, found)

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        for node_id, count in inode_list:
            self.nodes.forget(node_id, count)

    @looking
    def getattr(self, inode: int, ctx: RequestContext) -> EntryAttributes:
        node = self.filesystem.tree.node(inode)
        if node.guard is not None:
            self.filesystem.revocation.check_caller(node, ctx.uid, ctx.pid)
        return self._attributes(node, self.nodes.stat(node))

    @inline
    def setattr(
        self, inode: int, attr: EntryAttributes, fields: SetattrFields, fh: int | None, ctx: RequestContext
    ) -> EntryAttributes:
        node = self.filesystem.tree.node(inode)
        handle = self.filesystem.handles.get(fh) if fh is not None else None
        if fields.update_size and handle is not None and handle.lost:
            raise FUSEError(handle.lost)
        change = Change(
            mode=attr.st_mode if fields.update_mode else None,
            uid=attr.st_uid if fields.update_uid else None,
            gid=attr.st_gid if fields.update_gid else None,
            atime_ns=attr.st_atime_ns if fields.update_atime else None,
            mtime_ns=attr.st_mtime_ns if fields.update_mtime else None,
            size=attr.st_size if fields.update_size else None,
        )
        change_attributes(self.filesystem.state, node, change, handle.content if handle else None, ctx)
        return self._attributes(node, self.nodes.stat(node))

    @inline
    def readlink(self, inode: int, ctx: RequestContext) -> bytes:
        return self.filesystem.tree.readlink(self.filesystem.tree.node(inode))

    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        self._counts["statfs"] += 1
        work = partial(os.statvfs, self.nodes.root.directory_fd)
        try:
            if self._never_blocks:
                found = work()
            else:
                give_way()
                found = await trio.to_thread.run_sync(work)
        except OSError as error:
            raise self._failed(error, "statfs") from None
        answer = StatvfsData()
        for field in ("f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree", "f_favail"):
            setattr(answer, field, getattr(found, field))
        answer.f_namemax = 255
        return answer

    # Names

    @inline
    def create(
        self, parent: int, name: bytes, mode: int, flags: int, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        try:
            node, found, content = self.filesystem.tree.create(parent, name, mode, ctx)
        except AccessDenied:
            self.filesystem.counters.of(ctx.uid).denied += 1
            raise
        opened = Opened(ctx.uid, ctx.gid, ctx.pid, "create", node.path(), bool(flags & _WRITE_FLAGS))
        handle = self.filesystem.add_handle(node, content, opened)
        return FileInfo(fh=handle), self._entry(node, found)

    @inline
    def mknod(self, parent: int, name: bytes, mode: int, rdev: int, ctx: RequestContext) -> EntryAttributes:
        return self._entry(*self.filesystem.tree.mknod(parent, name, mode, rdev, ctx))

    @inline
    def mkdir(self, parent: int, name: bytes, mode: int, ctx: RequestContext) -> EntryAttributes:
        return self._entry(*self.filesystem.tree.mkdir(parent, name, mode, ctx))

    @inline
    def symlink(self, parent: int, name: bytes, target: bytes, ctx: RequestContext) -> EntryAttributes:
        return self._entry(*self.filesystem.tree.symlink(parent, name, target, ctx))

    @inline
    def link(self, inode: int, new_parent: int, new_name: bytes, ctx: RequestContext) -> EntryAttributes:
        node = self.filesystem.tree.node(inode)
        return self._entry(node, self.filesystem.mover.link(node, new_parent, new_name))

    @inline
    def unlink(self, parent: int, name: bytes, ctx: RequestContext) -> None:
        self.filesystem.tree.unlink(parent, name)

    @inline
    def rmdir(self, parent: int, name: bytes, ctx: RequestContext) -> None:
        self.filesystem.tree.rmdir(parent, name)

    @inline
    def rename(
        self, parent_old: int, name_old: bytes, parent_new: int, name_new: bytes, flags: int, ctx: RequestContext
    ) -> None:
        self.filesystem.mover.rename(parent_old, name_old, parent_new, name_new, flags)

    # Directories

    @looking
    def opendir(self, inode: int, ctx: RequestContext) -> int:
        return self.filesystem.add_listing(self.filesystem.tree.node(inode))

    @looking
    def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        for next_id, name, node, found in self.filesystem.listings[fh].read(start_id):
            if not pyfuse3.readdir_reply(token, name, self._attributes(node, found), next_id):
                if not node.lookups:
                    self.nodes.forget(node.node_id, 0)
                break
            node.lookups += 1

    @inline
    def releasedir(self, fh: int) -> None:
        del self.filesystem.listings[fh]

    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        try:
            fd = os.dup(self.nodes.directory_fd(self.filesystem.listings[fh].node))
        except OSError as error:
            raise self._failed(error, "fsyncdir") from None
        await self._sync("fsyncdir", fd, os.fsync)

    # Files

    @looking
    def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        filesystem = self.filesystem
        if flags & _WRITE_FLAGS and self._options.read_only:
            raise FUSEError(errno.EROFS)
        node = filesystem.tree.node(inode)
        before = node.object_id
        write = bool(flags & _WRITE_FLAGS)
        try:
            content = filesystem.state.opener.open(node, ctx, write=write)
        except AccessDenied:
            filesystem.counters.of(ctx.uid).denied += 1
            raise
        self.patience.lacks = False  # what comes now is not to be done twice
        direct = filesystem.revocation.wants_direct(node, ctx.uid)
        opened = Opened(ctx.uid, ctx.gid, ctx.pid, "write" if write else "read", node.path(), write, direct)
        handle = filesystem.add_handle(node, content, opened)
        if flags & os.O_TRUNC:
            try:
                content.truncate(0)
                if ctx.uid != 0:  # the kernel does this for writes and truncate(2), and leaves it to us here
                    drop_set_id(filesystem.state, node)
            except BaseException:
                filesystem.release(handle)
                raise
        # Another file id than last time: the lower file was exchanged, and cached pages are the other one's.
        same = before is None or before == node.object_id
        return FileInfo(fh=handle, keep_cache=same, direct_io=direct)

    async def read(self, fh: int, off: int, size: int) -> bytes:
        handle = self.filesystem.handles[fh]
        content, used = handle.content, handle.used
        used.reads += 1
        try:
            if handle.guard is not None:
                self.filesystem.revocation.check_read(handle)
            if self._cannot_say and off < content.size:
                return await self._read_in_thread(fh, off, size)
            found = content.read(off, size, self._nowait)
            used.read_bytes += len(found)
            return cast("bytes", found)
        except BlockingIOError:
            return await self._read_in_thread(fh, off, size)
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP and self._nowait:
                self._cannot_say = True
                return await self._read_in_thread(fh, off, size)
            raise self._failed(error, "read") from None
        except Exception as error:  # noqa: BLE001 - every error becomes a reply, or the kernel would wait for ever
            raise self._damaged(error, fh) from None

    async def _read_in_thread(self, fh: int, off: int, size: int) -> bytes:
        """Wait for the lower filesystem beside other requests.

        A write in between may have torn what was read: then it is read again, here.
        """
        handle = self.filesystem.handles[fh]
        content = handle.content
        content.handles += 1
        writes = content.writes
        give_way()
        try:
            try:
                found = await trio.to_thread.run_sync(content.read_apart, off, size)
                handle.used.read_bytes += len(found)
                return cast("bytes", found)
            except IntegrityError:
                if content.writes == writes:
                    raise
                return bytes(content.read(off, size))
        except Exception as error:  # noqa: BLE001 - every error becomes a reply, or the kernel would wait for ever
            raise self._failed(error, "read") from None
        finally:
            close_handle(self.filesystem.state, handle.node, content)

    def _failed(self, error: BaseException, request: str) -> FUSEError:
        if self.filesystem.lock.phase is Phase.LOCKED:
            return FUSEError(errno.ENOKEY)  # it was under way in a thread when the keys went
        if isinstance(error, IntegrityError | FormatError):
            self.filesystem.state.alarms.tell(request, str(error))
        failed = _failed(error, request)
        self.filesystem.counters.failures[failed.errno] += 1
        return failed

    def _damaged(self, error: Exception, fh: int) -> FUSEError:
        return self._failed(error, f"read of {self.filesystem.handles[fh].node.path()}")

    async def write(self, fh: int, off: int, buf: bytes) -> int:
        handle = self.filesystem.handles[fh]
        content = handle.content
        handle.used.writes += 1
        try:
            protection = content.protection
            if protection is not None and protection.concerns(off, len(buf)):
                await self._reserve(handle, protection, off, len(buf))
            if handle.guard is not None:
                self.filesystem.revocation.check_write(handle)
            handle.used.written_bytes += content.write(off, buf)
            if content.direct_handles:
                self.filesystem.revocation.wrote(handle)
            return len(buf)
        except Exception as error:  # noqa: BLE001 - every error becomes a reply, or the kernel would wait for ever
            raise self._failed(error, f"write to {handle.node.path()}") from None

    async def _reserve(self, handle: Handle, protection: Protection, off: int, size: int) -> None:
        """Have the journal say what is about to be written over, beside other requests.

        Whatever goes wrong, the write itself finds out, and does without the others: in smaller pieces, say.
        """
        content = handle.content
        content.handles += 1
        give_way()
        try:
            await protection.reserve(off, size)
        except OSError as error:
            log.debug("not reserved: %s", error)
        finally:
            close_handle(self.filesystem.state, handle.node, content)

    async def flush(self, fh: int) -> None:
        # Not needed: what the kernel holds it writes before close(2) returns. ENOSYS makes it stop asking.
        raise FUSEError(errno.ENOSYS)

    @inline
    def release(self, fh: int) -> None:
        self.filesystem.release(fh)

    async def fsync(self, fh: int, datasync: bool) -> None:
        handle = self.filesystem.handles[fh]
        content, handle.node.made = handle.content, 0.0
        try:
            content.prepare_sync()
            fd, synced, cuts = os.dup(content.fd), content.size, content.cuts
        except Exception as error:  # noqa: BLE001 - every error becomes a reply, or the kernel would wait for ever
            raise self._failed(error, "fsync") from None
        try:
            await self._sync("fsync", fd, os.fdatasync if datasync else os.fsync)
        except FUSEError as error:
            content.failed_syncs.append(error.errno)
            handle.failed_syncs = len(content.failed_syncs)
            raise
        if handle.failed_syncs < len(content.failed_syncs):
            handle.failed_syncs = len(content.failed_syncs)
            raise FUSEError(content.failed_syncs[-1])
        try:
            # Only now is the content there that a raised bound promises; what was appended meanwhile is not.
            content.record_length(synced if content.cuts == cuts else 0)
        except Exception as error:  # noqa: BLE001 - every error becomes a reply, or the kernel would wait for ever
            raise self._failed(error, "fsync") from None

    async def _sync(self, request: str, fd: int, sync: Callable[[int], None]) -> None:
        """Sync first what the file depends on, then the file, in a thread; closes `fd`."""
        self._counts[request] += 1
        first = self.filesystem.sync_work()

        def work() -> None:
            try:
                if first is not None:
                    first()
                sync(fd)
            finally:
                os.close(fd)

        try:
            if self._never_blocks:
                work()
            else:
                give_way()
                await trio.to_thread.run_sync(work)
        except Exception as error:  # noqa: BLE001 - every error becomes a reply, or the kernel would wait for ever
            raise self._failed(error, request) from None

    # Extended attributes

    async def getxattr(self, inode: int, name: bytes, ctx: RequestContext) -> bytes:
        if self._options.noxattr:
            raise FUSEError(errno.ENOSYS)
        if name == _CAPABILITY and self.nodes.by_id[inode].no_xattrs:
            raise FUSEError(errno.ENODATA)  # asked before every write(2): the fastest way through the program
        if name == SELINUX:
            raise FUSEError(errno.EOPNOTSUPP)
        return await self._getxattr(inode, name)

    @inline
    def _getxattr(self, inode: int, name: bytes) -> bytes:
        return self.filesystem.xattrs.get(self.filesystem.tree.node(inode), name)

    @inline
    def setxattr(self, inode: int, name: bytes, value: bytes, ctx: RequestContext) -> None:
        self._check_xattrs()
        self.filesystem.xattrs.set(self.filesystem.tree.node(inode), name, value)

    @inline
    def listxattr(self, inode: int, ctx: RequestContext) -> Sequence[bytes]:
        self._check_xattrs()
        return self.filesystem.xattrs.names(self.filesystem.tree.node(inode))

    @inline
    def removexattr(self, inode: int, name: bytes, ctx: RequestContext) -> None:
        self._check_xattrs()
        self.filesystem.xattrs.remove(self.filesystem.tree.node(inode), name)

    def _check_xattrs(self) -> None:
        if self._options.noxattr:
            raise FUSEError(errno.ENOSYS)

    @inline
    def access(self, inode: int, mode: int, ctx: RequestContext) -> bool:
        """Asked only where the kernel checks no modes, which is in a mount for root alone: as root's own rights are."""
        node = self.filesystem.tree.node(inode)
        return not (mode & os.X_OK and node.is_regular) or bool(self.nodes.stat(node).st_mode & 0o111)
