"""The way from a command to the KMS: its store, opened here, or the Unix socket of a process that has it open.

Every command of the KMS asks in AWS's JSON operations, and does not know which way they go. The store is opened if
that is possible: its files can be reached and so can what unlocks it. Otherwise a mount or `envfs kms serve` is asked,
which knows the calling user from the kernel and decides about him as about everybody.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from envfs.api.dispatch import Api
from envfs.cli import passphrase
from envfs.cli.session import kms_exists, open_session
from envfs.errors import ConfigError
from envfs.kms.engine import DATABASE
from envfs.kms.model import RequestFacts
from envfs.kms.rootkey import KEY_FILE_NAME
from envfs.kms.unlocking import opens_by_itself
from envfs.service.config import HOME_VARIABLE, SOCKET_VARIABLE, SYSTEM_HOME, home_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from envfs.api.client import SocketClient
    from envfs.cli.session import Session

KMS_TARGET = "TrentService"  # what AWS KMS calls itself in X-Amz-Target
USER_AGENT = "envfs"


class Backend:
    """A KMS that can be asked, as the invoking user. `way`: how it is reached, for people; `home`: its directory;
    `session`: the store, where it is this process that has opened it.
    """

    def __init__(
        self, way: str, home: Path, ask: Callable[[str, dict[str, Any]], dict[str, Any]], session: Session | None = None
    ) -> None:
        self.way = way
        self.home = home
        self.session = session
        self._ask = ask

    def call(self, operation: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to an operation of AWS KMS (`Decrypt`), or to another one by its whole target
        (`EnvfsIam.PutPolicy`). Bytes are base64 text, times seconds since 1970. EnvfsError, as the KMS raises it.
        """
        # The header X-Amz-Target has it whole.
        return self._ask(operation if "." in operation else f"{KMS_TARGET}.{operation}", dict(request))


@contextlib.contextmanager
def open_backend(passphrase_file: Path | None = None, *, maintain: bool = True) -> Iterator[Backend]:
    """The KMS for the length of a command. ConfigError if there is none, or no way to it.

    Whoever opens the store does what is due in it, unless `maintain` is false.
    """
    home = home_directory()
    named = os.environ.get(SOCKET_VARIABLE, "")
    opened: tuple[Path, SocketClient] | None
    if named:
        opened = _connect([Path(named)], home, f"{SOCKET_VARIABLE} is set")
    else:
        home = _home_of_kms(home)
        opened = _server_of(home, passphrase_file)
    if opened is None:
        with _direct(home, passphrase_file, maintain=maintain) as direct:
            yield direct
    else:
        path, client = opened
        with client:
            yield Backend(f"the socket {path}", home, client.call)


@contextlib.contextmanager
def _direct(home: Path, passphrase_file: Path | None, *, maintain: bool) -> Iterator[Backend]:
    """The store, opened by this process."""
    facts = RequestFacts(user_agent=USER_AGENT)
    with open_session(passphrase_file, home) as session:
        if maintain:
            session.engine.maintain()
        api = Api(session.engine)
        yield Backend(
            f"the store in {home}",
            home,
            lambda target, request: api.call(session.principal, target, request, facts),
            session,
        )


def _home_of_kms(home: Path) -> Path:
    """`home`; for an ordinary user who has no KMS and named none, that of the system."""
    if os.environ.get(HOME_VARIABLE) or os.geteuid() == 0:
        return home
    try:
        return home if kms_exists(home) or not SYSTEM_HOME.exists() else SYSTEM_HOME
    except PermissionError:
        return home


def _server_of(home: Path, passphrase_file: Path | None) -> tuple[Path, SocketClient] | None:
    """A server of the KMS in `home`, if it has to be asked, or if the store would first ask for its passphrase."""
    obstacle = _obstacle(home, passphrase_file)
    if obstacle:
        own = home_directory()
        return _connect(None, home, obstacle if home == own else f"there is none in {own}; {obstacle}")
    if _would_ask(home, passphrase_file):
        with contextlib.suppress(ConfigError):
            return _connect(None, home, "")
    return None


def _connect(paths: Sequence[Path] | None, home: Path, why: str) -> tuple[Path, SocketClient]:
    # Loaded when it is needed: it brings HTTP with it, which takes longer to load than a key to be listed.
    server = importlib.import_module("envfs.cli.server")
    connected: tuple[Path, SocketClient] = server.connect(paths, home, why)
    return connected


def _obstacle(home: Path, passphrase_file: Path | None) -> str:
    """Why this user cannot open the store in `home`; empty if he can, or if there is none."""
    try:
        if not kms_exists(home):
            return ""
    except PermissionError:
        return f"{home} is closed to you"
    if not os.access(home, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
        return f"{home} is closed to you"
    if not os.access(home / DATABASE, os.R_OK | os.W_OK, effective_ids=True):
        return f"{home / DATABASE} is closed to you"
    key_file = home / KEY_FILE_NAME
    if passphrase.named_file(passphrase_file) is None and key_file.exists():
        return "" if os.access(key_file, os.R_OK, effective_ids=True) else f"{key_file} is closed to you"
    return ""


def _would_ask(home: Path, passphrase_file: Path | None) -> bool:
    """Whether opening the store takes more than its key file: a passphrase on the terminal, or another service."""
    if passphrase.named_file(passphrase_file) is not None:
        return False
    return kms_exists(home) and not (home / KEY_FILE_NAME).exists() and not opens_by_itself(home)
