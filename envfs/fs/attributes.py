"""Changing attributes: mode, owner, times, size."""

from __future__ import annotations

import errno
import os
import stat as stat_module
from dataclasses import dataclass

from envfs.fs.content import Content
from envfs.fs.lower import OPEN_PATH, proc_path
from envfs.fs.nodes import Node
from envfs.fs.opening import Caller
from envfs.fs.state import VolumeState


@dataclass(frozen=True, slots=True)
class Change:
    """What setattr(2) asks for; None: leave it. Times in nanoseconds, size in plain bytes."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None
    size: int | None = None


def change_attributes(state: VolumeState, node: Node, change: Change, content: Content | None, caller: Caller) -> None:
    """Apply a change. `content` is that of the handle the caller used, if any.

    A new size needs the DEK: without a handle that may write, the KMS decides as for an open for writing. Order as in
    Linux: size first, times last, so that they are what was asked for.
    """
    if change.size is not None:
        _set_size(state, node, change.size, content, caller)
    if change.mode is not None or change.uid is not None or change.gid is not None:
        _set_owner_and_mode(state, node, change)
    if change.atime_ns is not None or change.mtime_ns is not None:
        _set_times(state, node, change)


def _set_size(state: VolumeState, node: Node, size: int, content: Content | None, caller: Caller) -> None:
    if content is not None and content.writable:
        content.truncate(size)
        return
    if not node.is_regular:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    opened = state.opener.open(node, caller, write=True)
    opened.handles += 1
    try:
        opened.truncate(size)
    finally:
        close_handle(state, node, opened)


def close_handle(state: VolumeState, node: Node, content: Content) -> None:
    """One handle less on a content; the last one writes the header and lets go of the keys."""
    content.handles -= 1
    if content.handles > 0:
        return
    is_waiting = False
    try:
        if content.writable and content.keyed:
            is_waiting = state.promises.closing(node, content)
    finally:
        node.content, node.size = None, content.size
        node.sequence = content.slot.sequence if content.position >= 0 else 0
        if content.position < 0:
            node.object_id = None  # its header could not be written, or is not needed: the next one has another id
        try:
            state.nodes.pin_open(node, content.fd)
        finally:
            content.close(keep_header_key=is_waiting)


def _open_path(state: VolumeState, node: Node) -> int:
    """An O_PATH descriptor of the node itself, to be closed."""
    if node.content is not None:
        return os.dup(node.content.fd)
    if node is state.nodes.root:
        return os.dup(node.directory_fd)
    return state.nodes.open(node, OPEN_PATH) if node.pin < 0 else os.dup(node.pin)


def _set_owner_and_mode(state: VolumeState, node: Node, change: Change) -> None:
    fd = _open_path(state, node)
    try:
        if change.uid is not None or change.gid is not None:
            uid = -1 if change.uid is None else change.uid
            gid = -1 if change.gid is None else change.gid
            os.chown(proc_path(fd), uid, gid)  # of a symlink itself: /proc leads to it, and no further
        if change.mode is not None:
            os.chmod(proc_path(fd), change.mode & 0o7777)
            if node.is_directory:
                state.nodes.reopen_directory(node)
    finally:
        os.close(fd)


def drop_set_id(state: VolumeState, node: Node) -> None:
    """Take set-user-ID and set-group-ID away, as Linux does when somebody else changes the content."""
    mode = stat_module.S_IMODE(state.nodes.stat(node).st_mode)
    left = mode & ~0o4000
    if mode & 0o010:  # otherwise set-group-ID means mandatory locking
        left &= ~0o2000
    if left != mode:
        _set_owner_and_mode(state, node, Change(mode=left))


def _set_times(state: VolumeState, node: Node, change: Change) -> None:
    found = state.nodes.stat(node)
    atime = found.st_atime_ns if change.atime_ns is None else change.atime_ns
    mtime = found.st_mtime_ns if change.mtime_ns is None else change.mtime_ns
    content = node.content
    if content is not None:
        if content.mtime_ns is not None:
            mtime = content.mtime_ns = content.mtime_ns if change.mtime_ns is None else change.mtime_ns
        os.utime(content.fd, ns=(atime, mtime))
    elif node.located and node.parent is not None:
        dir_fd = state.directory_fd(node.parent)
        os.utime(node.lower_name, ns=(atime, mtime), dir_fd=dir_fd, follow_symlinks=False)
    else:
        fd = _open_path(state, node)
        try:
            os.utime(proc_path(fd), ns=(atime, mtime))
        finally:
            os.close(fd)
