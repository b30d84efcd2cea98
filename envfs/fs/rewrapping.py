"""Rewrapping one file: its DEK goes under another key, or the newest material of its key; no block is touched.

Between two files requests are served; within one nothing else happens. See docs/ARCHITECTURE.md, "New keys for old
files".
"""

from __future__ import annotations

import contextlib
import enum
import errno
import os
import stat as stat_module
import time
from typing import TYPE_CHECKING

from envfs.errors import AccessDenied, ConfigError, FormatError, IntegrityError, InvalidCiphertext, NotFound
from envfs.format.blob import blob_ids
from envfs.format.context import decode_labels, encode_context
from envfs.format.geometry import HEADER_SIZE
from envfs.format.header import (
    HeaderArea,
    ParsedSlot,
    Slot,
    dek_context,
    header_key,
    parse_header_area,
    verify_slot,
)
from envfs.format.place import PLACE_SIZE, Kind, Where
from envfs.fs import lower
from envfs.fs.opening import SERVICE
from envfs.fs.raised_mode import open_writable
from envfs.kms.model import RequestFacts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from envfs.crypto.secret import Secret
    from envfs.fs.content import Content
    from envfs.fs.nodes import Node
    from envfs.fs.state import VolumeState
    from envfs.fs.walking import Asker, Entry
    from envfs.kms.model import Principal


_REMEMBERED = 0.1  # seconds


class Outcome(enum.Enum):
    """What became of a file."""

    DONE = "done"
    CURRENT = "current"  # there was nothing to do
    EMPTY = "empty"  # it has no header yet, and so no key
    GONE = "gone"  # it was removed or renamed meanwhile, or is no regular file


class Target:
    """What a file is to be under: the ARN of its key, and its labels as they stand in the slot."""

    __slots__ = ("key_arn", "labels")

    def __init__(self, key_arn: str, labels: bytes) -> None:
        self.key_arn = key_arn
        self.labels = labels


