"""The exit codes of the command line: stable, and documented by `envfs --help` from this table."""

from __future__ import annotations

import enum

from envfs.errors import ConfigError, EnvfsError, FormatError, IntegrityError, Internal, KmsError, UnsupportedVersion
from envfs.service.errors import MountError


class ExitCode(enum.IntEnum):
    """What a script learns from `$?`."""

    OK = 0
    UNEXPECTED = 1
    USAGE = 2
    CONFIGURATION = 3
    REFUSED = 4
    DAMAGED = 5
    MOUNT_STATE = 6
    NEWER_VERSION = 7
    SYSTEM = 8
    INTERRUPTED = 130


MEANINGS = {
    ExitCode.OK: "done; for explain: allowed",
    ExitCode.UNEXPECTED: "a defect of envfs",
    ExitCode.USAGE: "wrong arguments",
    ExitCode.CONFIGURATION: "wrong settings: no KMS, no volume, wrong passphrase, unknown option",
    ExitCode.REFUSED: "the KMS refused: denied, no such key, disabled; for explain: denied",
    ExitCode.DAMAGED: "something stored is damaged or was tampered with",
    ExitCode.MOUNT_STATE: "a mountpoint is in use, not empty, not mounted, dead",
    ExitCode.NEWER_VERSION: "made by a newer release of envfs",
    ExitCode.SYSTEM: "the operating system refused: permissions, disk full, ...",
    ExitCode.INTERRUPTED: "interrupted",
}

# The first class that fits counts.
_BY_CLASS: tuple[tuple[type[BaseException], ExitCode], ...] = (
    (UnsupportedVersion, ExitCode.NEWER_VERSION),
    (FormatError, ExitCode.DAMAGED),
    (IntegrityError, ExitCode.DAMAGED),
    (Internal, ExitCode.SYSTEM),
    (KmsError, ExitCode.REFUSED),
    (MountError, ExitCode.MOUNT_STATE),
    (ConfigError, ExitCode.CONFIGURATION),
    (EnvfsError, ExitCode.UNEXPECTED),
    (OSError, ExitCode.SYSTEM),
    (KeyboardInterrupt, ExitCode.INTERRUPTED),
)


def exit_code(error: BaseException) -> ExitCode:
    """The code for an error that ends a command."""
    return next((code for kind, code in _BY_CLASS if isinstance(error, kind)), ExitCode.UNEXPECTED)
