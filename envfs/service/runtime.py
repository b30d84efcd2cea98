"""Where the control sockets of running mounts are, so that a client that knows only a path in a mount finds its daemon.

The name is the mount's device number ("0:45" → "0_45.sock"): every path in the mount leads to it (its mount id in
/proc/self/fdinfo, then mountinfo), bind mounts and renamed parents included, and no two live mounts share it. The
directory follows from the uid that mounted, which mountinfo tells too:

    root             /run/envfs
    ordinary user    /run/user/UID/envfs, else ~UID/.local/share/envfs/run, else $XDG_RUNTIME_DIR/envfs
    both             else ENVFS_HOME/run

The daemon takes the first that it can make; a client tries all of them, and believes a socket only if its peer is the
mount's owner. What follows from the uid alone comes first, because another user who asks (root, say) does not have the
owner's environment.
"""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path

from envfs.errors import ConfigError
from envfs.service.config import HOME_VARIABLE

SYSTEM_RUNTIME = Path("/run/envfs")


def socket_name(device: str) -> str:
    """The file name of the socket of the mount with this device number."""
    return device.replace(":", "_") + ".sock"


def candidates(uid: int) -> list[Path]:
    """The directories in which a daemon of `uid` may keep its sockets, best first."""
    found = [SYSTEM_RUNTIME] if uid == 0 else _of_user(uid)
    home = os.environ.get(HOME_VARIABLE, "")
    if home:
        found.append(Path(home).absolute() / "run")
    return list(dict.fromkeys(found))


def _of_user(uid: int) -> list[Path]:
    found = [Path(f"/run/user/{uid}/envfs")]
    try:
        found.append(Path(pwd.getpwuid(uid).pw_dir) / ".local/share/envfs/run")
    except KeyError:
        pass
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/") and uid == os.geteuid():
        found.append(Path(runtime) / "envfs")
    return found


def prepare_directory(uid: int) -> Path:
    """The directory for the sockets of this process, made if need be.

    Only the owner may write it: 0755 for root, since other users ask a shared mount about their own files, else 0700.
    Raises ConfigError if there is none.
    """
    problems = []
    for path in candidates(uid):
        try:
            _make(path, 0o755 if uid == 0 else 0o700)
        except OSError as error:
            problems.append(f"{path}: {error.strerror}")
            continue
        status = path.lstat()
        if stat.S_ISDIR(status.st_mode) and status.st_uid == uid and not status.st_mode & 0o022:
            return path
        problems.append(f"{path}: not a directory that only its owner may write")
    raise ConfigError(
        "no directory for the control socket: " + "; ".join(problems),
        hint="set XDG_RUNTIME_DIR to a directory of yours that nobody else may write",
    )


def _make(path: Path, mode: int) -> None:
    """Make the directory, with its parents where they are our own business (below a home, not below /run)."""
    path.parent.mkdir(mode=0o700, parents=not path.is_relative_to("/run"), exist_ok=True)
    try:
        path.mkdir(mode=mode)
    except FileExistsError:
        return
    path.chmod(mode)  # the umask may have taken bits away
