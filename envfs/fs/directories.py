"""Directory files of the lower directory: read, checked against their place, written.

A directory's own state is read once, when something in it is first looked at; from then on its id does not change.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass, replace
from typing import Any

from envfs.errors import IntegrityError, Truncated
from envfs.format.directory import DirectoryFile
from envfs.format.names import DIRECTORY_FILE
from envfs.format.place import PLACE_SIZE, ROOT, Kind, Where
from envfs.format.volume import VolumeFile
from envfs.format.volume_keys import VolumeKeys
from envfs.fs import lower
from envfs.fs.nodes import Node, NodeTable

_LARGEST = 4096


@dataclass(slots=True)
class Directory:
    """What the daemon knows of a directory whose file was found authentic and at its place."""

    directory_id: bytes
    key_arn: str  # empty: the parent's
    labels: dict[str, str]
    listed: bool = False  # its names were read, and so may still be in the kernel's caches


class Directories:
    """Reads and writes directory files."""

    def __init__(self, nodes: NodeTable, keys: VolumeKeys, volume: VolumeFile, *, in_memory: bool) -> None:
        self._nodes = nodes
        self._keys = keys
        self._volume = volume
        self._in_memory = in_memory

    def load(self, node: Node) -> Directory:
        """The state of a directory node.

        Raises IntegrityError where the directory file is missing, damaged, or of another place: then nothing in the
        directory can be trusted.
        """
        if node.directory is not None:
            return node.directory
        where = self.where(node)
        try:
            raw = lower.read_small_file(self._nodes.directory_fd(node), DIRECTORY_FILE, _LARGEST)
        except FileNotFoundError:
            raise IntegrityError(f"directory {node.path()} has lost its directory file") from None
        parsed, place_raw = DirectoryFile.parse(self._keys.directory, raw)
        if node is self._nodes.root and parsed.directory_id != self._volume.root_id:
            raise IntegrityError("the root directory is not the one that the volume file names")
        if not self._keys.place.check(place_raw, Kind.DIRECTORY, parsed.directory_id, where):
            raise IntegrityError(f"directory {node.path()} does not belong where it stands: it was moved or swapped")
        node.directory = Directory(parsed.directory_id, parsed.key_arn, dict(parsed.labels))
        node.object_id = parsed.directory_id
        return node.directory

    def where(self, node: Node) -> Where:
        """Where a node stands, in the terms of its place."""
        if node.parent is None:
            return ROOT
        return Where(self.load(node.parent).directory_id, node.full_name)

    def make(self, dir_fd: int, where: Where) -> Directory:
        """Write the directory file of a new directory, which is not yet at `where`.

        It is on the disk before the directory gets its name: what is moved into it could not be reached without.
        """
        made = Directory(secrets.token_bytes(16), "", {})
        place = self._keys.place.pack(Kind.DIRECTORY, made.directory_id, where, None)
        content = DirectoryFile(made.directory_id, "", {}).serialise(self._keys.directory, place)
        lower.write_whole_file(dir_fd, DIRECTORY_FILE, content, through=not self._in_memory)
        return made

    def move(self, node: Node, new: Where) -> None:
        """Record that the directory is about to be renamed to `new`."""
        directory = self.load(node)
        place = self._keys.place.pack(Kind.DIRECTORY, directory.directory_id, new, self.where(node))
        fd = os.open(DIRECTORY_FILE, lower.OPEN_WRITE, dir_fd=self._nodes.directory_fd(node))
        try:
            lower.write_all(fd, place, 0)
            if not self._in_memory:
                lower.write_through(fd, PLACE_SIZE)
        finally:
            os.close(fd)

    def set_key(self, node: Node, key_arn: str) -> None:
        """New files below the directory get this CMK; empty for the parent's."""
        self._rewrite(node, key_arn=key_arn)
        self.load(node).key_arn = key_arn

    def set_labels(self, node: Node, labels: dict[str, str]) -> None:
        """New files below the directory get these labels beside those of its parents. FormatError for labels that
        cannot be.
        """
        self._rewrite(node, labels=labels)
        self.load(node).labels = labels

    def _rewrite(self, node: Node, **changed: Any) -> None:
        """A new directory file, synced, in place of the old one: a crash leaves either."""
        self.load(node)
        dir_fd = self._nodes.directory_fd(node)
        before = os.fstat(dir_fd)
        raw = lower.read_small_file(dir_fd, DIRECTORY_FILE, _LARGEST)
        if len(raw) < PLACE_SIZE:
            raise Truncated(f"the directory file of {node.path()} is cut off")
        parsed, place = DirectoryFile.parse(self._keys.directory, raw)
        content = replace(parsed, **changed).serialise(self._keys.directory, place)
        lower.replace_file(dir_fd, DIRECTORY_FILE, content)
        os.utime(dir_fd, ns=(before.st_atime_ns, before.st_mtime_ns))

    def effective_key(self, node: Node) -> str:
        """The CMK of new files in a directory: its own, else the nearest upwards, else the volume's."""
        at: Node | None = node
        while at is not None:
            own = self.load(at).key_arn
            if own:
                return own
            at = at.parent
        return self._volume.key_arn

    def effective_labels(self, node: Node) -> dict[str, str]:
        """The labels of new files in a directory; deeper ones take precedence."""
        chain: list[dict[str, str]] = []
        at: Node | None = node
        while at is not None:
            labels = self.load(at).labels
            if labels:
                chain.append(labels)
            at = at.parent
        merged: dict[str, str] = {}
        for labels in reversed(chain):
            merged.update(labels)
        return merged
