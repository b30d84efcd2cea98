"""The KMS behind the Unix socket of a mount or of `envfs kms serve`, asked as the calling user.

What is sent may be secret (a plaintext to encrypt), so a socket is believed only if the process that listens on it is
root's, the user's own, or that of the owner of the KMS's directory.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from envfs.api.client import SocketClient
from envfs.errors import ConfigError
from envfs.service.config import HOME_VARIABLE, SOCKET_VARIABLE
from envfs.service.kms_socket import find_sockets

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def connect(paths: Sequence[Path] | None, home: Path, why: str) -> tuple[Path, SocketClient]:
    """The first of `paths` (None: where servers of the KMS in `home` listen) that answers and may be believed;
    ConfigError with what was tried, if none does. `why` the store itself is not opened.
    """
    trusted = trusted_uids(home)
    tried = []
    for path in find_sockets(home) if paths is None else paths:
        try:
            return path, SocketClient(path, trusted)
        except OSError as error:
            tried.append(f"{path}: {error.strerror or error}")
        except ConfigError as error:
            tried.append(error.message)
    found = "; ".join(tried) or "no server of it is running"
    raise ConfigError(
        f"the KMS cannot be reached: {why}; {found}",
        hint=f"have its owner start `envfs kms serve`; {SOCKET_VARIABLE} names a socket, {HOME_VARIABLE} another KMS",
    )


def trusted_uids(home: Path) -> frozenset[int]:
    """Whose servers are believed: root's, one's own, and those of the owner of `home`."""
    uids = {0, os.geteuid()}
    try:
        uids.add(home.stat().st_uid)
    except OSError:
        pass  # an unknown owner is nobody to believe
    return frozenset(uids)
