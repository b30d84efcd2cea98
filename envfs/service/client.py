"""The control socket of a mount: the client's side, for the command line."""

from __future__ import annotations

import array
import contextlib
import errno
import json
import os
import socket
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from envfs.access.peer import peer_of
from envfs.service import mountinfo, runtime, wire
from envfs.service.errors import MountError
from envfs.service.peer import MAX_LINE, inode_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import Self

    Listener = Callable[[dict[str, Any]], None]

_PROBE = 2.0  # seconds for the kernel to say that a mount is dead
_TIMEOUT = 30.0  # seconds; a daemon that is busy answers late, one that hangs never


@dataclass(slots=True)
class OpenPath:
    """A path opened with O_PATH, and the mount it lies in. A context manager that closes it."""

    path: str
    descriptor: int
    mount: mountinfo.MountEntry | None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)

    @property
    def envfs_mount(self) -> mountinfo.MountEntry | None:
        """The mount, if it is one of envfs."""
        return self.mount if self.mount is not None and self.mount.fstype == mountinfo.FILESYSTEM_TYPE else None


def open_path(path: str | os.PathLike[str]) -> OpenPath:
    """Open `path` without following a symlink at its end. Raises OSError as open(2) does."""
    descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fstat(descriptor)  # so that the kernel knows the inode's number, also that of a mount's root
        return OpenPath(os.fspath(path), descriptor, mountinfo.by_mount_id(inode_of(descriptor).mount_id))
    except BaseException:
        os.close(descriptor)
        raise


class Connection:
    """One connection to the daemon of `entry`. Raises MountError if it does not answer."""

    def __init__(self, entry: mountinfo.MountEntry) -> None:
        self._entry = entry
        self._socket = _connect(entry)
        self.pid = peer_of(self._socket).pid
        """The daemon's process id."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._socket.close()

    def ask(
        self, operation: str, *, descriptor: int | None = None, listener: Listener | None = None, **fields: object
    ) -> dict[str, Any]:
        """Send the one request of this connection and return its result; raises what the daemon answers with.

        `listener` gets what an operation that takes long tells before. Closing the connection cancels it.
        """
        line = json.dumps({"op": operation, **fields}).encode() + b"\n"
        ancillary = []
        if descriptor is not None:
            ancillary.append((socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor])))
        with self._broken_off():
            sent = self._socket.sendmsg([line], ancillary)
            if sent < len(line):  # sending nothing would fail where the daemon has answered and closed already
                self._socket.sendall(line[sent:])
        with self._socket.makefile("rb") as stream:
            while True:
                response = self._receive(stream)
                if not isinstance(response, dict) or not ("progress" in response or "item" in response):
                    return wire.open_response(response)
                if listener is not None:
                    listener(response)

    def _receive(self, stream: BinaryIO) -> object:
        with self._broken_off():
            line = stream.readline(MAX_LINE)
        try:
            return json.loads(line)
        except ValueError:
            raise _silent(self._entry) from None

    @contextlib.contextmanager
    def _broken_off(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            raise _silent(self._entry) from None
        except OSError as error:
            raise MountError(f"the daemon of {self._entry.mountpoint} broke off: {error.strerror}") from error


def ask(
    entry: mountinfo.MountEntry,
    operation: str,
    *,
    descriptor: int | None = None,
    listener: Listener | None = None,
    **fields: object,
) -> dict[str, Any]:
    """Connect, ask one thing, and return the result. `listener`: see `Connection.ask`."""
    with Connection(entry) as connection:
        return connection.ask(operation, descriptor=descriptor, listener=listener, **fields)


def is_dead(entry: mountinfo.MountEntry) -> bool:
    """Whether the mount's daemon has ended, for certain: the kernel says ENOTCONN.

    In a process of its own, because a daemon that hangs would hang whoever asks.
    """
    command = ["stat", "--", entry.mountpoint]
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=_PROBE, check=False, env={"PATH": os.defpath, "LC_ALL": "C"}
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return os.strerror(errno.ENOTCONN).encode() in done.stderr


def _connect(entry: mountinfo.MountEntry) -> socket.socket:
    for directory in runtime.candidates(entry.owner_uid):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(_TIMEOUT)
        try:
            connection.connect(os.fspath(directory / runtime.socket_name(entry.device)))
            # Only the mount's owner may speak for it: an impostor's answers would be believed.
            if peer_of(connection).uid == entry.owner_uid:
                return connection
        except OSError:
            pass
        connection.close()
    raise MountError(
        f"no daemon answers for {entry.mountpoint}",
        hint=f"its process is dead, or its socket was removed: envfs umount {entry.mountpoint}, then mount again",
    )


def _silent(entry: mountinfo.MountEntry) -> MountError:
    return MountError(
        f"the daemon of {entry.mountpoint} accepts requests but does not answer",
        hint="its log is in the directory log/ of ENVFS_HOME",
    )
