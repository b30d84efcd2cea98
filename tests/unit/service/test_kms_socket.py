from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from envfs.errors import ConfigError
from envfs.service import kms_socket, runtime
from envfs.service.kms_server import listening
from envfs.service.kms_socket import find_sockets, listen, socket_path

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The runtime directory. Not below tmp_path: the path of a socket has 107 bytes at most."""
    with tempfile.TemporaryDirectory(prefix="envfs-run-") as path:
        monkeypatch.setattr(runtime, "candidates", lambda uid: [Path(path)])
        yield Path(path)


def leave_socket(path: Path) -> None:
    """As a process that was killed does."""
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))


def test_a_socket_is_found_while_somebody_listens(directory: Path, tmp_path: Path) -> None:
    path = socket_path(tmp_path)
    assert path.parent == directory
    assert find_sockets(tmp_path) == []
    with listening(path, everybody=True):
        assert find_sockets(tmp_path) == [path]
        assert path.stat().st_mode & 0o777 == 0o666
    assert not path.exists()


@pytest.mark.parametrize(("everybody", "mode"), [(True, 0o666), (False, 0o600)])
def test_a_socket_has_its_mode_from_the_first_moment_on_whatever_the_umask(
    directory: Path, monkeypatch: pytest.MonkeyPatch, *, everybody: bool, mode: int
) -> None:
    """Not by chmod(2) after bind(2): whoever may write the directory had a symlink there before that."""
    path = directory / "s"

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("chmod by name")

    monkeypatch.setattr(os, "chmod", refuse)
    for umask in (0, 0o077, 0o777):
        before = os.umask(umask)
        try:
            with listen(path, everybody=everybody):
                assert path.lstat().st_mode & 0o777 == mode
                path.unlink()
            assert os.umask(umask) == umask
        finally:
            os.umask(before)


def test_the_socket_of_another_kms_is_not_found(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with listening(socket_path(tmp_path / "other"), everybody=False):
        assert find_sockets(tmp_path) == []


def test_a_kms_is_the_same_by_any_path_to_it(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "kms").mkdir()
    (tmp_path / "link").symlink_to("kms")
    assert socket_path(tmp_path / "link") == socket_path(tmp_path / "kms")


def test_what_a_killed_process_left_is_not_found_and_removed_by_the_next(directory: Path, tmp_path: Path) -> None:
    path = socket_path(tmp_path)
    left = path.with_name(path.name.replace(str(os.getpid()), "999999999"))
    leave_socket(left)
    leave_socket(path)
    assert find_sockets(tmp_path) == []
    with listening(path, everybody=False):
        assert find_sockets(tmp_path) == [path]
        assert not left.exists()


def test_what_is_no_socket_or_is_in_use_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("content")
    with pytest.raises(ConfigError, match="is there already"):
        listen(file, everybody=False)
    assert file.read_text() == "content"
    with listen(tmp_path / "s", everybody=False), pytest.raises(ConfigError, match="is there already"):
        listen(tmp_path / "s", everybody=False)


def test_a_path_that_is_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="too long"):
        listen(tmp_path / ("x" * 120), everybody=False)


def test_another_ones_socket_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with listening(path, everybody=False):
        path.unlink()
        leave_socket(path)
    assert path.exists()
    assert kms_socket.identity_of(path) is not None
