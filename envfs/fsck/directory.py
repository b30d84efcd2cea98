"""One directory: its directory file, the names in it, and what belongs to nothing."""

from __future__ import annotations

import os
import stat as stat_module
from collections.abc import Iterator
from dataclasses import dataclass

from envfs.errors import EnvfsError, FormatError, IntegrityError
from envfs.format.directory import DirectoryFile
from envfs.format.names import (
    DIRECTORY_FILE,
    LINK_FILE_PREFIX,
    LONG_PREFIX,
    NAME_FILE_PREFIX,
    RESERVED_PREFIX,
    TEMPORARY_PREFIX,
    VOLUME_BACKUP,
    VOLUME_FILE,
    check_name_file,
    name_file_for,
)
from envfs.format.place import PLACE_SIZE, ROOT, Kind, Where, parse_place
from envfs.format.symlink import is_link_file
from envfs.format.volume_keys import VolumeKeys
from envfs.fs import lower, recovery
from envfs.fs.journal import JOURNAL_FILE
from envfs.fs.raised_mode import RECORD
from envfs.fs.undo import UNDO_FILE, is_retired
from envfs.fsck.findings import Finding, Outcome, Problem, Spot, describe

#: Where a repair puts what it cannot mend, in the root of the lower directory; a mount does not show it.
ASIDE = RESERVED_PREFIX + b"lost+found"

_LARGEST = 4096
_OF_THE_ROOT = frozenset((VOLUME_FILE, VOLUME_BACKUP, ASIDE))
_WHILE_MOUNTED = frozenset((UNDO_FILE, JOURNAL_FILE, RECORD))
# In the root of a filesystem of its own stands a directory that fsck(8) of the lower one made.
_OF_THE_LOWER_FILESYSTEM = b"lost+found"


@dataclass(frozen=True, slots=True)
class Entry:
    """What stands in a directory under a name that is authentic."""

    spot: Spot
    where: Where


@dataclass(frozen=True, slots=True)
class Identity:
    """The id of a directory; `guess`, the finding that it has no directory file, where its content alone tells it."""

    directory_id: bytes
    guess: Finding | None = None


