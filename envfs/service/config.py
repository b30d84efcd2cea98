"""Where the KMS lives, and what `-o` of `envfs mount` (and of mount(8) and fstab) may say."""

from __future__ import annotations

import os
import re
import signal
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from envfs.errors import ConfigError
from envfs.service.log import LEVELS

if TYPE_CHECKING:
    from collections.abc import Mapping

HOME_VARIABLE = "ENVFS_HOME"
SOCKET_VARIABLE = "ENVFS_KMS_SOCKET"
SYSTEM_HOME = Path("/var/lib/envfs")

# What mount(8) and fstab(5) mean for themselves.
_FOR_MOUNT = frozenset(
    ("rw", "defaults", "auto", "noauto", "user", "nouser", "users", "owner", "group", "nogroup", "nofail", "_netdev")
)
# What is the case anyway.
_NO_OPERATION = frozenset(
    ("async", "atime", "relatime", "strictatime", "diratime", "loud", "silent", "default_permissions")
)
_IGNORED = _FOR_MOUNT | _NO_OPERATION
_IGNORED_PREFIXES = ("x-", "X-", "comment=", "user=")
_KERNEL_FLAGS = {
    # Each later one replaces the other of its pair.
    "dev": "nodev",
    "nodev": "dev",
    "suid": "nosuid",
    "nosuid": "suid",
    "exec": "noexec",
    "noexec": "exec",
    "noatime": "",
    "sync": "",
    "dirsync": "",
}
_SWITCHES: dict[str, dict[str, bool]] = {
    "ro": {"read_only": True},
    "noxattr": {"noxattr": True},
    "acl": {"acl": True},
    "poll": {"poll": True},
    "nopoll": {"poll": False},
    "nowriteback": {"writeback": False},
    "isolate": {"isolate": True},
    "journal": {"journal": True},
    "nojournal": {"journal": False},
    "allow_other": {"allow_other": True},
    "noallow_other": {"allow_other": False},
}
_WITH_PATH = {"passphrase_file": "FILE", "home": "DIR"}
_WITH_VALUE = {**_WITH_PATH, "idle": "TIME", "lock-on": "SIGNAL", "log": "LEVEL"}


_LOCKING_SIGNALS = ("SIGUSR1", "SIGUSR2")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"([1-9][0-9]{0,8})([smhd]?)")


@dataclass(frozen=True, slots=True)
class MountOptions:
    """The parsed `-o` list. `poll` and `allow_other` are None where nothing was said (the mount decides)."""

    noxattr: bool = False
    read_only: bool = False
    acl: bool = False
    poll: bool | None = None
    writeback: bool = True
    journal: bool = True
    allow_other: bool | None = None
    passphrase_file: Path | None = None
    home: Path | None = None
    idle: int | None = None  # seconds
    isolate: bool = False
    lock_on: int | None = None  # a signal's number
    log_level: str = "info"  # one of LEVELS
    kernel_flags: frozenset[str] = frozenset()

    def others_allowed(self, uid: int) -> bool:
        """Whether other users may enter the mount: by default when root mounts, else only when asked for."""
        return uid == 0 if self.allow_other is None else self.allow_other


def home_directory(environment: Mapping[str, str] | None = None, uid: int | None = None) -> Path:
    """The KMS's directory: ENVFS_HOME, else /var/lib/envfs for root and ~/.local/share/envfs for everybody else."""
    environment = os.environ if environment is None else environment
    named = environment.get(HOME_VARIABLE, "")
    if named:
        return Path(named).expanduser().absolute()
    if (os.geteuid() if uid is None else uid) == 0:
        return SYSTEM_HOME
    home = environment.get("HOME", "")
    if not home.startswith("/"):
        raise ConfigError("neither ENVFS_HOME nor HOME names a directory", hint="set ENVFS_HOME to the KMS's directory")
    return Path(home) / ".local" / "share" / "envfs"


def known_options() -> list[str]:
    """All options that mean something to envfs, as a user writes them."""
    return sorted([*_SWITCHES, *(f"{name}={value}" for name, value in _WITH_VALUE.items()), *_KERNEL_FLAGS])


def parse_mount_options(texts: list[str] | tuple[str, ...], *, sloppy: bool = False) -> MountOptions:
    """Parse `-o` arguments, each a comma-separated list; of contradicting options the last one counts.

    `sloppy` is mount(8)'s -s: unknown options are passed over. Raises ConfigError for an unknown or malformed one.
    """
    options = MountOptions()
    for word in (word.strip() for text in texts for word in text.split(",")):
        if not word or word in _IGNORED or word.startswith(_IGNORED_PREFIXES):
            if word == "rw":
                options = replace(options, read_only=False)
            continue
        changed = _apply(options, word)
        if changed is None and not sloppy:
            raise ConfigError(f"unknown mount option {word!r}", hint="known options: " + ", ".join(known_options()))
        options = changed or options
    return options


def _seconds(word: str, text: str) -> int:
    """Of `90`, `90s`, `10m`, `2h` or `1d`. Raises ConfigError for anything else, zero included."""
    matched = _DURATION.fullmatch(text)
    if matched is None:
        raise ConfigError(f"mount option {word!r} names no time", hint="write -o idle=90s, 10m, 2h or 1d")
    return int(matched[1]) * _UNITS[matched[2]]


def _signal(word: str, text: str) -> int:
    """Of `USR1` or `SIGUSR1`: one that means nothing else to a daemon. ConfigError for any other."""
    name = "SIG" + text.upper().removeprefix("SIG")
    if name not in _LOCKING_SIGNALS:
        raise ConfigError(f"mount option {word!r} names no signal for it", hint="write -o lock-on=USR1 or USR2")
    return int(signal.Signals[name])


def _apply(options: MountOptions, word: str) -> MountOptions | None:
    """`options` with one more word; None if the word is unknown."""
    if word in _SWITCHES:
        return replace(options, **_SWITCHES[word])  # type: ignore[arg-type]
    if word in _KERNEL_FLAGS:
        flags = options.kernel_flags - {_KERNEL_FLAGS[word]} | {word}
        return replace(options, kernel_flags=flags)
    name, equals, value = word.partition("=")
    if name == "lock-on":
        return replace(options, lock_on=_signal(word, value))
    if name == "idle":
        return replace(options, idle=_seconds(word, value))
    if name == "log":
        if value not in LEVELS:
            raise ConfigError(f"mount option {word!r} names no level", hint="write -o log=" + ", ".join(LEVELS))
        return replace(options, log_level=value)
    if name not in _WITH_PATH:
        return None
    if not equals or not value.startswith("/"):
        raise ConfigError(
            f"mount option {name!r} needs an absolute path",
            hint=f"write -o {name}={_WITH_PATH[name]}, with {_WITH_PATH[name]} beginning with /",
        )
    return replace(options, **{name: Path(value)})  # type: ignore[arg-type]
