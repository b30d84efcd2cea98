"""`envfs import` and `envfs export`: whole trees, real users, kills in the middle, full disks, trees that change."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import stat
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from envfs.errors import ConfigError
from envfs.service.transfer import places
from tests.integration.users import TIMEOUT, UnixUser

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.integration.command import Envfs
    from tests.integration.mounts import Mount

MIB = 1 << 20
NOISE = random.Random(7)
PART = ".envfs-part."


def make_tree(root: Path) -> None:
    """Of everything something."""
    (root / "a" / "b").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "a" / "big").write_bytes(NOISE.randbytes(3 * MIB + 17))
    (root / "a" / "b" / "x").write_bytes(b"x")
    os.link(root / "a" / "b" / "x", root / "a" / "y")
    os.link(root / "a" / "b" / "x", root / "zz")
    (root / "none").touch()
    (root / "a" / "dangling").symlink_to("nowhere/at/all")
    (root / "a" / "loop").symlink_to(".")
    Path(os.fsdecode(os.fsencode(root) + b"/n\xff\n\x01")).write_bytes(b"a name")
    (root / ("l" * 255)).write_bytes(b"a long name")
    with (root / "sparse").open("wb") as sparse:
        sparse.seek(10 * MIB + 5)
        sparse.write(b"data")
        sparse.truncate(24 * MIB)
    os.mkfifo(root / "fifo", 0o640)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(root / "socket"))
    os.setxattr(root / "a" / "big", "user.colour", b"blue")
    os.setxattr(root / "a", "user.d", b"\0\xff")
    if os.getuid() == 0:
        os.mknod(root / "null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
        os.chown(root / "a" / "big", 4321, 8765)
        os.chown(root / "a" / "dangling", 4321, 8765, follow_symlinks=False)
        os.chown(root / "a", 11, 12)
    (root / "a" / "big").chmod(0o6750)
    (root / "a" / "b" / "x").chmod(0)
    (root / "a" / "b").chmod(0o555)
    os.utime(root / "a" / "dangling", ns=(5, 1_000_000_007), follow_symlinks=False)
    for name in ("a/b/x", "a/b", "a", "fifo", "sparse"):
        os.utime(root / name, ns=(17, 1_234_567_890_123_456_789))


def picture(root: Path) -> dict[str, Any]:
    """All that is to be kept, by path. Which names share an inode, as sets of names."""
    entries: dict[str, Any] = {}
    inodes: dict[int, list[str]] = {}
    for directory, directories, files in os.walk(os.fspath(root)):
        for name in [*directories, *files, "."]:
            path = Path(directory) / name
            status = path.lstat()
            kind = stat.S_IFMT(status.st_mode)
            if kind == stat.S_IFSOCK:
                continue
            entry = {
                "mode": status.st_mode,
                "owner": (status.st_uid, status.st_gid),
                "mtime": status.st_mtime_ns,
                "rdev": status.st_rdev,
            }
            if kind == stat.S_IFREG:
                entry["content"] = hash(path.read_bytes())
            if kind == stat.S_IFLNK:
                entry["target"] = os.readlink(path)
            if kind in {stat.S_IFREG, stat.S_IFDIR}:
                entry["xattrs"] = {name: os.getxattr(path, name) for name in os.listxattr(path)}
            relative = os.path.relpath(path, root)
            if kind != stat.S_IFDIR:
                inodes.setdefault(status.st_ino, []).append(relative)
            entries[relative] = entry
    return entries | {"links": sorted(sorted(names) for names in inodes.values() if len(names) > 1)}


def summary(envfs: Envfs, *words: str | Path, code: int = 0, **options: Any) -> dict[str, Any]:
    done = envfs(*words, "--json", check=False, **options)
    assert done.returncode == code, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture
def tree(directory: Callable[..., Path]) -> Path:
    path = directory("tree")
    make_tree(path)
    return path


def test_a_tree_comes_through_both_ways_and_a_second_time_changes_nothing(
    envfs: Envfs, mounted: Callable[..., Mount], tree: Path, directory: Callable[..., Path]
) -> None:
    mount = mounted()
    inside, outside = mount.path / "in", directory("out") / "tree"
    planned = summary(envfs, "import", tree, inside, "--dry-run")
    assert not inside.exists()
    first = summary(envfs, "import", tree, inside)
    assert first["complete"]
    assert (first["copied"], first["linked"], first["skipped"]) == (
        planned["copied"],
        planned["linked"],
        planned["skipped"],
    )
    assert first["not_kept"] == {}
    mount.remount()
    wanted = picture(tree)
    assert wanted["links"] == [["a/b/x", "a/y", "zz"]]
    assert picture(inside) == wanted
    assert (inside / "sparse").stat().st_blocks * 512 < MIB
    again = summary(envfs, "import", tree, inside, "--compare")
    assert (again["copied"], again["linked"], again["bytes_copied"]) == (0, 0, 0)
    assert summary(envfs, "export", inside, outside)["complete"]
    assert picture(outside) == wanted
    assert (outside / "sparse").stat().st_blocks * 512 < MIB


def test_killed_in_the_middle_it_leaves_no_half_file_and_the_same_command_does_the_rest(
    envfs: Envfs, mounted: Callable[..., Mount], kms_home: Path, directory: Callable[..., Path]
) -> None:
    tree = directory("tree")
    for number in range(40):
        (tree / f"d{number % 4}").mkdir(exist_ok=True)
        (tree / f"d{number % 4}" / f"f{number:02}").write_bytes(NOISE.randbytes(MIB))
        (tree / f"e{number % 4}").mkdir(exist_ok=True)
        os.link(tree / f"d{number % 4}" / f"f{number:02}", tree / f"e{number % 4}" / f"f{number:02}")
    inside = mounted().path / "in"
    environment = UnixUser.current().environment() | {"ENVFS_HOME": str(kms_home)}
    cut = 0
    for wanted in (3, 12, 25):
        with subprocess.Popen([*envfs.argv, "import", tree, inside], env=environment, cwd="/") as process:
            deadline = time.monotonic() + TIMEOUT
            while len(list(inside.glob("d*/f*"))) < wanted and time.monotonic() < deadline:
                assert process.poll() is None
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
        cut += len(list(inside.glob(f"**/{PART}*")))
        for path in inside.glob("?*/f*"):
            assert path.read_bytes() == (tree / path.relative_to(inside)).read_bytes()
    assert cut, "no kill has met a file in the middle"
    done = summary(envfs, "import", tree, inside)
    assert done["complete"]
    assert done["present"] >= 25
    assert not list(inside.glob(f"**/{PART}*"))
    assert picture(inside) == picture(tree)


def test_a_killed_daemon_stops_it_and_after_the_next_mount_it_does_the_rest(
    envfs: Envfs, mounted: Callable[..., Mount], kms_home: Path, directory: Callable[..., Path]
) -> None:
    tree = directory("tree")
    for number in range(30):
        (tree / f"f{number:02}").write_bytes(NOISE.randbytes(MIB))
    mount = mounted()
    environment = UnixUser.current().environment() | {"ENVFS_HOME": str(kms_home)}
    command: list[str | Path] = [*envfs.argv, "import", tree, mount.path]
    with subprocess.Popen(command, env=environment, cwd="/", stderr=subprocess.PIPE, text=True) as process:
        while len(list(mount.path.glob("f*"))) < 5:
            assert process.poll() is None
            time.sleep(0.002)
        mount.kill()
        _, told = process.communicate(timeout=TIMEOUT)
        assert process.returncode == 8
    assert "type the same command again" in told
    mount.mount()
    assert summary(envfs, "import", tree, mount.path, "--compare")["complete"]
    assert picture(mount.path) == picture(tree)


def test_a_full_disk_stops_it_and_with_room_it_goes_on(
    envfs: Envfs, mounted: Callable[..., Mount], directory: Callable[..., Path]
) -> None:
    if os.getuid() != 0:
        pytest.skip("needs root, to mount a small tmpfs")
    lower, tree = directory("small"), directory("tree")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m,mode=0700", "tmpfs", lower], check=True, timeout=30)
    try:
        envfs("init", lower / "v")
        for number in range(20):
            (tree / f"f{number:02}").write_bytes(NOISE.randbytes(MIB))
        mount = mounted(lower=lower / "v")
        told = summary(envfs, "import", tree, mount.path, code=8)
        assert "No space left" in told["stopped"]
        assert "make room" in told["next"]
        assert 0 < told["copied"] < 20
        assert not list(mount.path.glob(f"{PART}*"))
        subprocess.run(["mount", "-o", "remount,size=40m", lower], check=True, timeout=30)
        assert summary(envfs, "import", tree, mount.path)["complete"]
        assert picture(mount.path) == picture(tree)
        mount.umount()
    finally:
        subprocess.run(["umount", "--lazy", lower], check=True, timeout=30)


@pytest.fixture
def busy(tree: Path) -> Iterator[Path]:
    """A file that never stays as it is."""
    path, ends = tree / "busy", threading.Event()
    path.write_bytes(bytes(4 * MIB))

    def write() -> None:
        with path.open("r+b") as file:
            while not ends.wait(0.001):
                file.seek(0)
                file.write(os.urandom(16))
                file.flush()

    writer = threading.Thread(target=write)
    writer.start()
    yield path
    ends.set()
    writer.join()


def test_a_file_that_changes_while_it_is_read_is_told_and_not_put_in_place(
    envfs: Envfs, mounted: Callable[..., Mount], tree: Path, busy: Path
) -> None:
    inside = mounted().path / "in"
    told = summary(envfs, "import", tree, inside, code=8)
    assert told["changed"] == 1
    assert [note["path"] for note in told["notes"] if note["outcome"] == "changed"] == ["busy"]
    assert not (inside / "busy").exists()
    assert (inside / "a" / "big").read_bytes() == (tree / "a" / "big").read_bytes()


def test_what_is_there_and_differs_is_left_alone_unless_it_shall_be_replaced(
    envfs: Envfs, mounted: Callable[..., Mount], tree: Path
) -> None:
    inside = mounted().path / "in"
    (inside / "empty").mkdir(parents=True)
    (inside / "none").write_bytes(b"written in the mount")
    (inside / "a").symlink_to("/")  # would lead out, if it were followed
    told = summary(envfs, "import", tree, inside, code=8)
    assert (inside / "none").read_bytes() == b"written in the mount"
    assert (inside / "a").is_symlink()
    assert told["conflict"] == 1
    assert [note["path"] for note in told["notes"] if note["outcome"] == "failed"] == ["a"]
    (inside / "a").unlink()
    assert summary(envfs, "import", tree, inside, "--replace")["complete"]
    assert picture(inside) == picture(tree)
    # The same size and time, and another content: only reading tells.
    status = (inside / "a" / "big").stat()
    with (inside / "a" / "big").open("r+b") as file:
        file.write(b"!")
    os.utime(inside / "a" / "big", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert summary(envfs, "import", tree, inside)["conflict"] == 0
    assert summary(envfs, "import", tree, inside, "--compare", code=8)["conflict"] == 1


def test_an_ordinary_user_keeps_what_he_can_and_is_told_the_rest(
    envfs: Envfs,
    mounted: Callable[..., Mount],
    unix_users: Callable[..., list[UnixUser]],
    directory: Callable[..., Path],
) -> None:
    (alice,) = unix_users("alice")
    tree = directory("tree")
    (tree / "program").write_bytes(b"#!/bin/sh")
    os.chown(tree / "program", 4321, 8765)
    (tree / "program").chmod(0o6755)
    (tree / "secret").write_bytes(b"of root's")
    (tree / "secret").chmod(0o600)
    (tree / "closed").mkdir(mode=0o700)
    (tree / "team").write_bytes(b"for a group")
    os.chown(tree / "team", alice.uid, 8765)
    (tree / "team").chmod(0o660)
    mount = mounted("allow_other")
    mount.path.chmod(0o777)
    inside = mount.path / "hers"
    told = summary(envfs, "import", tree, inside, code=8, user=alice)
    assert {note["path"]: note["outcome"] for note in told["notes"]} == {"secret": "failed", "closed": "failed"}
    assert told["not_kept"] == {"owner": 2, "group": 3}  # the program's, and that of DST itself
    program, team = (inside / "program").stat(), (inside / "team").stat()
    assert (program.st_uid, stat.S_IMODE(program.st_mode)) == (alice.uid, 0o755)
    assert stat.S_IMODE(team.st_mode) == 0o600  # her own group was not meant
    assert not (inside / "secret").exists()


def test_an_export_gives_nobody_more_than_he_has_and_leaves_out_what_is_denied(
    envfs: Envfs,
    mounted: Callable[..., Mount],
    unix_users: Callable[..., list[UnixUser]],
    directory: Callable[..., Path],
) -> None:
    (alice,) = unix_users("alice")
    mount = mounted("allow_other")
    shared, closed = mount.path / "shared", mount.path / "shared" / "closed"
    closed.mkdir(parents=True)
    envfs("key", "create", "--alias", "closed", "--user", "root")
    envfs("dir", "set-key", closed, "alias/closed")
    for path in (shared, closed):
        os.chown(path, alice.uid, alice.gid)
        path.chmod(0o700)
    for path in (shared / "one", shared / "two", closed / "denied"):
        path.write_bytes(NOISE.randbytes(2 * MIB))
        os.chown(path, alice.uid, alice.gid)
        path.chmod(0o600)
    out = directory("out", owner=alice)
    subprocess.run(["setfacl", "-d", "-m", "o::rwx,g::rwx", out], check=False, capture_output=True)
    seen: set[int] = set()
    ends = threading.Event()

    def look() -> None:
        while not ends.is_set():
            for directory_, directories, files in os.walk(out / "tree"):
                for name in [*directories, *files, "."]:
                    try:
                        seen.add(stat.S_IMODE((Path(directory_) / name).lstat().st_mode))
                    except FileNotFoundError:
                        continue

    watcher = threading.Thread(target=look)
    watcher.start()
    told = summary(envfs, "export", shared, out / "tree", code=8, user=alice)
    ends.set()
    watcher.join()
    assert [(note["path"], note["detail"]) for note in told["notes"]] == [("closed/denied", "Permission denied")]
    assert (out / "tree" / "one").read_bytes() == (shared / "one").read_bytes()
    assert not any(mode & 0o077 for mode in seen), seen


def test_who_may_only_drop_files_in_imports_without_comparison(
    envfs: Envfs,
    mounted: Callable[..., Mount],
    unix_users: Callable[..., list[UnixUser]],
    directory: Callable[..., Path],
) -> None:
    (alice,) = unix_users("alice")
    tree = directory("tree", owner=alice)
    (tree / "report").write_bytes(b"for others" * 1000)
    os.chown(tree / "report", alice.uid, alice.gid)
    mount = mounted("allow_other")
    box = mount.path / "box"
    box.mkdir(mode=0o777)
    box.chmod(0o777)
    key = json.loads(envfs("key", "create", "--alias", "box", "--json").stdout)["key_id"]
    statement = {
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:envfs:iam::000000000000:user/{alice.name}"},
        "Action": "kms:GenerateDataKey",
        "Resource": "*",
    }
    policy = json.loads(envfs("key", "policy", "get", key).stdout)
    policy["Statement"].append(statement)
    envfs("key", "policy", "put", key, "/dev/stdin", input=json.dumps(policy))
    envfs("dir", "set-key", box, "alias/box")
    told = summary(envfs, "import", tree, box / "hers", user=alice)
    assert told["complete"]
    assert told["not_kept"] == {"comparison (you may not read it)": 1}
    assert (box / "hers" / "report").read_bytes() == b"for others" * 1000
    assert (box / "hers" / "report").stat().st_mtime_ns == (tree / "report").stat().st_mtime_ns


def test_damage_in_the_volume_is_told_and_the_rest_comes_out(
    envfs: Envfs, mounted: Callable[..., Mount], directory: Callable[..., Path]
) -> None:
    mount = mounted()
    for name in ("bad", "good"):
        (mount.path / name).write_bytes(name.encode() * 5000)
    mount.umount()
    lower = next(path for path in mount.lower.iterdir() if path.stat().st_size == 1024 + 15_000 + 4 * 28)
    raw = bytearray(lower.read_bytes())
    raw[2000] ^= 1
    lower.write_bytes(raw)
    mount.mount()
    out = directory("out")
    told = summary(envfs, "export", mount.path, out, code=5)
    assert told["damaged"] == 1
    assert (out / "good").read_bytes() == b"good" * 5000
    assert sorted(os.listdir(out)) == ["good"]


def test_places_that_make_no_sense_are_refused(
    envfs: Envfs, mounted: Callable[..., Mount], tree: Path, directory: Callable[..., Path]
) -> None:
    mount = mounted()
    inner = mount.path / "inner"
    inner.mkdir()
    out = directory("out")
    link = out / "link"
    link.symlink_to(tree)
    for check, source, target, told in (
        (places.check_import, tree, out, "does not lie in an envfs mount"),
        (places.check_import, tree, mount.lower / "x", "holds ciphertext"),
        (places.check_import, mount.lower, inner, "holds ciphertext"),
        (places.check_import, mount.path.parent, inner, "DST lies in SRC"),
        (places.check_import, mount.path, inner, "DST lies in SRC"),
        (places.check_import, inner, mount.path, "SRC lies in DST"),
        (places.check_import, link, inner, "is not a directory"),
        (places.check_import, tree / "none", inner, "is not a directory"),
        (places.check_import, tree, inner / "no" / "such", "does not exist"),
        (places.check_export, tree, out, "is plaintext already"),
        (places.check_export, mount.lower, out, "holds ciphertext"),
        (places.check_export, inner, mount.lower, "holds ciphertext"),
    ):
        with pytest.raises(ConfigError, match=told) as refused:
            check(source, target)
        assert refused.value.hint
    done = envfs("import", tree, out, check=False)
    assert (done.returncode, "next: mount the volume first" in done.stderr) == (6, True)
    assert sorted(os.listdir(out)) == ["link"]
    assert os.listdir(inner) == []
