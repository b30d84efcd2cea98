from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from envfs.errors import ConfigError
from envfs.service import runtime


def test_the_sockets_name_follows_from_the_device() -> None:
    assert runtime.socket_name("0:45") == "0_45.sock"


def test_root_has_one_place() -> None:
    assert runtime.candidates(0)[0] == Path("/run/envfs")


def test_what_follows_from_the_uid_comes_before_what_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/xdg")
    monkeypatch.setenv("ENVFS_HOME", "/srv/kms")
    assert runtime.candidates(4242) == [Path("/run/user/4242/envfs"), Path("/run/xdg/envfs"), Path("/srv/kms/run")]


def test_the_runtime_directory_of_the_caller_is_not_taken_for_somebody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/xdg")
    assert Path("/run/xdg/envfs") not in runtime.candidates(os.geteuid() + 4242)


def use(monkeypatch: pytest.MonkeyPatch, *paths: Path) -> None:
    monkeypatch.setattr(runtime, "candidates", lambda _uid: list(paths))


def test_the_directory_is_made_for_its_owner_alone_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, tmp_path / "new/run")
    uid = os.geteuid()
    made = runtime.prepare_directory(uid)
    assert made == tmp_path / "new/run"
    assert stat.S_IMODE(made.stat().st_mode) == (0o755 if uid == 0 else 0o700)
    assert runtime.prepare_directory(uid) == made


def test_a_directory_that_others_may_write_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "link").symlink_to(tmp_path)
    use(monkeypatch, tmp_path / "open", tmp_path / "link", tmp_path / "good")
    assert runtime.prepare_directory(os.geteuid()) == tmp_path / "good"


def test_no_directory_at_all_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    use(monkeypatch, tmp_path / "file")
    with pytest.raises(ConfigError, match="file: not a directory") as raised:
        runtime.prepare_directory(os.geteuid())
    assert "XDG_RUNTIME_DIR" in raised.value.hint
