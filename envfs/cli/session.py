"""The KMS for a command: which one, how it is unlocked, and who asks."""

from __future__ import annotations

import contextlib
import os
import resource
from dataclasses import dataclass
from typing import TYPE_CHECKING

from envfs.access.resolver import Resolver
from envfs.cli import passphrase
from envfs.errors import ConfigError
from envfs.kms.engine import DATABASE, Engine
from envfs.kms.rootkey import typed_unlock
from envfs.kms.unlocking import find_unlock, slots_of
from envfs.service.config import HOME_VARIABLE, home_directory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from envfs.kms.model import Principal
    from envfs.kms.rootkey import Unlock


@dataclass(frozen=True, slots=True)
class Session:
    """An open KMS, and the invoking user as its principal."""

    engine: Engine
    principal: Principal


def kms_exists(home: Path) -> bool:
    """Whether there is a KMS in `home`. Raises OSError where one may not look."""
    try:
        (home / DATABASE).stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def unlock_for(home: Path, passphrase_file: Path | None) -> Unlock:
    """How the KMS in `home` opens: by the passphrase (or recovery key) that is given, else by the first of its slots
    that opens without anybody being asked, else by what is typed on the terminal.

    ConfigError if there is no KMS, or no way to open it.
    """
    if not kms_exists(home):
        raise ConfigError(
            f"there is no KMS in {home}", hint=f"envfs kms init makes one; {HOME_VARIABLE} names another directory"
        )
    if passphrase.named_file(passphrase_file) is not None:
        return typed_unlock(passphrase.read_passphrase(passphrase_file))
    return find_unlock(home, *slots_of(home), passphrase.ask)


@contextlib.contextmanager
def open_session(
    passphrase_file: Path | None = None, home: Path | None = None, *, unlock: Unlock | None = None
) -> Iterator[Session]:
    """The KMS in `home` (that of ENVFS_HOME if none is given) for the length of a command. `unlock`: what opens it, if
    it is not for `unlock_for` to find.
    """
    home = home_directory() if home is None else home
    # No core file with keys in it. What else daemons do for theirs takes longer than most commands run.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    engine = Engine.open(home, unlock_for(home, passphrase_file) if unlock is None else unlock)
    try:
        principal = Resolver(engine).resolve(os.getuid(), os.getgid(), os.getpid())
        yield Session(engine, principal)
    finally:
        engine.close()
