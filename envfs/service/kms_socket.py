"""Where the KMS's Unix sockets are: each process that serves one KMS has one, named after the KMS's directory.

    RUNTIME/kms-DIGEST.PID.sock    DIGEST: the first 16 hexadecimal digits of the SHA-256 of the directory's real path

RUNTIME is the runtime directory of the process's user (`envfs.service.runtime`). Who finds a socket still has to look
who listens there (`envfs.api.client` does): everybody can name a file.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import socket
from pathlib import Path

from envfs.errors import ConfigError
from envfs.service import runtime

_BACKLOG = 64
_NAME = re.compile(r"kms-[0-9a-f]{16}\.([0-9]+)\.sock")


def socket_path(home: Path) -> Path:
    """Where this process listens for the KMS in `home`; makes the directory. ConfigError if there is none."""
    return runtime.prepare_directory(os.geteuid()) / f"{_prefix(home)}{os.getpid()}.sock"


def find_sockets(home: Path) -> list[Path]:
    """The sockets on which processes listen for the KMS in `home`, the newest first."""
    uids = {0: None, os.geteuid(): None}
    try:
        uids = {home.stat().st_uid: None, **uids}
    except OSError:
        pass  # closed to us; root's and our own are left
    found: dict[Path, float] = {}
    for directory in {directory: None for uid in uids for directory in runtime.candidates(uid)}:
        for path in _listed(directory, _prefix(home)):
            if _is_alive(path):
                try:
                    found[path] = path.lstat().st_mtime
                except OSError:
                    continue
    return sorted(found, key=lambda path: found[path], reverse=True)


def listen(path: Path, *, everybody: bool) -> socket.socket:
    """A socket that listens at `path`. `everybody`: all users who reach it may connect. ConfigError, OSError."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        try:
            bind(listener, path, 0o666 if everybody else 0o600)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise ConfigError(f"{path} is there already", hint="choose another path with --socket") from None
            if error.errno is None:  # how Python says that sun_path is too short for it
                raise ConfigError(f"{path} is too long a path for a socket", hint="choose a shorter one") from None
            raise OSError(error.errno, error.strerror, os.fspath(path)) from None
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def bind(listener: socket.socket, path: Path, mode: int) -> None:
    """Gives a Unix socket its name, with `mode`, whatever the umask. OSError.

    The socket has the mode before it has the name: chmod(2) after bind(2) would follow a symlink that whoever may write
    the directory had put there meanwhile, and open some other file to everybody.
    """
    os.fchmod(listener.fileno(), mode)
    umask = os.umask(0)
    try:
        listener.bind(os.fspath(path))
    finally:
        os.umask(umask)


def remove(path: Path, identity: tuple[int, int]) -> None:
    """Removes the socket, unless somebody else's has taken its place."""
    if identity_of(path) == identity:
        path.unlink(missing_ok=True)


def identity_of(path: Path) -> tuple[int, int] | None:
    """Device and inode number of a socket; None if there is nothing."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _prefix(home: Path) -> str:
    digest = hashlib.sha256(os.fsencode(os.path.realpath(home))).hexdigest()
    return f"kms-{digest[:16]}."


def _listed(directory: Path, prefix: str) -> list[Path]:
    try:
        return [path for path in directory.iterdir() if path.name.startswith(prefix) and _NAME.fullmatch(path.name)]
    except OSError:
        return []


def _is_alive(path: Path) -> bool:
    """Whether somebody listens there. A process that was killed leaves its socket's name behind."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(os.fspath(path))
        except (BlockingIOError, PermissionError):
            return True  # it is busy, or not for us
        except OSError:
            return False
    return True


def _remove_stale(path: Path) -> None:
    """What processes that were killed left, at this path and in the same directory."""
    for other in {path, *_listed(path.parent, "kms-")}:
        if other.is_socket() and (other == path or not _process_exists(other)) and not _is_alive(other):
            other.unlink(missing_ok=True)


def _process_exists(path: Path) -> bool:
    """Whether the process is there that the name tells: it may be about to listen."""
    named = _NAME.fullmatch(path.name)
    return named is not None and Path(f"/proc/{named[1]}").exists()
