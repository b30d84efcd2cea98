"""Fixtures for tests against a real mount, driven through the real `envfs` command in processes of its own.

    envfs        run the command: envfs("init", lower) → CompletedProcess (text); a non-zero exit fails the test unless
                 check=False. user=alice runs it as that user, with a KMS of her own (ENVFS_HOME in a directory of
                 hers); home=DIR names another KMS; input="…" is its stdin; env={…} adds variables.
    kms_home     ENVFS_HOME of this test for whoever runs the tests: a path; `envfs init` makes the KMS there.
    directory    factory: directory("shared") or directory("hers", owner=alice, mode=0o700) → a new empty directory.
    lower        an empty directory for a volume, on tmpfs where that takes extended attributes.
    volume       `lower` after `envfs init`.
    mounted      factory: mounted("noxattr"), mounted(lower=…, path=…, user=alice, home=…) → Mount, of `volume` where no
                 lower directory is named. Mount.path the mountpoint, .lower, .pid the daemon, .umount(), .remount()
                 (cold caches), .kill() (SIGKILL; the dead mount is detached), .mount() again after that,
                 .descriptors() how many the daemon has open.
    unix_users   factory: alice, bob = unix_users("alice", "bob"): Unix users envfs-test-alice-…, with homes.
    unix_group   factory: name = unix_group("staff", alice, bob): a Unix group envfs-test-staff-… with these members.
    run_as       run_as(alice, ["cat", path]) → CompletedProcess (text; never raises on the exit status);
                 run_as(alice, lambda: path.read_bytes()) → what the function returns in a forked child with her uid,
                 gid and groups; what it raises there (an OSError with its errno, say) is raised here.

Everything has a time limit. After every test that uses these, nothing may be left: no mount, no daemon, no descriptor.
What is left is taken away, and the test fails. Without /dev/fuse or root the tests are skipped; in CI that is a failure
(tests/conftest.py). Tests are marked `mount` and `users` by the fixtures they use.
"""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.command import Envfs, find_command
from tests.integration.mounts import Mount, clear_away, descriptors
from tests.integration.users import UnixUser, UserTable, run_as_user

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any


def pytest_itemcollected(item: pytest.Item) -> None:
    fixtures = getattr(item, "fixturenames", ())
    if "mounted" in fixtures:
        item.add_marker("mount")
    if "unix_users" in fixtures:
        item.add_marker("users")


@pytest.fixture(scope="session")
def _command() -> Iterator[list[str]]:
    scratch = Path(tempfile.mkdtemp(prefix="envfs-test-", dir="/var/tmp"))
    scratch.chmod(0o755)
    try:
        yield find_command(scratch)
    finally:
        shutil.rmtree(scratch)


@pytest.fixture
def _base() -> Iterator[Path]:
    """A directory that every user may enter, and which must be free of mounts and daemons after the test."""
    before = descriptors()
    base = Path(tempfile.mkdtemp(prefix="envfs-test-", dir=_place_with_xattrs()))
    base.chmod(0o755)
    try:
        yield base
    finally:
        left = clear_away(base)
        shutil.rmtree(base)
    gc.collect()
    left += [f"descriptor {number} → {target}" for number, target in descriptors().items() if number not in before]
    if left:
        pytest.fail("the test left behind: " + ", ".join(left))


def _place_with_xattrs() -> str:
    """tmpfs takes extended attributes of users since Linux 6.6."""
    for place in ("/dev/shm", "/var/tmp"):
        if os.access(place, os.W_OK):
            with tempfile.NamedTemporaryFile(dir=place) as file:
                try:
                    os.setxattr(file.fileno(), "user.envfs-test", b"")
                except OSError:
                    continue
            return place
    return pytest.fail("neither /dev/shm nor /var/tmp takes extended attributes")


@pytest.fixture
def directory(_base: Path) -> Callable[..., Path]:
    def make(name: str, *, owner: UnixUser | None = None, mode: int = 0o755) -> Path:
        path = _base / name
        path.mkdir()
        path.chmod(mode)
        if owner is not None:
            os.chown(path, owner.uid, owner.gid)
        return path

    return make


@pytest.fixture
def kms_home(_base: Path) -> Path:
    return _base / "kms"


@pytest.fixture
def lower(directory: Callable[..., Path]) -> Path:
    return directory("lower")


@pytest.fixture
def envfs(_command: list[str], kms_home: Path) -> Envfs:
    def home_of(user: UnixUser | None) -> Path:
        return kms_home if user is None else user.home / "kms"

    return Envfs(_command, home_of)


@pytest.fixture
def volume(envfs: Envfs, lower: Path) -> Path:
    envfs("init", lower)
    return lower


@pytest.fixture
def mounted(
    envfs: Envfs, kms_home: Path, directory: Callable[..., Path], request: pytest.FixtureRequest
) -> Iterator[Callable[..., Mount]]:
    _skip_without_fuse()
    mounts: list[Mount] = []

    def mount(
        *options: str,
        lower: Path | None = None,
        path: Path | None = None,
        user: UnixUser | None = None,
        home: Path | None = None,
    ) -> Mount:
        if user is not None and not run_as_user(user, lambda: os.access("/dev/fuse", os.R_OK | os.W_OK)):
            pytest.skip("/dev/fuse is closed to ordinary users")
        lower = request.getfixturevalue("volume") if lower is None else lower
        path = directory(f"mount{len(mounts)}", owner=user) if path is None else path
        mounts.append(Mount(lower, path, options, user, home, envfs).mount())
        return mounts[-1]

    yield mount
    for entry in reversed(mounts):
        if entry.is_mounted:
            entry.umount()
        _show_logs(entry.home or (entry.user.home / "kms" if entry.user else kms_home))


def _skip_without_fuse() -> None:
    if not Path("/dev/fuse").exists() or shutil.which("fusermount3") is None:
        pytest.skip("needs /dev/fuse and fusermount3")


def _show_logs(home: Path) -> None:
    """pytest shows it with a test that failed."""
    for log in sorted(home.glob("log/*")):
        print(f"--- {log.name}", log.read_text(errors="replace")[-4000:], sep="\n")


@pytest.fixture
def _user_table(_base: Path) -> Iterator[UserTable]:
    if os.getuid() != 0 or shutil.which("useradd") is None:
        pytest.skip("needs root and useradd, to make Unix users")
    homes = _base / "home"
    homes.mkdir(mode=0o755)
    table = UserTable(homes)
    try:
        yield table
    finally:
        clear_away(_base)
        table.remove_all()


@pytest.fixture
def unix_users(_user_table: UserTable) -> Callable[..., list[UnixUser]]:
    return _user_table.make


@pytest.fixture
def unix_group(_user_table: UserTable) -> Callable[..., str]:
    return _user_table.make_group


@pytest.fixture
def run_as() -> Callable[..., Any]:
    def run(
        user: UnixUser, what: list[str | Path] | Callable[[], Any], **options: Any
    ) -> subprocess.CompletedProcess[str] | Any:
        return run_as_user(user, what, **options)

    return run
