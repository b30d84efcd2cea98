"""A process of a Unix user that does with files what it is told to, and keeps descriptors and maps meanwhile."""

from __future__ import annotations

import mmap
import os
import pickle
import select
import signal
import socket
import struct
import time
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tests.integration.users import TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.integration.users import UnixUser

_LENGTH = struct.Struct("=I")
BUS_ERROR = "SIGBUS"


class Agent:
    """`agent.pread(fd, 4)` runs in the user's process; an OSError there is raised here. None: as whoever runs it."""

    def __init__(self, user: UnixUser | None) -> None:
        here, there = socket.socketpair()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # no lock is taken that a thread could have held
            self.pid = os.fork()
        if self.pid == 0:
            here.close()
            _serve(user, there)
        there.close()
        self._socket = here

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *arguments: self._ask(name, arguments)

    def _ask(self, name: str, arguments: tuple[Any, ...]) -> Any:
        _send(self._socket, (name, arguments))
        if not select.select([self._socket], [], [], TIMEOUT)[0]:
            raise TimeoutError(f"{name} does not return")
        succeeded, value = _receive(self._socket)
        if not succeeded:
            raise value
        return value

    def send_descriptor(self, fd: int, to: Agent) -> int:
        """Pass an open descriptor of his to another agent, by SCM_RIGHTS; its number there."""
        self._socket.sendall(b"")
        _send(self._socket, ("give", (fd,)))
        _, descriptors, _, _ = socket.recv_fds(self._socket, 1, 1)
        _send(to._socket, ("take", ()))
        socket.send_fds(to._socket, [b"x"], descriptors)
        os.close(descriptors[0])
        number: int = _receive(to._socket)[1]
        return number

    def end(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        self._socket.close()


def _send(to: socket.socket, value: object) -> None:
    content = pickle.dumps(value)
    to.sendall(_LENGTH.pack(len(content)) + content)


def _receive(source: socket.socket) -> Any:
    head = source.recv(_LENGTH.size, socket.MSG_WAITALL)
    if len(head) < _LENGTH.size:
        raise EOFError
    return pickle.loads(source.recv(_LENGTH.unpack(head)[0], socket.MSG_WAITALL))


def _serve(user: UnixUser | None, there: socket.socket) -> None:
    """Never returns."""
    try:
        if user is not None and user.uid != os.getuid():
            os.setgroups(user.groups)
            os.setresgid(user.gid, user.gid, user.gid)
            os.setresuid(user.uid, user.uid, user.uid)
        hands = _Hands()
        while True:
            name, arguments = _receive(there)
            if name == "give":
                socket.send_fds(there, [b"x"], list(arguments))
                continue
            if name == "take":
                _, descriptors, _, _ = socket.recv_fds(there, 1, 1)
                _send(there, (True, descriptors[0]))
                continue
            try:
                answer = (True, getattr(hands, name)(*arguments))
            except Exception as error:  # noqa: BLE001  (it is raised again in the parent)
                answer = (False, error)
            _send(there, answer)
    except BaseException:  # noqa: BLE001  (the parent is gone, or the test is over)
        pass
    finally:
        os._exit(0)


class _Hands:
    """What an agent can do."""

    def __init__(self) -> None:
        self._maps: list[mmap.mmap] = []

    def open(self, path: Path, flags: int = os.O_RDONLY) -> int:
        return os.open(path, flags, 0o666)

    def close(self, fd: int) -> None:
        os.close(fd)

    def pread(self, fd: int, count: int = 4, offset: int = 0) -> bytes:
        return os.pread(fd, count, offset)

    def pwrite(self, fd: int, content: bytes, offset: int = 0) -> int:
        return os.pwrite(fd, content, offset)

    def splice(self, fd: int, count: int) -> bytes:
        reader, writer = os.pipe()
        try:
            return os.read(reader, os.splice(fd, writer, count, offset_src=0))
        finally:
            os.close(reader)
            os.close(writer)

    def ftruncate(self, fd: int, length: int) -> None:
        os.ftruncate(fd, length)

    def fsync(self, fd: int) -> None:
        os.fsync(fd)

    def unlink(self, path: Path) -> None:
        path.unlink()

    def rename(self, old: Path, new: Path) -> None:
        old.rename(new)

    def chmod(self, path: Path, mode: int) -> None:
        path.chmod(mode)

    def stat_size(self, path: Path) -> int:
        return path.stat().st_size

    def listdir(self, path: Path) -> list[str]:
        return sorted(os.listdir(path))

    def write_file(self, path: Path, content: bytes, mode: int = 0o666) -> None:
        path.write_bytes(content)
        path.chmod(mode)

    def read_file(self, path: Path) -> bytes:
        return path.read_bytes()

    def map(self, fd: int, length: int, flags: int, protection: int) -> int:
        self._maps.append(mmap.mmap(fd, length, flags=flags, prot=protection))
        return len(self._maps) - 1

    def look(self, number: int, offset: int = 0) -> bytes | str:
        """A byte of a map; in a process of its own, since it may be killed for it."""
        return self._in_child(lambda: self._maps[number][offset : offset + 4])

    def touch(self, number: int, content: bytes, offset: int = 0) -> bytes | str:
        """Write into a shared map, likewise."""

        def write() -> bytes:
            self._maps[number][offset : offset + len(content)] = content
            return b"done"

        return self._in_child(write)

    def _in_child(self, work: Callable[[], bytes]) -> bytes | str:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGBUS, signal.SIG_DFL)
            os.write(writer, work())
            os._exit(0)
        os.close(writer)
        try:
            content = os.read(reader, 64)
        finally:
            os.close(reader)
        _, status = os.waitpid(child, 0)
        return BUS_ERROR if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGBUS else content

    def start_reading(self, path: Path, content: bytes) -> int:
        """A child that reads the file again and again, on one descriptor, and ends when something is wrong."""
        child = os.fork()
        if child:
            return child
        fd = os.open(path, os.O_RDONLY)
        try:
            while True:
                for offset in range(0, len(content), 1 << 16):
                    expected = content[offset : offset + (1 << 16)]
                    if os.pread(fd, 1 << 16, offset) != expected:
                        os._exit(1)
                time.sleep(0.001)
        except BaseException:  # noqa: BLE001
            os._exit(2)

    def stop_reading(self, child: int) -> bool:
        """Whether it had nothing to complain of."""
        ended, _ = os.waitpid(child, os.WNOHANG)
        os.kill(child, signal.SIGKILL)
        if not ended:
            os.waitpid(child, 0)
        return ended == 0
