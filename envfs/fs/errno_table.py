"""The one table from envfs' errors to errno values.

An OSError of the lower directory keeps its own errno. ENOKEY is what a disabled key or one that awaits deletion
gives: "Required key not available" is what cat(1) then prints, and tools treat it as an ordinary read error.
"""

from __future__ import annotations

import errno

from envfs.errors import (
    AccessDenied,
    ConfigError,
    Disabled,
    EnvfsError,
    FormatError,
    IntegrityError,
    InvalidState,
    KeyUnavailable,
    KmsError,
    NotFound,
)

ERRNO: tuple[tuple[type[EnvfsError], int], ...] = (
    (AccessDenied, errno.EACCES),
    (Disabled, errno.ENOKEY),
    (InvalidState, errno.ENOKEY),
    (KeyUnavailable, errno.ENOKEY),
    (NotFound, errno.ENOKEY),
    (KmsError, errno.EIO),
    (FormatError, errno.EIO),
    (IntegrityError, errno.EIO),
    (ConfigError, errno.EINVAL),
    (EnvfsError, errno.EIO),
)


def errno_of(error: EnvfsError) -> int:
    """The errno that a program sees for `error`."""
    return next(number for kind, number in ERRNO if isinstance(error, kind))
