"""A source tree in a tar archive, the same bytes on every machine: what untar, ls -lR and rm -rf are measured with."""

from __future__ import annotations

import io
import random
import tarfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_WORDS = "buffer cache driver event frame graph hash index kernel list map node object parser queue ring stream".split()


def make_tarball(path: Path, files: int) -> int:
    """Write the archive with this many files; the number of its entries, directories included.

    Sizes are log-normal with a median of about 4 KiB and no more than 200 KiB, as in a source tree.
    """
    chance = random.Random(files)
    line = " ".join(_WORDS).encode() + b"\n"
    text = line * (200 * 1024 // len(line) + 1)
    directories = _directories(chance, max(1, files // 14))
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for directory in directories:
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode, entry.mtime = tarfile.DIRTYPE, 0o755, 1_600_000_000
            archive.addfile(entry)
        for number in range(files):
            size = min(200 * 1024, int(chance.lognormvariate(8.3, 1.2)))
            entry = tarfile.TarInfo(f"{chance.choice(directories)}/{chance.choice(_WORDS)}_{number}.c")
            entry.size, entry.mode, entry.mtime = size, 0o644, 1_600_000_000 + number
            archive.addfile(entry, io.BytesIO(text[:size]))
    return files + len(directories)


def _directories(chance: random.Random, count: int) -> list[str]:
    """Parents before children, at most five deep."""
    found = ["src"]
    while len(found) < count:
        parent = chance.choice(found)
        if parent.count("/") < 5:
            found.append(f"{parent}/{chance.choice(_WORDS)}{len(found)}")
    return found
