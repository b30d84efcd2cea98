"""Symlinks in the lower directory: their text, or for long targets a link file beside them."""

from __future__ import annotations

import errno
import os
import secrets

from envfs.errors import IntegrityError
from envfs.format.names import LINK_FILE_PREFIX
from envfs.format.place import ANYWHERE, Where
from envfs.format.symlink import (
    PAYLOAD_OVERHEAD,
    SymlinkCipher,
    is_link_file,
    link_file_for,
    parse_link_file,
    parse_text,
    plain_length,
    to_text,
)
from envfs.fs import lower
from envfs.fs.durability import Unsynced

_LARGEST_LINK_FILE = 8192
# No direct text is so short: it holds at least PAYLOAD_OVERHEAD + 1 bytes in base64url.
_LINK_FILE_NAME_LENGTH = len(LINK_FILE_PREFIX) + 32


class Symlinks:
    """Writes and reads the symlinks of a volume."""

    def __init__(self, cipher: SymlinkCipher, unsynced: Unsynced) -> None:
        self._cipher = cipher
        self._unsynced = unsynced

    def new_text(self, dir_fd: int, target: bytes, where: Where) -> bytes:
        """The text of a new lower symlink; for a long target its link file is written first."""
        link_id = secrets.token_bytes(16)
        return self._store(dir_fd, self._cipher.seal(link_id, target, where))

    def _store(self, dir_fd: int, payload: bytes) -> bytes:
        text = to_text(payload)
        if text is None:
            text = link_file_for(payload[:16])
            lower.replace_file(dir_fd, text, payload)
            self._unsynced.add(dir_fd, text)
        return text

    def _payload(self, dir_fd: int, lower_name: bytes) -> tuple[bytes, bytes]:
        """(payload, text) of a lower symlink."""
        text = os.fsencode(os.readlink(lower_name, dir_fd=dir_fd))
        if is_link_file(text):
            if not lower_name:  # found by its inode alone, and so in no directory where its link file would be
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            try:
                return parse_link_file(text, lower.read_small_file(dir_fd, text, _LARGEST_LINK_FILE)), text
            except FileNotFoundError:
                raise IntegrityError("a symlink has lost its link file") from None
        return parse_text(text), text

    def target(self, dir_fd: int, lower_name: bytes, where: Where) -> bytes:
        """The plain target. Raises IntegrityError for damage or a wrong place."""
        return self._cipher.open(self._payload(dir_fd, lower_name)[0], where)

    @staticmethod
    def size_without_name(text_length: int) -> int:
        """The same where no name is known. OSError(ESTALE) makes the kernel look up another one."""
        if text_length == _LINK_FILE_NAME_LENGTH:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return plain_length(text_length)

    def target_size(self, dir_fd: int, lower_name: bytes, text_length: int) -> int:
        """st_size of the symlink, from the length of its text."""
        if text_length != _LINK_FILE_NAME_LENGTH:
            return plain_length(text_length)
        text = os.fsencode(os.readlink(lower_name, dir_fd=dir_fd))
        if not is_link_file(text):
            return plain_length(text_length)
        try:
            return max(0, os.stat(text, dir_fd=dir_fd, follow_symlinks=False).st_size - PAYLOAD_OVERHEAD)
        except FileNotFoundError:
            return 0

    def copy_link_file(self, dir_fd: int, text: bytes, new_dir_fd: int) -> None:
        """Before a symlink that belongs anywhere gets a name in another directory: its link file must be there, too."""
        self._store(new_dir_fd, parse_link_file(text, lower.read_small_file(dir_fd, text, _LARGEST_LINK_FILE)))

    def remove_link_file(self, dir_fd: int, text: bytes, found: os.stat_result) -> None:
        """After a name of the symlink `found` has gone from a directory, unless it has another one in there."""
        if found.st_nlink > 1:
            with os.scandir(dir_fd) as entries:
                if any(entry.inode() == found.st_ino for entry in entries):
                    return
        lower.unlink_if_there(dir_fd, text)

    def link_file(self, dir_fd: int, lower_name: bytes, text_length: int) -> bytes | None:
        """The name of the symlink's link file, if it has one."""
        if text_length != _LINK_FILE_NAME_LENGTH:
            return None
        text = os.fsencode(os.readlink(lower_name, dir_fd=dir_fd))
        return text if is_link_file(text) else None

    def retag(
        self, dir_fd: int, lower_name: bytes, old: Where, new: Where, new_dir_fd: int
    ) -> tuple[os.stat_result | None, bytes | None]:
        """Before a symlink moves from `old` to `new`: make it valid at both.

        A symlink cannot be changed, so a new one takes its name, with its owner and times; its new stat is the first
        result. With a link file, that is rewritten in both directories instead, and its name is the second.
        """
        payload, text = self._payload(dir_fd, lower_name)
        self._cipher.open(payload, old)
        if self._is_anywhere(payload):
            if not is_link_file(text):
                return None, None
            if new_dir_fd != dir_fd:
                self._store(new_dir_fd, payload)
            return None, text
        payload = self._cipher.retag(payload, new, old)
        if is_link_file(text):
            self._store(new_dir_fd, payload)
            if new_dir_fd != dir_fd:
                self._store(dir_fd, payload)
            return None, text
        found = os.stat(lower_name, dir_fd=dir_fd, follow_symlinks=False)
        temporary = lower.temporary_name()
        os.symlink(to_text(payload) or b"", temporary, dir_fd=dir_fd)
        try:
            fresh = os.stat(temporary, dir_fd=dir_fd, follow_symlinks=False)
            if (fresh.st_uid, fresh.st_gid) != (found.st_uid, found.st_gid):
                os.chown(temporary, found.st_uid, found.st_gid, dir_fd=dir_fd, follow_symlinks=False)
            os.utime(temporary, ns=(found.st_atime_ns, found.st_mtime_ns), dir_fd=dir_fd, follow_symlinks=False)
            os.rename(temporary, lower_name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
        except OSError:
            lower.unlink_if_there(dir_fd, temporary)
            raise
        return fresh, None

    def _is_anywhere(self, payload: bytes) -> bool:
        try:
            self._cipher.open(payload, ANYWHERE)
        except IntegrityError:
            return False
        return True
