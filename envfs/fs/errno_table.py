"""The one table from envfs' errors to errno values.

An OSError of the lower directory keeps its own errno. ENOKEY is what a disabled key or one that awaits deletion
gives: "Required key not available" is what cat(1) then prints, and tools treat it as an ordinary read error. A foreign
KMS that cannot be reached is "No route to host", one that does not answer "Connection timed out", and too many requests
at once are "Resource temporarily unavailable".
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
    KmsTimeout,
    KmsUnreachable,
    NotFound,
    Throttling,
)

ERRNO: tuple[tuple[type[EnvfsError], int], ...] = (
    (AccessDenied, errno.EACCES),
    (Disabled, errno.ENOKEY),
    (InvalidState, errno.ENOKEY),
    (KmsTimeout, errno.ETIMEDOUT),
    (KmsUnreachable, errno.EHOSTUNREACH),
    (KeyUnavailable, errno.ENOKEY),
    (NotFound, errno.ENOKEY),
    (Throttling, errno.EAGAIN),
    (KmsError, errno.EIO),
    (FormatError, errno.EIO),
    (IntegrityError, errno.EIO),
    (ConfigError, errno.EINVAL),
    (EnvfsError, errno.EIO),
)


def errno_of(error: EnvfsError) -> int:
    """The errno that a program sees for `error`."""
    return next(number for kind, number in ERRNO if isinstance(error, kind))