class Rewrapping:
    """Rewraps files in the name of `principal`. `to_key`: the ARN of the key for all of them, or None."""

    def __init__(self, state: VolumeState, asker: Asker, principal: Principal, to_key: str | None) -> None:
        self._state = state
        self._asker = asker
        self._principal = principal
        self._to_key = to_key
        self._root_fd = state.nodes.root.directory_fd
        self._last: tuple[Node | None, Target, float] = (None, Target("", b""), 0.0)
        self._material: dict[str, tuple[tuple[bytes, bytes], float]] = {}

    def one(self, entry: Entry) -> Outcome:
        """Rewrap one file. KmsError where the KMS refuses, PermissionError where the Unix modes do, IntegrityError for
        a damaged header or a wrong place, ConfigError where the labels do not fit, OSError of the lower directory.
        """
        try:
            fd = open_entry(self._state, self._root_fd, entry, self._asker)
        except FileNotFoundError:
            return Outcome.GONE
        try:
            found = os.fstat(fd)
            if not stat_module.S_ISREG(found.st_mode):
                return Outcome.GONE
            node = self._state.nodes.find(found)
            content = None
            if node is not None:
                content = node.content or self._state.promises.waiting(node)
            if content is not None and content.keyed:
                return self._known(entry, fd, content)
            return self._on_disk(entry, fd, found, node)
        finally:
            os.close(fd)

    # A file whose header key is in memory

    def _known(self, entry: Entry, fd: int, content: Content) -> Outcome:
        slot = content.slot
        if content.position < 0:
            if self._is_current(slot, target := self._target(entry, content.place, slot)):
                return Outcome.CURRENT
            dek, blob = self._ask(entry, slot, target)
            dek.wipe()
            content.slot = _changed(slot, blob, target)  # the header that will be written first
            self._state.key_changed(content.node)
            return Outcome.DONE
        area = parse_header_area(os.pread(fd, HEADER_SIZE, 0))
        target = self._target(entry, area.place_raw, slot)
        if self._is_current(slot, target) and self._are_current(area, target):
            return Outcome.CURRENT
        dek, blob = self._ask(entry, slot, target)
        if content.is_locked:
            self._state.opener.take_back(content, dek)
        dek.wipe()
        _changed(slot, blob, target)  # whether it fits
        with _kept_mode(fd):
            content.renew_slots(fd, blob=blob, labels=target.labels)
        self._state.key_changed(content.node)
        self._remember(content.node, content.slot)
        return Outcome.DONE

    # A file that is known to nobody

    def _on_disk(self, entry: Entry, fd: int, found: os.stat_result, node: Node | None) -> Outcome:
        area = parse_header_area(os.pread(fd, HEADER_SIZE, 0))
        if area.is_absent:
            if found.st_size > HEADER_SIZE:
                raise IntegrityError("it has blocks but no header")
            return Outcome.EMPTY
        newest = area.slots[0].slot
        if node is not None and node.object_id not in {None, newest.file_id}:
            raise IntegrityError("another file stands in its place")
        self._state.opener.check_newest(newest.file_id, newest.sequence)
        target = self._target(entry, area.place_raw, newest)
        if self._are_current(area, target):
            return Outcome.CURRENT
        parsed, key, blob = self._authentic(entry, area, target)
        last = max(one.slot.sequence for one in area.slots)
        other = _changed(parsed.slot, blob, target, sequence=last + 1)
        fresh = _changed(parsed.slot, blob, target, sequence=last + 2)
        pair = [fresh.seal(key), other.seal(key)]
        with _kept_mode(fd, found):
            # Both at once, see `Content.renew_slots`.
            lower.write_all(fd, b"".join(pair if parsed.position == 0 else reversed(pair)), PLACE_SIZE)
            os.utime(fd, ns=(found.st_atime_ns, found.st_mtime_ns))
        self._remember(node, fresh)
        return Outcome.DONE

    def _authentic(self, entry: Entry, area: HeaderArea, target: Target) -> tuple[ParsedSlot, bytes, bytes]:
        """The newest authentic slot, its header key, and the new blob of its DEK."""
        denied: AccessDenied | None = None
        for parsed in area.slots:
            try:
                dek, blob = self._ask(entry, parsed.slot, target)
            except AccessDenied as error:
                if all(other.slot.blob == parsed.slot.blob for other in area.slots):
                    raise
                denied = denied or error  # a damaged blob may name a key that does not exist
                continue
            except InvalidCiphertext:
                continue
            with self._state.keys.file_key(dek, is_bound=self._state.volume.is_bound) as file_key:
                key = header_key(file_key, parsed.slot.file_id)
            if verify_slot(parsed.raw, key):
                return parsed, key, blob
        if denied is not None:
            raise denied
        raise IntegrityError("no header slot is authentic")

    # What is to be done

    def _target(self, entry: Entry, place: bytes, slot: Slot) -> Target:
        """A file that is at home anywhere keeps its labels, and its key unless another is named."""
        state = self._state
        where = Where(state.directories.load(entry.parent).directory_id, entry.full_name)
        if not state.keys.place.check(place, Kind.FILE, slot.file_id, where):
            raise IntegrityError("it does not belong where it stands: it was moved, swapped or copied")
        if state.keys.place.is_anywhere(place, Kind.FILE, slot.file_id):
            return Target(self._to_key or state.engine.key_arn_of_blob(slot.blob), slot.labels)
        return self._target_in(entry.parent)

    def _target_in(self, parent: Node) -> Target:
        """What new files in a directory get; remembered for a moment, since there are many files in one."""
        node, target, until = self._last
        now = time.monotonic()
        if node is not parent or now > until:
            directories = self._state.directories
            labels = encode_context(directories.effective_labels(parent))
            target = Target(self._to_key or directories.effective_key(parent), labels)
            self._last = parent, target, now + _REMEMBERED
        return target

    def _are_current(self, area: HeaderArea, target: Target) -> bool:
        return all(self._is_current(parsed.slot, target) for parsed in area.slots)

    def _is_current(self, slot: Slot, target: Target) -> bool:
        """Whether nothing is left of another key, older material or other labels."""
        if slot.labels != target.labels:
            return False
        try:
            return blob_ids(slot.blob) == self._current(target.key_arn)
        except NotFound:
            return False

    def _current(self, key_arn: str) -> tuple[bytes, bytes]:
        """Which material encrypts now under a key. Asked for again after a moment: it may be rotated meanwhile."""
        known = self._material.get(key_arn)
        now = time.monotonic()
        if known is None or now > known[1]:
            known = self._state.engine.current_material(key_arn), now + _REMEMBERED
            self._material[key_arn] = known
        return known[0]

    def _ask(self, entry: Entry, slot: Slot, target: Target) -> tuple[Secret, bytes]:
        volume_id = self._state.volume.volume_id
        source = destination = dek_context(volume_id, slot.file_id, decode_labels(slot.labels))
        if target.labels != slot.labels:
            destination = dek_context(volume_id, slot.file_id, decode_labels(target.labels))
        return self._state.engine.re_encrypt_data_key(
            self._principal,
            slot.blob,
            target.key_arn,
            source_context=source,
            destination_context=destination,
            facts=RequestFacts(via_service=SERVICE, path=entry.path, access="write"),
        )

    def _remember(self, node: Node | None, slot: Slot) -> None:
        self._state.opener.renewed(slot.file_id, slot.sequence)
        if node is not None and node.object_id == slot.file_id:
            node.sequence = slot.sequence


def open_entry(state: VolumeState, root_fd: int, entry: Entry, asker: Asker) -> int:
    """A descriptor that reads and writes the lower file of a name, if the asker may have it changed."""
    dir_fd = state.nodes.directory_fd(entry.parent)
    if not asker.is_master and not asker.owns(os.stat(entry.lower_name, dir_fd=dir_fd, follow_symlinks=False)):
        raise PermissionError(errno.EPERM, "it belongs to somebody else")
    try:
        fd = open_writable(root_fd, entry.parent.lower_path(), dir_fd, entry.lower_name)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENODEV}:
            raise FileNotFoundError(errno.ENOENT, "it is no regular file") from None
        raise
    if not asker.is_master and not asker.owns(os.fstat(fd)):
        os.close(fd)
        raise PermissionError(errno.EPERM, "it belongs to somebody else")
    return fd


def _changed(slot: Slot, blob: bytes, target: Target, *, sequence: int = 0) -> Slot:
    try:
        return Slot(  # dataclasses.replace takes several times as long
            slot.suite,
            slot.block_log2,
            sequence or slot.sequence,
            slot.file_id,
            slot.length_bound,
            slot.sealed_blocks,
            slot.hole_start,
            slot.hole_end,
            blob,
            target.labels,
            slot.previous,
        )
    except FormatError as error:
        raise ConfigError(
            f"the directory's labels do not fit into its header: {error.message}",
            hint="fewer or shorter labels: envfs dir label",
        ) from None


@contextlib.contextmanager
def _kept_mode(fd: int, found: os.stat_result | None = None) -> Iterator[None]:
    """Set-user-ID and set-group-ID, which a write by anybody but root takes away."""
    mode = (found or os.fstat(fd)).st_mode
    yield
    if mode & 0o6000:
        os.fchmod(fd, stat_module.S_IMODE(mode))