class DirectoryCheck:
    """Checks directories of one volume. `live`: it is mounted for writing meanwhile."""

    def __init__(self, keys: VolumeKeys, root_id: bytes, *, live: bool) -> None:
        self._keys = keys
        self._root_id = root_id
        self._live = live

    def identify(self, fd: int, spot: Spot, where: Where, found: list[Finding]) -> Identity | None:
        """The directory's id; None if nothing says it."""
        is_root = where == ROOT
        try:
            raw = lower.read_small_file(fd, DIRECTORY_FILE, _LARGEST)
            parsed, place = DirectoryFile.parse(self._keys.directory, raw)
        except (EnvfsError, OSError) as error:
            lost = isinstance(error, FileNotFoundError)
            detail = "its directory file is missing" if lost else f"its directory file is damaged: {describe(error)}"
            finding = spot.finding(Problem.DIRECTORY_FILE, detail)
            found.append(finding)
            guessed = self._root_id if is_root else self._id_by_children(fd)
            if guessed is None:
                return None
            finding.detail += "; its id is known from what stands in it, its own key and labels are not"
            return Identity(guessed, finding)
        directory_id = parsed.directory_id
        if is_root and directory_id != self._root_id:
            found.append(spot.finding(Problem.DIRECTORY_FILE, "it is not the root that the volume file names"))
            return Identity(directory_id)
        try:
            is_here = self._keys.place.check(place, Kind.DIRECTORY, directory_id, where)
        except FormatError as error:
            finding = spot.finding(Problem.DIRECTORY_PLACE, f"its place is damaged: {error.message}")
        else:
            if is_here:
                return Identity(directory_id)
            finding = spot.finding(Problem.DIRECTORY_PLACE, "it does not belong where it stands: it was moved")
        found.append(finding)
        return Identity(directory_id)

    def rebuild(self, fd: int, where: Where, identity: Identity) -> None:
        """Write the directory file of a directory that has lost it. Only where no other directory has that id: what
        belongs into one would belong into both.
        """
        place = self._keys.place.pack(Kind.DIRECTORY, identity.directory_id, where)
        # Whoever took the directory file away may have moved the directory to where others may look: until somebody
        # has looked at it, nobody may.
        os.fchown(fd, os.geteuid(), os.getegid())
        os.fchmod(fd, 0o700)
        content = DirectoryFile(identity.directory_id).serialise(self._keys.directory, place)
        lower.replace_file(fd, DIRECTORY_FILE, content)
        os.fsync(fd)

    def _id_by_children(self, fd: int) -> bytes | None:
        """As what stands in it says: a name that decrypts under an id says that it was that directory's."""
        for name in _names(fd):
            try:
                full = _full_name(fd, name)
                for candidate in self._parents(fd, name):
                    if self._is_name_of(candidate, full):
                        return candidate
            except (EnvfsError, OSError):
                continue
        return None

    def _is_name_of(self, directory_id: bytes, full: bytes) -> bool:
        try:
            self._keys.names.decrypt(directory_id, full)
        except EnvfsError:
            return False
        return True

    @staticmethod
    def _parents(fd: int, name: bytes) -> tuple[bytes, ...]:
        """The directories that the place of a file or directory names, not authenticated."""
        if stat_module.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
            inner = os.open(name, lower.OPEN_DIRECTORY, dir_fd=fd)
            try:
                raw = lower.read_small_file(inner, DIRECTORY_FILE, _LARGEST)[:PLACE_SIZE]
            finally:
                os.close(inner)
        else:
            file = os.open(name, lower.OPEN_READ, dir_fd=fd)
            try:
                raw = os.pread(file, PLACE_SIZE, 0)
            finally:
                os.close(file)
        place = parse_place(raw)
        return place.current_parent, place.previous_parent

    def entries(self, fd: int, spot: Spot, directory_id: bytes, found: list[Finding]) -> Iterator[Entry]:
        """What stands in the directory under authentic names; what does not, and what belongs to nothing, is found."""
        names = _names(fd)
        present = set(names)
        link_files = {name for name in names if name.startswith(LINK_FILE_PREFIX)}
        for name in names:
            if name.startswith(RESERVED_PREFIX) and not name.startswith(LONG_PREFIX):
                self._check_own_file(fd, name, spot, present, found)
                continue
            try:
                full = _full_name(fd, name)
                plain = self._keys.names.decrypt(directory_id, full)
            except (EnvfsError, OSError) as error:
                if not (spot.lower == b"" and name == _OF_THE_LOWER_FILESYSTEM):
                    problem = Problem.NAME_FILE if name.startswith(LONG_PREFIX) else Problem.NAME
                    found.append(spot.child(name).finding(problem, describe(error)))
                continue
            link_files.discard(_link_text(fd, name))
            yield Entry(spot.child(name, plain), Where(directory_id, full))
        if not self._live:
            lost = "the target of a symlink that is not there"
            found += [spot.child(name).finding(Problem.LEAVING, lost, Outcome.HARMLESS) for name in sorted(link_files)]

    def _check_own_file(self, fd: int, name: bytes, spot: Spot, present: set[bytes], found: list[Finding]) -> None:
        if name == DIRECTORY_FILE or name.startswith(LINK_FILE_PREFIX):
            return
        is_root = spot.lower == b""
        if is_root and (name in _OF_THE_ROOT or (self._live and name in _WHILE_MOUNTED)):
            return
        detail, outcome = "", Outcome.HARMLESS
        if name.startswith(NAME_FILE_PREFIX):
            if LONG_PREFIX + name.removeprefix(NAME_FILE_PREFIX) not in present:
                detail = "the name of something that is not there"
        elif name.startswith(TEMPORARY_PREFIX):
            detail = "something that was being made when a process was killed"
        elif is_root and name in _WHILE_MOUNTED:
            if (name == UNDO_FILE and is_retired(fd)) or (name == JOURNAL_FILE and recovery.is_retired(fd)):
                return
            detail = "a mount has not ended in order; the next one looks at it"
        else:
            detail, outcome = "the name is reserved, and envfs writes no such file", Outcome.FOUND
        if detail and not self._live:  # a running mount makes and removes such files all the time
            found.append(spot.child(name).finding(Problem.LEAVING, detail, outcome))


def _names(fd: int) -> list[bytes]:
    return sorted(os.listdir(lower.proc_path(fd).encode()))


def _full_name(fd: int, name: bytes) -> bytes:
    """The cipher name in its full length."""
    if not name.startswith(LONG_PREFIX):
        return name
    try:
        return check_name_file(name, lower.read_small_file(fd, name_file_for(name), _LARGEST))
    except FileNotFoundError:
        raise IntegrityError("its name file is missing") from None


def _link_text(fd: int, name: bytes) -> bytes:
    """The link file that a lower symlink names; empty if it names none."""
    try:
        text = os.fsencode(os.readlink(name, dir_fd=fd))
    except OSError:
        return b""
    return text if is_link_file(text) else b""
