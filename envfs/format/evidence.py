"""What shows, without the lower directory at hand, which file of which volume a header area is of.

Somebody read it in a lower directory and may have forged any of it, so all of it is checked: from the volume file down
to the file, each directory file and each place. What is authentic may still be old: a place that the file had before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from envfs.errors import FormatError, IntegrityError
from envfs.format.directory import DirectoryFile
from envfs.format.header import HeaderArea, parse_header_area
from envfs.format.place import ROOT, Kind, Where
from envfs.format.volume import VolumeFile
from envfs.format.volume_keys import VolumeKeys

#: So deep may a file lie whose evidence is checked.
MAX_DEPTH: Final = 1024


class Step(NamedTuple):
    """A directory on the way: its cipher name in full length (empty for the root), and its directory file."""

    cipher_name: bytes
    directory_file: bytes


@dataclass(frozen=True, slots=True)
class Evidence:
    """`steps` from the root down; `cipher_name`, in full length, and `header` (up to 1,024 bytes) are the file's."""

    volume_file: bytes
    steps: tuple[Step, ...]
    cipher_name: bytes
    header: bytes


class Proven(NamedTuple):
    """The path in the volume, and the header area, whose slots are still to be verified under the DEK's keys."""

    path: bytes
    area: HeaderArea


def prove(evidence: Evidence, volume: VolumeFile, keys: VolumeKeys) -> Proven:
    """That the file is, or was, at home where it is said to be. `volume` is authentic, and `keys` are its keys.

    IntegrityError, FormatError (Truncated, UnsupportedVersion). Messages hold no name in plain.
    """
    where, names = ROOT, []
    if not 0 < len(evidence.steps) <= MAX_DEPTH:
        raise FormatError(f"evidence: a file lies below 1 to {MAX_DEPTH} directories")
    for number, step in enumerate(evidence.steps):
        if number:
            names.append(keys.names.decrypt(where.parent_id, step.cipher_name))
            where = Where(where.parent_id, step.cipher_name)
        found, place = DirectoryFile.parse(keys.directory, step.directory_file)
        is_root = number == 0
        if is_root is not (found.directory_id == volume.root_id):
            raise IntegrityError("the directories do not begin with the root of the volume")
        if not keys.place.check(place, Kind.DIRECTORY, found.directory_id, where):
            raise IntegrityError("a directory above it does not belong where it stands: it was moved or copied")
        where = Where(found.directory_id, b"")
    names.append(keys.names.decrypt(where.parent_id, evidence.cipher_name))
    area = parse_header_area(evidence.header)
    file_id = area.file_id
    if file_id is not None and not keys.place.check(
        area.place_raw, Kind.FILE, file_id, Where(where.parent_id, evidence.cipher_name)
    ):
        raise IntegrityError("it does not belong where it stands: it was moved, swapped or copied")
    return Proven(b"/" + b"/".join(names), area)
