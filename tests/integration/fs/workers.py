"""Programs that work in a mount at the same time as others. Run as `python workers.py NAME ARGUMENTS`, outside pytest.

Nothing here imports envfs or pytest: a worker is an application like any other.
"""

from __future__ import annotations

import errno
import mmap
import os
import random
import sys

PAGE = 4096


def append(path: str, who: str, count: str) -> None:
    """Append `count` lines, each with one write(2)."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    for number in range(int(count)):
        line = f"{who} {number} {'x' * (number % 300)}\n".encode()
        assert os.write(fd, line) == len(line)
    os.close(fd)


def own_file(path: str, seed: str, steps: str) -> None:
    """Random writes, truncations and reads of a file that nobody else touches, against a bytearray."""
    rng = random.Random(int(seed))
    model = bytearray()
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    for _ in range(int(steps)):
        what = rng.random()
        offset = rng.randrange(300_000)
        if what < 0.6:
            data = rng.randbytes(rng.choice([10, 5000, 60_000]))
            os.pwrite(fd, data, offset)
            model.extend(bytes(max(0, offset - len(model))))
            model[offset : offset + len(data)] = data
        elif what < 0.7:
            os.ftruncate(fd, offset)
            del model[offset:]
            model.extend(bytes(offset - len(model)))
        else:
            assert os.pread(fd, 20_000, offset) == model[offset : offset + 20_000]
    os.close(fd)
    with open(path, "rb") as file:
        assert file.read() == model


def shared_slices(path: str, who: str, of: str, count: str) -> None:
    """Each worker writes every `of`-th page of one file, and finds only whole pages of somebody in the others."""
    mine, workers = int(who), int(of)
    fd = os.open(path, os.O_RDWR)
    for number in range(int(count)):
        page = (number * 7) % 64 * workers + mine
        os.pwrite(fd, bytes([mine + 1]) * PAGE, page * PAGE)
        other = os.pread(fd, PAGE, (number * 13) % (64 * workers) * PAGE)
        assert len(other) == PAGE
        assert other == other[:1] * PAGE
    os.close(fd)


def direct(path: str, who: str, count: str) -> None:
    """Pages past the page cache of the mount: every read and write is a request to the daemon."""
    buffer = mmap.mmap(-1, 16 * PAGE)
    rng = random.Random(int(who))
    fd = os.open(path, os.O_RDWR | os.O_DIRECT)
    size = os.fstat(fd).st_size // len(buffer)
    for number in range(int(count)):
        place = rng.randrange(size) * len(buffer)
        if number % 2:
            buffer[:] = bytes([rng.randrange(1, 255)]) * len(buffer)
            assert os.pwritev(fd, [buffer], place) == len(buffer)
        else:
            assert os.preadv(fd, [buffer], place) == len(buffer)
            assert buffer[:] == buffer[:1] * len(buffer)
    os.close(fd)


def names(directory: str, who: str, count: str) -> None:
    """Create, rename, exchange and remove in a directory that others use, too."""
    rng = random.Random(int(who))
    for number in range(int(count)):
        path = os.path.join(directory, f"{who}-{number}-{'n' * rng.choice([1, 200])}")
        with open(path, "wb") as file:
            file.write(who.encode() * 100)
        os.rename(path, path + "m")
        os.listdir(directory)
        with open(path + "m", "rb") as file:
            assert file.read() == who.encode() * 100
        if number % 3 == 0:
            os.unlink(path + "m")
        elif number % 3 == 1:
            os.rename(path + "m", os.path.join(directory, f"last of {who}"))


def fight(directory: str, who: str, count: str) -> None:
    """The same few names by everybody: one of them succeeds, the others get an errno that POSIX knows."""
    rng = random.Random(int(who))
    expected = {errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY, errno.EISDIR, errno.ENOTDIR, errno.EPERM}
    for _ in range(int(count)):
        one, other = (os.path.join(directory, rng.choice("abcd") * rng.choice([1, 190])) for _ in range(2))
        try:
            contend(rng.randrange(6), one, other)
        except OSError as error:
            if error.errno not in expected:
                raise


def contend(what: int, one: str, other: str) -> None:
    if what == 0:
        os.close(os.open(one, os.O_CREAT | os.O_EXCL))
    elif what == 1:
        os.mkdir(one)
    elif what == 2:
        os.rename(one, other)
    elif what == 3:
        os.link(one, other)
    elif what == 4:
        os.unlink(one)
    else:
        os.rmdir(one)


def stamp_and_sync(path: str, pages: str, seed: str) -> None:
    """Pages full of a rising number; says on standard output which were synced. Until the mount is gone."""
    rng = random.Random(int(seed))
    fd = os.open(path, os.O_RDWR)
    number = 1
    while True:
        changed = []
        for _ in range(rng.randrange(1, 20)):
            page, number = rng.randrange(int(pages)), number + 1
            os.pwrite(fd, number.to_bytes(8, "big") * (PAGE // 8), page * PAGE)
            changed.append(f"{page}:{number}")
        os.fsync(fd)
        print(*changed, flush=True)


def append_and_sync(path: str) -> None:
    """A log: lines of many lengths, each synced before it is told."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    number = 0
    while True:
        line = f"{number} {'y' * (number * 37 % 9000)}\n".encode()
        os.write(fd, line)
        os.fsync(fd)
        print(number, flush=True)
        number += 1


def whole_files_and_sync(directory: str) -> None:
    """As editors save: a new file, synced, renamed over the old one, the directory synced."""
    fd = os.open(directory, os.O_RDONLY)
    number = 0
    while True:
        temporary = os.path.join(directory, "t" * 200)
        with open(temporary, "wb") as file:
            file.write(b"%d " % number * 5000)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, os.path.join(directory, f"saved{number % 5}"))
        os.fsync(fd)
        print(number, flush=True)
        number += 1


def churn(directory: str) -> None:
    """Everything else that changes a volume, without syncing."""
    number = 0
    while True:
        path = os.path.join(directory, f"c{number % 50}")
        if not os.path.isdir(path):
            os.mkdir(path)  # and nothing above it, which is there as long as the mount is
        with open(os.path.join(path, "f"), "wb") as file:
            file.write(b"z" * (number * 911 % 200_000))
        os.truncate(os.path.join(path, "f"), number * 577 % 100_000)
        os.rename(os.path.join(path, "f"), os.path.join(path, "n" * 200))
        os.symlink("t" * (number * 61 % 4000 + 1), os.path.join(path, f"l{number}"))
        os.link(os.path.join(path, "n" * 200), os.path.join(path, f"h{number}"))
        if number % 7 == 6:
            for name in os.listdir(path):
                os.unlink(os.path.join(path, name))
            os.rmdir(path)
        number += 1
        if number % 10 == 0:
            print(number, flush=True)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
