"""Which dates of signatures were used up by a server, for the one that comes after it.

A server remembers the signatures that it has seen, and refuses what is dated before it began. That leaves the requests
of clients whose clocks are fast: dated ahead, they would be good for the next server as well. So before the first of
them is accepted, a file says until when the dates of its access key are used up.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Final

from envfs.api.errors import SignatureMismatch
from envfs.errors import IntegrityError, Internal
from envfs.kms.bootstrap import sync_directory

if TYPE_CHECKING:
    from pathlib import Path

FILE_NAME: Final = "used-dates.json"  # in the KMS's directory
STEP: Final = 10  # seconds for which one writing of the file does: a fast client makes many requests
_TOO_EARLY: Final = "Signature may have been used with this server's predecessor: its date lies ahead of its time."


class UsedDates:
    """The file at `path`. IntegrityError if it is damaged."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._before = _read(path)  # by our predecessors: access key id → seconds since 1970
        self._until = dict(self._before)

    def check(self, access_key_id: str, date: int) -> None:
        """SignatureMismatch if a predecessor may have seen a signature with this date."""
        if date <= self._before.get(access_key_id, -1):
            raise SignatureMismatch(_TOO_EARLY)

    def use(self, access_key_id: str, date: int, now: float) -> None:
        """To be called before a signature is accepted. Internal if the file cannot be written."""
        # A server that comes later refuses all that is not dated ahead of now.
        if date <= now or date <= self._until.get(access_key_id, -1):
            return
        until = {known: last for known, last in self._until.items() if last >= now}
        until[access_key_id] = date + STEP
        try:
            self._write(until)
        except OSError as error:
            raise Internal(
                f"{self._path} cannot be written: {error.strerror}",
                hint="make room, or correct the clock of the client: then the file is not needed",
            ) from error
        self._until = until

    def _write(self, until: dict[str, int]) -> None:
        temporary = self._path.with_name(f".{self._path.name}.new")
        temporary.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        with os.fdopen(os.open(temporary, flags, 0o600), "w", encoding="ascii") as file:
            json.dump(until, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(self._path)
        sync_directory(self._path.parent)


def _read(path: Path) -> dict[str, int]:
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(type(last) is int for last in found.values()):
        raise IntegrityError(
            f"{path} is damaged: which signatures may have been used already is not known",
            hint="remove it when ten minutes have gone by since a server ran on TCP",
        )
    return found
