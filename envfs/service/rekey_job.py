"""How far a rekey is, in ENVFS_HOME/rekey: a second run after a kill goes on there and does not begin again.

Never beyond a file that failed, which the second run has to tell of, too. And not after a day: who runs it again then
has another reason, and what the first run did may be known to somebody by now.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from envfs.fs import lower

if TYPE_CHECKING:
    from envfs.fs.nodes import Node

DIRECTORY: Final = "rekey"
_PERIOD: Final = 1.0  # seconds between two notes
_LARGEST: Final = 1 << 20
_MAX_AGE: Final = 24 * 3600.0  # seconds since the last file of the run that was cut off


class RekeyJob:
    """One run over what is below a path, for one user. A note that cannot be read means nothing; it is no secret."""

    def __init__(self, home: Path, volume_id: bytes, uid: int, start: Node, key: str) -> None:
        identity = json.dumps([volume_id.hex(), uid, start.path(), start.lower_ino, key]).encode()
        self._directory = home / DIRECTORY
        self._name = hashlib.sha256(identity).hexdigest().encode()[:32] + b".json"
        self._noted = time.monotonic()
        self._has_failures = False

    def after(self) -> tuple[bytes, ...]:
        """The lower names down to the last file that was done; empty for a new run."""
        try:
            with self._opened() as fd:
                note = json.loads(lower.read_small_file(fd, self._name, _LARGEST))
            if not 0 <= time.time() - note["at"] <= _MAX_AGE:
                return ()
            return tuple(os.fsencode(name) for name in note["after"])
        except (OSError, ValueError, KeyError, TypeError):
            return ()

    def done(self, start: Node, parent: Node, lower_name: bytes) -> None:
        """A file has been done. Written down now and then: the last second is done again."""
        now = time.monotonic()
        if self._has_failures or now - self._noted < _PERIOD:
            return
        self._noted = now
        names = [lower_name]
        at: Node | None = parent
        while at is not None and at is not start:
            names.append(at.lower_name)
            at = at.parent
        note = {"after": [os.fsdecode(name) for name in reversed(names)], "at": time.time()}
        content = json.dumps(note).encode()
        self._directory.mkdir(mode=0o700, exist_ok=True)
        with self._opened() as fd:
            lower.replace_file(fd, self._name, content)

    def failed(self) -> None:
        """A file could not be done: a second run begins before it."""
        self._has_failures = True

    def finished(self) -> None:
        """The next run begins anew."""
        try:
            with self._opened() as fd:
                lower.unlink_if_there(fd, self._name)
        except FileNotFoundError:
            pass

    def _opened(self) -> _Directory:
        return _Directory(self._directory)


class _Directory:
    """A descriptor of a directory, for a with statement."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1

    def __enter__(self) -> int:
        self._fd = os.open(self._path, lower.OPEN_DIRECTORY)
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
