"""Names in a lower directory, and the name files of those that are too long for it."""

from __future__ import annotations

import logging
import os

from envfs.errors import EnvfsError
from envfs.format.names import (
    LONG_PREFIX,
    RESERVED_PREFIX,
    CipherName,
    NameCipher,
    check_name_file,
    name_file_for,
)
from envfs.fs import lower
from envfs.fs.durability import Unsynced

log = logging.getLogger("envfs.fs")

_LARGEST_NAME_FILE = 4096


def write_name_file(dir_fd: int, cipher: CipherName, unsynced: Unsynced) -> None:
    """Before something appears under a long name: what its name is. One left by a crash is replaced."""
    if cipher.is_long:
        name = name_file_for(cipher.lower)
        lower.replace_file(dir_fd, name, cipher.full)
        unsynced.add(dir_fd, name)


def remove_name_file(dir_fd: int, lower_name: bytes) -> None:
    """After something under a long name has gone."""
    if lower_name.startswith(LONG_PREFIX):
        lower.unlink_if_there(dir_fd, name_file_for(lower_name))


def plain_entries(dir_fd: int, directory_id: bytes, names: NameCipher, path: str) -> list[tuple[bytes, bytes, bytes]]:
    """The entries of a lower directory: (plain name, lower name, full cipher name).

    What is not part of the volume is left out, with a log line; so is a name whose ciphertext is damaged.
    """
    entries: list[tuple[bytes, bytes, bytes]] = []
    decrypt = names.decrypt
    for lower_name in _names(dir_fd):
        full = lower_name
        if lower_name.startswith(RESERVED_PREFIX) and not lower_name.startswith(LONG_PREFIX):
            continue
        try:
            if lower_name.startswith(LONG_PREFIX):
                raw = lower.read_small_file(dir_fd, name_file_for(lower_name), _LARGEST_NAME_FILE)
                full = check_name_file(lower_name, raw)
            entries.append((decrypt(directory_id, full), lower_name, full))
        except (EnvfsError, OSError) as error:
            log.warning("left out of %s: %r is no name of this directory (%s)", path, lower_name, error)
    return entries


def _names(dir_fd: int) -> list[bytes]:
    """What stands in a directory, as bytes, which os.listdir gives for a path of bytes alone."""
    return os.listdir(lower.proc_path(dir_fd).encode())


def has_entries(dir_fd: int) -> bool:
    """Whether a lower directory holds anything but our own files."""
    # By the descriptor itself: opened by path again, a directory that its owner may not read would be refused.
    names = (os.fsencode(found) for found in os.listdir(dir_fd))
    return any(not name.startswith(RESERVED_PREFIX) or name.startswith(LONG_PREFIX) for name in names)


def remove_own_files(dir_fd: int) -> None:
    """Empty a lower directory that holds our own files alone, leavings of a crash among them."""
    for name in _names(dir_fd):
        if not name.startswith(RESERVED_PREFIX) or name.startswith(LONG_PREFIX):
            continue
        try:
            os.unlink(name, dir_fd=dir_fd)
        except IsADirectoryError:
            inner = os.open(name, lower.OPEN_DIRECTORY, dir_fd=dir_fd)
            try:
                remove_own_files(inner)
            finally:
                os.close(inner)
            os.rmdir(name, dir_fd=dir_fd)
