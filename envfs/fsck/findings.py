"""What a check finds, and what became of it."""

from __future__ import annotations

import enum
import os
from collections import Counter
from dataclasses import dataclass, field

from envfs.errors import EnvfsError


class Problem(enum.StrEnum):
    """Kinds of findings. The texts are stable: scripts read them."""

    VOLUME_FILE = "volume-file"
    DIRECTORY_FILE = "directory-file"
    DIRECTORY_PLACE = "directory-place"
    DUPLICATE = "duplicate"
    NAME = "name"
    NAME_FILE = "name-file"
    LEAVING = "leaving"
    HEADER = "header"
    SLOT = "header-slot"
    PLACE = "place"
    CUT = "cut"
    BLOCK = "block"
    SYMLINK = "symlink"
    XATTR = "xattr"
    KEY = "key"
    UNREADABLE = "unreadable"


class Outcome(enum.StrEnum):
    """What was done about a finding."""

    FOUND = "found"
    HARMLESS = "harmless"
    REPAIRED = "repaired"
    PUT_ASIDE = "put-aside"
    NOT_CHECKED = "not-checked"


@dataclass(slots=True)
class Finding:
    """One problem at one object. `path` is its path in a mount as far as names could be read, `lower` the path in the
    lower directory, both relative to the root.
    """

    problem: Problem
    path: str
    lower: str
    detail: str
    outcome: Outcome = Outcome.FOUND

    @property
    def is_open(self) -> bool:
        """Whether something is still wrong; leavings of a kill mean nothing, and are not."""
        return self.outcome is Outcome.FOUND


@dataclass(slots=True)
class Report:
    """The outcome of a check: how much was looked at (bytes of content: with --read-data only), and what was found."""

    directories: int = 0
    files: int = 0
    symlinks: int = 0
    others: int = 0
    bytes_read: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether nothing is wrong any more. What could not be checked for want of permission does not count."""
        return not any(finding.is_open for finding in self.findings)

    def count(self) -> dict[str, int]:
        """Findings by their outcome."""
        return dict(Counter(finding.outcome.value for finding in self.findings))


@dataclass(frozen=True, slots=True)
class Spot:
    """An entry of the lower directory: the lower path of its directory and its lower name (both bytes, relative to the
    root, empty for the root itself), and its path in a mount.
    """

    directory: bytes
    name: bytes
    plain: bytes

    @property
    def lower(self) -> bytes:
        return self.directory + b"/" + self.name if self.directory else self.name

    def finding(self, problem: Problem, detail: str, outcome: Outcome = Outcome.FOUND) -> Finding:
        return Finding(problem, "/" + os.fsdecode(self.plain), os.fsdecode(self.lower), detail, outcome)

    def child(self, name: bytes, plain: bytes | None = None) -> Spot:
        """An entry below this directory; what has no readable name shows by its lower one."""
        shown = name if plain is None else plain
        return Spot(self.lower, name, self.plain + b"/" + shown if self.plain else shown)


def describe(error: BaseException) -> str:
    """An error as the detail of a finding."""
    if isinstance(error, EnvfsError):
        return error.message or type(error).__name__
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
