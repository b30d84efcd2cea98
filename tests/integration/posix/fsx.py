"""Random operations on one file through a mount, compared with an in-memory model after each.

What fsx does for other filesystems: writes by two handles and by mapping, truncates both ways, gaps, copies, renames,
reopens, remounts. hypothesis chooses the steps in test_fsx; `scripts/fsx` runs the same for as long as one likes:

    python -m tests.integration.posix.fsx DIRECTORY --operations 5000 --seed 1 [--remount COMMAND…]
"""

from __future__ import annotations

import argparse
import mmap
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LARGEST = 600_000
KINDS = (
    *("write", "write", "write", "append", "mapped write", "mapped write", "read", "read", "mapped read"),
    *("truncate", "truncate", "gap", "copy", "rename", "replace", "reopen", "fsync", "evict", "remount now and then"),
)
# Where blocks and pages of any size begin and end.
_EDGES = (0, 1, 4095, 4096, 4097, 8192, 16_384, 65_535, 65_536, 131_072, 262_144)


class Step(NamedTuple):
    """One operation; what it does not need of `offset`, `length` and `seed` it ignores."""

    kind: str
    handle: int
    offset: int
    length: int
    seed: int


def random_step(rng: random.Random) -> Step:
    offset = rng.choice(_EDGES) + rng.randrange(-3, 4) if rng.random() < 0.5 else rng.randrange(LARGEST)
    length = rng.choice((1, 10, 4096, 5000, 16_384, 70_000, 150_000))
    return Step(rng.choice(KINDS), rng.randrange(2), max(0, offset), length, rng.randrange(256))


class Exerciser:
    """The file `f` in a directory of a mount, two descriptors of it, and what it should hold."""

    def __init__(self, directory: Path, remount: Callable[[], object] | None = None) -> None:
        self._path = directory / "f"
        self._other = directory / "other"
        self._remount = remount
        self.model = bytearray()
        self._open(os.O_CREAT | os.O_TRUNC)

    def _open(self, flags: int = 0) -> None:
        self._fds = [os.open(self._path, os.O_RDWR | flags), os.open(self._path, os.O_RDWR)]

    def close(self) -> None:
        for fd in self._fds:
            os.close(fd)
        self._fds = []

    def apply(self, step: Step) -> None:
        getattr(self, "_" + step.kind.replace(" ", "_"))(step, self._fds[step.handle])
        assert os.fstat(self._fds[0]).st_size == len(self.model), step

    def check(self) -> None:
        """The whole file, by the other handle than the one that wrote last, and by name."""
        assert os.pread(self._fds[1], LARGEST * 2, 0) == self.model
        assert self._path.read_bytes() == self.model

    def finish(self) -> None:
        """Compare, remount, compare again."""
        self.check()
        self._reopen(None, 0)
        if self._remount is not None:
            self._restart(None, 0)
        self.check()
        self.close()

    @staticmethod
    def _data(step: Step, length: int) -> bytes:
        return random.Random(step.seed).randbytes(length)

    def _put(self, offset: int, data: bytes) -> None:
        self.model.extend(bytes(max(0, offset - len(self.model))))
        self.model[offset : offset + len(data)] = data

    def _write(self, step: Step, fd: int) -> None:
        offset = min(step.offset, len(self.model))
        data = self._data(step, step.length)
        assert os.pwrite(fd, data, offset) == len(data)
        self._put(offset, data)

    def _gap(self, step: Step, fd: int) -> None:
        data = self._data(step, step.length)
        os.pwrite(fd, data, step.offset)
        self._put(step.offset, data)

    def _append(self, step: Step, fd: int) -> None:
        if len(self.model) < LARGEST:
            data = self._data(step, step.length)
            os.pwrite(fd, data, len(self.model))
            self._put(len(self.model), data)

    def _mapped_write(self, step: Step, fd: int) -> None:
        if not self.model:
            return
        offset = step.offset % len(self.model)
        data = self._data(step, min(step.length, len(self.model) - offset))
        with mmap.mmap(fd, len(self.model)) as mapped:
            mapped[offset : offset + len(data)] = data
        self._put(offset, data)

    def _mapped_read(self, step: Step, fd: int) -> None:
        if not self.model:
            return
        offset = step.offset % len(self.model)
        with mmap.mmap(fd, len(self.model), prot=mmap.PROT_READ) as mapped:
            assert mapped[offset : offset + step.length] == self.model[offset : offset + step.length], step

    def _read(self, step: Step, fd: int) -> None:
        got = os.pread(fd, step.length, step.offset)
        assert got == self.model[step.offset : step.offset + step.length], step

    def _truncate(self, step: Step, fd: int) -> None:
        os.ftruncate(fd, step.offset)
        del self.model[step.offset :]
        self.model.extend(bytes(step.offset - len(self.model)))

    def _copy(self, step: Step, fd: int) -> None:
        """From one place of the file to another, where the two do not meet."""
        source, target = step.offset, (step.offset + LARGEST // 2) % LARGEST
        length = min(step.length, max(0, len(self.model) - source))
        if length and target <= len(self.model) and abs(source - target) >= length:
            copied = os.copy_file_range(fd, fd, length, source, target)
            self._put(target, bytes(self.model[source : source + copied]))

    def _rename(self, _step: Step, _fd: int) -> None:
        """There and back, over another file, while it is open."""
        self._other.write_bytes(b"in the way")
        os.rename(self._path, self._other)
        os.rename(self._other, self._path)

    def _replace(self, _step: Step, _fd: int) -> None:
        """A copy under another name takes the file's place; the handles are opened anew."""
        self._other.write_bytes(self.model)
        os.rename(self._other, self._path)
        self._reopen(None, 0)

    def _reopen(self, _step: Step | None, _fd: int) -> None:
        self.close()
        self._open()

    def _fsync(self, _step: Step, fd: int) -> None:
        os.fsync(fd)

    def _evict(self, _step: Step, fd: int) -> None:
        """Pages that are written back and dropped are read from below the next time."""
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def _restart(self, _step: Step | None, _fd: int) -> None:
        if self._remount is None:
            self._reopen(None, 0)
            return
        self.close()
        self._remount()
        self._open()

    def _remount_now_and_then(self, step: Step, fd: int) -> None:
        """Rarely, since it takes a second."""
        (self._restart if step.seed < 8 else self._reopen)(step, fd)


def main(arguments: Sequence[str]) -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="fsx")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--operations", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--remount", nargs=argparse.REMAINDER, default=[], help="command that remounts the directory")
    chosen = parser.parse_args(arguments)
    remount = (lambda: subprocess.run(chosen.remount, check=True)) if chosen.remount else None
    rng = random.Random(chosen.seed)
    exerciser = Exerciser(chosen.directory, remount)
    for number in range(chosen.operations):
        step = random_step(rng)
        try:
            exerciser.apply(step)
            if number % 20 == 0:
                exerciser.check()
        except (AssertionError, OSError) as error:
            print(f"operation {number} of seed {chosen.seed}: {step}: {error}", file=sys.stderr)
            return 1
    exerciser.finish()
    print(f"{chosen.operations} operations with seed {chosen.seed}: as in memory")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
