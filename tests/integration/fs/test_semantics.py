"""What the system calls promise, through a real mount."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import mmap
import os
import random
import select
import signal
import socket
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from envfs.format.geometry import HEADER_SIZE
from tests.integration.fs.conftest import run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.integration.mounts import Mount

MIB = 1 << 20


def noise(length: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(length)


def refuses(code: int, attempt: Callable[[], object]) -> None:
    with pytest.raises(OSError) as refused:  # noqa: PT011 - the errno says it
        attempt()
    assert refused.value.errno == code


# Content


@pytest.mark.parametrize("options", [(), ("nowriteback",), ("nopoll",)])
def test_large_files_at_random_offsets(mounted: Callable[..., Mount], options: tuple[str, ...]) -> None:
    mount = mounted(*options)
    path = mount.path / "f"
    rng = random.Random(3)
    model = bytearray(noise(5 * MIB + 12345))
    path.write_bytes(model)
    fd = os.open(path, os.O_RDWR)
    for _ in range(150):
        offset, length = rng.randrange(6 * MIB), rng.choice([1, 100, 4096, 16384, 70_000, 300_000])
        data = rng.randbytes(length)
        assert os.pwrite(fd, data, offset) == length
        model.extend(bytes(max(0, offset - len(model))))
        model[offset : offset + length] = data
        at = rng.randrange(len(model))
        assert os.pread(fd, 50_000, at) == model[at : at + 50_000]
    os.ftruncate(fd, 3 * MIB + 1)
    del model[3 * MIB + 1 :]
    os.ftruncate(fd, 4 * MIB)
    model.extend(bytes(4 * MIB - len(model)))
    assert os.pread(fd, 5 * MIB, 0) == model
    os.close(fd)
    mount.remount()
    assert path.read_bytes() == model
    assert path.stat().st_size == len(model)


def test_sparse_files(mount: Mount) -> None:
    path = mount.path / "sparse"
    with open(path, "wb") as file:
        file.seek(1 << 34)
        file.write(b"end")
        file.seek(1 << 30)
        file.write(b"middle")
    mount.remount()
    assert path.stat().st_size == (1 << 34) + 3
    assert path.stat().st_blocks * 512 < MIB
    with open(path, "rb") as file:
        for offset, expected in ((0, b""), ((1 << 30) - 4, b""), (1 << 30, b"middle"), (1 << 34, b"end")):
            file.seek(offset)
            got = file.read(100)
            assert got.startswith(expected)
            assert not got[len(expected) :].strip(b"\0") or offset == (1 << 30) - 4


def test_shared_mappings_are_seen_by_other_processes_and_kept(mount: Mount) -> None:
    path = mount.path / "mapped"
    path.write_bytes(bytes(3 * 65536 + 100))
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[100:105] = b"first"
        mapped[65530:65540] = b"across two"
        mapped[-4:] = b"last"
        other = f"import sys; sys.stdout.buffer.write(open({str(path)!r}, 'rb').read()[65530:65540])"
        assert run(sys.executable, "-c", other) == "across two"
        writes = f"f = open({str(path)!r}, 'r+b'); f.seek(131072); f.write(b'by another')"
        run(sys.executable, "-c", writes)
        assert mapped[131072:131082] == b"by another"
        mapped.flush()
    mount.remount()
    content = path.read_bytes()
    assert (content[100:105], content[65530:65540], content[-4:]) == (b"first", b"across two", b"last")
    assert content[131072:131082] == b"by another"
    assert len(content) == 3 * 65536 + 100


def test_private_mappings_and_programs_read_pages(mount: Mount) -> None:
    path = mount.path / "f"
    data = noise(200_000)
    path.write_bytes(data)
    mount.remount()
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        assert mapped[:] == data
        mapped[0] = data[0] ^ 1
    assert path.read_bytes() == data


def test_o_trunc_o_append_o_excl(mount: Mount) -> None:
    path = mount.path / "f"
    path.write_bytes(noise(100_000))
    with open(path, "wb") as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"
    with open(path, "ab") as file:
        file.write(b" and more")
    refuses(errno.EEXIST, lambda: os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT))
    mount.remount()
    assert path.read_bytes() == b"new and more"


def test_a_descriptor_that_only_reads_does_not_write(mount: Mount) -> None:
    path = mount.path / "f"
    path.write_bytes(b"1")
    fd = os.open(path, os.O_RDONLY)
    refuses(errno.EBADF, lambda: os.write(fd, b"2"))
    refuses(errno.EINVAL, lambda: os.ftruncate(fd, 0))
    os.close(fd)
    assert path.read_bytes() == b"1"


def test_reads_that_wait_for_a_disk_and_syncs(on_disk: Mount) -> None:
    """The lower file is out of the page cache: the daemon has to wait, and goes on with other requests meanwhile."""
    path = on_disk.path / "f"
    data = noise(8 * MIB)
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    (on_disk.path / "small").write_bytes(b"s")
    on_disk.umount()
    (lower,) = (entry for entry in on_disk.lower.iterdir() if entry.stat().st_size > 8 * MIB)
    fd = os.open(lower, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)
    on_disk.mount()
    with (
        subprocess.Popen(["sha256sum", path], stdout=subprocess.PIPE) as whole,
        subprocess.Popen(["tail", "-c", str(MIB), path], stdout=subprocess.PIPE) as end,
    ):
        assert (on_disk.path / "small").read_bytes() == b"s"
        assert whole.communicate(timeout=60)[0].split()[0].decode() == hashlib.sha256(data).hexdigest()
        assert end.communicate(timeout=60)[0] == data[-MIB:]


def test_fsync_of_files_and_directories(on_disk: Mount) -> None:
    directory = on_disk.path / "d" / ("n" * 250)
    directory.mkdir(parents=True)
    fd = os.open(directory / "f", os.O_RDWR | os.O_CREAT)
    os.write(fd, b"synced")
    os.fsync(fd)
    os.write(fd, b" twice")
    os.fdatasync(fd)
    os.close(fd)
    fd = os.open(directory, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    fd = os.open(on_disk.path / "empty", os.O_RDWR | os.O_CREAT)
    os.fsync(fd)
    os.close(fd)
    os.sync()
    on_disk.kill()
    on_disk.mount()
    assert (directory / "f").read_bytes() == b"synced twice"
    assert (on_disk.path / "empty").read_bytes() == b""


# Names


def test_unlink_while_open(mount: Mount) -> None:
    path = mount.path / "f"
    with open(path, "w+b") as file:
        file.write(b"before")
        file.flush()
        os.unlink(path)
        assert not path.exists()
        path.write_bytes(b"another")
        file.write(b" after")
        file.flush()
        file.seek(0)
        assert file.read() == b"before after"
        assert os.fstat(file.fileno()).st_nlink == 0
        os.fchmod(file.fileno(), 0o600)
        os.ftruncate(file.fileno(), 3)
        assert os.fstat(file.fileno()).st_size == 3
        again = os.open(f"/proc/self/fd/{file.fileno()}", os.O_RDONLY)
        assert os.read(again, 100) == b"bef"
        os.close(again)
    assert path.read_bytes() == b"another"
    assert os.listdir(mount.path) == ["f"]


def test_an_open_file_that_is_renamed_over(mount: Mount) -> None:
    old, new = mount.path / "old", mount.path / "new"
    old.write_bytes(b"old content")
    new.write_bytes(b"new content")
    with open(old, "r+b") as file:
        os.rename(new, old)
        assert file.read() == b"old content"
        file.write(b"!")
        file.flush()
    assert old.read_bytes() == b"new content"
    mount.remount()
    assert old.read_bytes() == b"new content"


def test_an_open_file_that_is_renamed(mount: Mount) -> None:
    (mount.path / "d").mkdir()
    with open(mount.path / "a", "w+b") as file:
        os.rename(mount.path / "a", mount.path / "d" / "b")
        file.write(noise(50_000))
    mount.remount()
    assert (mount.path / "d" / "b").read_bytes() == noise(50_000)


def test_exchange_and_noreplace(mount: Mount) -> None:
    libc = ctypes.CDLL(None, use_errno=True)

    def renameat2(old: Path, new: Path, flags: int) -> int:
        result = libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags)
        return ctypes.get_errno() if result else 0

    a, d = mount.path / "a", mount.path / "d"
    a.write_bytes(b"file")
    d.mkdir()
    (d / "x").write_bytes(b"inner")
    assert renameat2(a, d, 2) == 0
    assert (a / "x").read_bytes() == b"inner"
    assert d.read_bytes() == b"file"
    assert renameat2(a, d, 1) == errno.EEXIST
    assert renameat2(a, mount.path / "free", 1) == 0
    assert renameat2(d, mount.path / "nothing", 2) == errno.ENOENT
    assert renameat2(d, mount.path / "whiteout", 4) == errno.EINVAL
    mount.remount()
    assert (mount.path / "free" / "x").read_bytes() == b"inner"
    assert sorted(os.listdir(mount.path)) == ["d", "free"]


def test_hard_links(mount: Mount) -> None:
    a, b, c = (mount.path / name for name in "abc")
    a.write_bytes(b"1")
    os.link(a, b)
    os.unlink(b)  # the daemon knew the file by this name, the kernel still knows the other one
    os.link(a, c)
    c.write_bytes(b"through c")
    assert a.read_bytes() == b"through c"
    assert a.stat().st_ino == c.stat().st_ino
    assert a.stat().st_nlink == 2
    os.symlink("target", b)
    os.link(b, mount.path / "l2", follow_symlinks=False)
    os.unlink(mount.path / "l2")
    assert os.readlink(b) == "target"
    refuses(errno.EPERM, lambda: os.link(mount.path, mount.path / "dir"))
    mount.remount()
    assert a.read_bytes() == c.read_bytes() == b"through c"
    os.rename(a, mount.path / "moved")
    assert (mount.path / "moved").read_bytes() == b"through c"


def test_names_of_255_bytes_and_no_more(mount: Mount) -> None:
    names = ["n" * 255, "ü" * 127 + "x", "x" * 176, "." * 255]
    for name in names:
        (mount.path / name).mkdir()
        (mount.path / name / name).write_bytes(name.encode())
    refuses(errno.ENAMETOOLONG, (mount.path / ("n" * 256)).mkdir)
    refuses(errno.ENAMETOOLONG, (mount.path / ("n" * 256)).stat)
    mount.remount()
    assert sorted(os.listdir(mount.path)) == sorted(names)
    for name in names:
        assert (mount.path / name / name).read_bytes() == name.encode()
    run("rm", "-r", *(mount.path / name for name in names))
    assert os.listdir(mount.path) == []


def test_deep_directories(mount: Mount) -> None:
    depth = 200
    path = mount.path
    for _ in range(depth):
        path = path / "d"
        path.mkdir()
    (path / "f").write_bytes(b"deep")
    mount.remount()
    assert (path / "f").read_bytes() == b"deep"
    os.rename(mount.path / "d", mount.path / "e")
    assert mount.path.joinpath("e", *["d"] * (depth - 1), "f").read_bytes() == b"deep"
    run("rm", "-r", mount.path / "e")


def test_four_thousand_small_files(mount: Mount) -> None:
    directory = mount.path / "many"
    directory.mkdir()
    for number in range(4000):
        with open(directory / f"file{number}", "wb", buffering=0) as file:
            file.write(b"%d" % number)
    mount.remount()
    lines = run("ls", "-lR", mount.path).splitlines()
    sizes = {line.split()[-1]: int(line.split()[4]) for line in lines if line.startswith("-")}
    assert sizes == {f"file{number}": len(str(number)) for number in range(4000)}
    assert sorted(os.listdir(directory)) == sorted(sizes)
    for number in range(0, 4000, 41):
        assert (directory / f"file{number}").read_bytes() == b"%d" % number
    # Removed while they are listed, as rm -r does.
    with os.scandir(directory) as entries:
        for entry in entries:
            os.unlink(entry)
    assert os.listdir(directory) == []
    directory.rmdir()


def test_directories_that_are_in_the_way(mount: Mount) -> None:
    (mount.path / "d" / "e").mkdir(parents=True)
    (mount.path / "f").write_bytes(b"")
    refuses(errno.ENOTEMPTY, (mount.path / "d").rmdir)
    refuses(errno.ENOTDIR, (mount.path / "f").rmdir)
    refuses(errno.EISDIR, (mount.path / "d").unlink)
    refuses(errno.EINVAL, lambda: os.rename(mount.path / "d", mount.path / "d" / "e" / "x"))
    refuses(errno.EISDIR, lambda: os.rename(mount.path / "f", mount.path / "d"))
    refuses(errno.ENOTDIR, lambda: os.rename(mount.path / "d", mount.path / "f"))
    refuses(errno.ENOTDIR, (mount.path / "f" / "x").stat)


def test_what_is_in_a_directory_that_somebody_is_in(mount: Mount) -> None:
    directory = mount.path / "d"
    directory.mkdir()
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.rmdir(directory)
        assert os.listdir(fd) == []
        refuses(errno.ENOENT, lambda: os.open("new", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        directory.mkdir()
        (directory / "x").write_bytes(b"in the new one")
        assert os.listdir(fd) == []
    finally:
        os.close(fd)
    assert os.listdir(directory) == ["x"]


# Attributes


def test_times_and_modes(mount: Mount) -> None:
    path = mount.path / "f"
    path.write_bytes(b"x")
    os.utime(path, ns=(1_234_567_890_123_456_789, 987_654_321_012_345_678))
    os.chmod(path, 0o6751)
    (mount.path / "d").mkdir()
    os.chmod(mount.path / "d", 0o1777)
    os.symlink("f", mount.path / "l")
    os.utime(mount.path / "l", ns=(5, 6), follow_symlinks=False)
    for _ in range(2):
        found = path.stat()
        assert (found.st_atime_ns, found.st_mtime_ns) == (1_234_567_890_123_456_789, 987_654_321_012_345_678)
        assert stat.S_IMODE(found.st_mode) == 0o6751
        assert stat.S_IMODE((mount.path / "d").stat().st_mode) == 0o1777
        assert (mount.path / "l").lstat().st_mtime_ns == 6
        mount.remount()


def test_times_set_before_the_close_are_the_times(mount: Mount) -> None:
    """With write-back, the data arrives at the daemon after them."""
    for name, data in (("empty", b""), ("small", b"x"), ("large", noise(3 * MIB))):
        with open(mount.path / name, "wb") as file:
            file.write(data)
            file.flush()
            os.utime(file.fileno(), ns=(1_000_000_001, 2_000_000_002))
    mount.remount()
    for name in ("empty", "small", "large"):
        assert (mount.path / name).stat().st_mtime_ns == 2_000_000_002


@pytest.mark.parametrize("options", [(), ("nowriteback",)])
def test_times_do_not_move_when_it_is_mounted_again(mounted: Callable[..., Mount], options: tuple[str, ...]) -> None:
    mount = mounted(*options)
    for number in range(20):
        (mount.path / f"new{number}").write_bytes(b"x" * number * 1000)
    (mount.path / "rewritten").write_bytes(b"x" * 100_000)
    (mount.path / "rewritten").write_bytes(b"y")
    with open(mount.path / "appended", "ab") as file:
        file.write(b"1" * 10_000)
        file.flush()
        os.fsync(file.fileno())
        file.write(b"2")
    with open(mount.path / "mapped", "w+b") as file:
        file.truncate(10_000)
        with mmap.mmap(file.fileno(), 0) as mapped:
            mapped[5:10] = b"12345"
    (mount.path / "touched").touch()
    before = {entry.name: entry.stat().st_mtime_ns for entry in os.scandir(mount.path)}
    mount.remount()
    assert {entry.name: entry.stat().st_mtime_ns for entry in os.scandir(mount.path)} == before


def test_the_umask_counts(mount: Mount) -> None:
    before = os.umask(0o027)
    try:
        os.close(os.open(mount.path / "f", os.O_CREAT | os.O_WRONLY, 0o666))
        os.mkdir(mount.path / "d", 0o777)
        os.mkfifo(mount.path / "p", 0o666)
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((mount.path / name).stat().st_mode) for name in "fdp"]
    assert modes == [0o640, 0o750, 0o640]


def test_fifos_and_sockets(mount: Mount) -> None:
    fifo, name = mount.path / "fifo", mount.path / "socket"
    os.mkfifo(fifo)
    with subprocess.Popen(["cat", fifo], stdout=subprocess.PIPE) as reader:
        fifo.write_bytes(b"through the pipe")
        assert reader.stdout is not None
        assert reader.stdout.read() == b"through the pipe"
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(str(name))
        server.listen()
        client.connect(str(name))
        accepted, _ = server.accept()
        with accepted:
            client.sendall(b"through the socket")
            assert accepted.recv(100) == b"through the socket"
    mount.remount()
    assert stat.S_ISFIFO(fifo.stat().st_mode)
    assert stat.S_ISSOCK(name.stat().st_mode)


def test_extended_attributes(mount: Mount) -> None:
    path = mount.path / "f"
    path.write_bytes(b"x")
    os.setxattr(path, "user.one", b"1" * 1000)
    os.setxattr(path, "user.two", b"")
    os.setxattr(path, "user.one", b"replaced", os.XATTR_REPLACE)
    refuses(errno.EEXIST, lambda: os.setxattr(path, "user.one", b"", os.XATTR_CREATE))
    refuses(errno.ENODATA, lambda: os.setxattr(path, "user.three", b"", os.XATTR_REPLACE))
    mount.remount()
    assert sorted(os.listxattr(path)) == ["user.one", "user.two"]
    assert os.getxattr(path, "user.one") == b"replaced"
    os.removexattr(path, "user.two")
    refuses(errno.ENODATA, lambda: os.getxattr(path, "user.two"))
    os.setxattr(path, "user." + "n" * 250, b"the longest name")
    refuses(errno.ERANGE, lambda: os.setxattr(path, "user." + "n" * 251, b""))
    refuses(errno.EOPNOTSUPP, lambda: os.setxattr(path, "system.posix_acl_access", b"\2\0\0\0"))
    run("cp", "--preserve=xattr", path, mount.path / "copy")
    assert os.getxattr(mount.path / "copy", "user.one") == b"replaced"
    assert os.getxattr(mount.path / "copy", "user." + "n" * 250) == b"the longest name"
    path.write_bytes(b"rewritten")
    assert os.getxattr(path, "user.one") == b"replaced"


def test_without_extended_attributes(mounted: Callable[..., Mount]) -> None:
    mount = mounted("noxattr")
    path = mount.path / "f"
    path.write_bytes(b"x")
    refuses(errno.EOPNOTSUPP, lambda: os.setxattr(path, "user.one", b""))
    refuses(errno.EOPNOTSUPP, lambda: os.getxattr(path, "user.one"))
    assert path.read_bytes() == b"x"
    run("ls", "-l", mount.path)
    run("cp", "-a", path, mount.path / "copy")


def test_statfs_and_df(mount: Mount) -> None:
    inside, below = os.statvfs(mount.path), os.statvfs(mount.lower)
    assert (inside.f_namemax, inside.f_frsize, inside.f_blocks) == (255, below.f_frsize, below.f_blocks)
    assert inside.f_bfree > 0
    line = run("df", "-B1", "--output=source,fstype,size", mount.path).splitlines()[1].split()
    assert line == [str(mount.lower), "fuse.envfs", str(below.f_blocks * below.f_frsize)]


def test_the_lower_size_is_arithmetic(mount: Mount) -> None:
    for size in (0, 1, 4096, 4097, 100_000):
        (mount.path / str(size)).write_bytes(bytes(size))
    mount.umount()
    sizes = sorted(entry.stat().st_size for entry in mount.lower.iterdir() if not entry.name.startswith("envfs."))
    assert sizes == sorted(HEADER_SIZE + size + 28 * ((size + 4095) // 4096) for size in (0, 1, 4096, 4097, 100_000))


# Locks, and waiting


def test_locks_work_between_processes(mount: Mount) -> None:
    path = mount.path / "lock"
    path.write_bytes(b"")
    for kind in ("flock", "lockf"):
        with open(path, "r+b") as file:
            getattr(fcntl, kind)(file, fcntl.LOCK_EX)
            attempt = (
                "import fcntl, sys\n"
                f"f = open({str(path)!r}, 'r+b')\n"
                f"try: fcntl.{kind}(f, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
                "except BlockingIOError: sys.exit(7)\n"
            )
            run(sys.executable, "-c", attempt, status=7)
        run(sys.executable, "-c", attempt)


def test_a_process_that_is_killed_in_a_write_harms_nothing(mount: Mount) -> None:
    path = mount.path / "f"
    writes = f"f = open({str(path)!r}, 'wb', buffering=0)\nprint('go', flush=True)\nwhile True: f.write(b'x' * 1000000)"
    with subprocess.Popen([sys.executable, "-c", writes], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert select.select([writer.stdout], [], [], 60)[0]
        writer.send_signal(signal.SIGKILL)
        writer.wait(60)
    size = path.stat().st_size
    mount.remount()
    assert path.read_bytes() == b"x" * size
