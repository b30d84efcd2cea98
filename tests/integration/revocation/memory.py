"""Looking for secrets in the memory of a process, as root may."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_PIECE = 16 << 20
_OVERLAP = 64


def found_in_memory(pid: int, secrets: Mapping[str, bytes]) -> set[str]:
    """The names of those that stand somewhere in the process's writable memory."""
    found = set()
    for piece in _memory(pid):
        found |= {name for name, secret in secrets.items() if name not in found and secret in piece}
    return found


def _memory(pid: int) -> Iterator[bytes]:
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            fields = line.split()
            if "w" not in fields[1] or line.endswith(("[vvar]", "[vsyscall]")):
                continue
            start, end = (int(text, 16) for text in fields[0].split("-"))
            while start < end:
                try:
                    memory.seek(start)
                    yield memory.read(min(_PIECE, end - start))
                except OSError:
                    pass
                start += _PIECE - _OVERLAP
