"""Files that a command writes for whoever runs it alone."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_privately(path: Path, text: str) -> None:
    """Write `text` to `path` with mode 0600, whole and on the disk or not at all. OSError."""
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:64]}.")
    except OSError as error:  # which names a file that nobody knows
        raise OSError(error.errno, error.strerror, os.fspath(path)) from None
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink()
        raise
