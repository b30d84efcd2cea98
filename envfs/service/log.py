"""The log of a mount's daemon: ENVFS_HOME/log/MOUNTPOINT-HASH.log, and warnings to syslog too where there is one.

One line for each message, whatever the names of files in it, so that nobody can forge one; a traceback follows it,
indented. Never keys, plaintext or
passphrases. Everything goes through `logging`; what writes to file descriptor 2 all the same (libfuse, fusermount3, the
interpreter's last words) lands in the same file. It is rotated at 4 MiB with three predecessors, so that a stream of
errors cannot fill the disk.
"""

from __future__ import annotations

import hashlib
import logging
import logging.handlers
import os
import re
import stat
import sys
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from pathlib import Path

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_MAX_BYTES = 4 << 20
_KEPT = 3
_SYSLOG = "/dev/log"
#: What `-o log=` and `--log-level` may say.
LEVELS = ("debug", "info", "warning", "error")


class _OneLine(logging.Formatter):
    """Escapes what would end the line or steer a terminal: names of files come from users."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (logging's name)
        return _printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802  (logging's name)
        """Indented: no line of it, nor of a message with names in it, passes for another message."""
        return "\n".join(f"  {_printable(line)}" for line in super().formatException(ei).splitlines())


def _printable(text: str) -> str:
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode() for char in text
    )


def level_of(name: str) -> int:
    """The level of one of LEVELS."""
    return logging.getLevelNamesMapping()[name.upper()]


class _OwnerOnlyFile(logging.handlers.RotatingFileHandler):
    """A rotating file of mode 0600, whatever the umask, which file descriptor 2 follows."""

    def _open(self) -> TextIO:  # type: ignore[override]
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        os.dup2(descriptor, 2)
        return os.fdopen(descriptor, "a", encoding="utf-8", errors="backslashreplace")


def log_path(home: Path, mountpoint: Path) -> Path:
    """Where the daemon of a mount logs: one file for each mountpoint, beginning with the mountpoint's own name."""
    name = re.sub(r"[^\w.-]", "_", mountpoint.name, flags=re.ASCII)[:64]
    digest = hashlib.sha256(os.fsencode(mountpoint)).hexdigest()[:8]
    return home / "log" / f"{name}-{digest}.log"


def to_file(path: Path, *, level: int = logging.INFO) -> None:
    """Send the root logger and file descriptor 2 to `path`; warnings and worse go to syslog as well."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    handler = _OwnerOnlyFile(path, maxBytes=_MAX_BYTES, backupCount=_KEPT, encoding="utf-8")
    handler.setFormatter(_OneLine(_FORMAT))
    handlers: list[logging.Handler] = [handler]
    if _is_socket(_SYSLOG):
        syslog = logging.handlers.SysLogHandler(_SYSLOG, facility=logging.handlers.SysLogHandler.LOG_DAEMON)
        syslog.setLevel(logging.WARNING)
        syslog.setFormatter(_OneLine("envfs[%(process)d]: %(name)s: %(message)s"))
        handlers.append(syslog)
    logging.basicConfig(level=level, handlers=handlers, force=True)


def to_stderr(*, level: int = logging.INFO) -> None:
    """The log of a mount in the foreground."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine(_FORMAT))
    logging.basicConfig(level=level, handlers=[handler], force=True)


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)  # noqa: PTH116
    except OSError:
        return False
