"""Listing directories. FUSE's readdir here is always readdirplus, so each entry comes with its attributes."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

from envfs.errors import IntegrityError
from envfs.fs.names_on_disk import plain_entries
from envfs.fs.nodes import Node
from envfs.fs.patience import AHEAD
from envfs.fs.state import VolumeState

log = logging.getLogger("envfs.fs")

Listed = tuple[int, bytes, Node, os.stat_result]


class Listing:
    """An open directory: its names as they were when reading began, numbered from 1."""

    __slots__ = ("_entries", "_node", "_state")

    def __init__(self, state: VolumeState, node: Node) -> None:
        self._state = state
        self._node = node
        self._entries: list[tuple[bytes, bytes, bytes]] | None = None

    @property
    def node(self) -> Node:
        return self._node

    def read(self, start: int) -> Iterator[Listed]:
        """(next id, plain name, node, stat) of the entries after id `start`; 0 reads the directory anew.

        What has gone since is left out. A node is adopted for every entry, so the caller stops asking when its reply
        is full.
        """
        nodes, node = self._state.nodes, self._node
        directory = self._state.directories.load(node)
        dir_fd = nodes.directory_fd(node)
        if start == 0 or self._entries is None:
            if not directory.listed:
                nodes.patience.expect_listing(dir_fd)
                directory.listed = True
            self._entries = plain_entries(dir_fd, directory.directory_id, self._state.keys.names, node.path())
        entries = self._entries
        ahead = [lower_name for _, lower_name, _ in entries[start : start + AHEAD]] if nodes.patience.lacks else []
        nodes.patience.expect_entries(dir_fd, ahead)
        adopt = nodes.adopt
        for index in range(start, len(entries)):
            name, lower_name, full_name = entries[index]
            try:
                found = os.stat(lower_name, dir_fd=dir_fd, follow_symlinks=False)
                entry = adopt(node, name, lower_name, full_name, found)
            except FileNotFoundError:
                continue
            except IntegrityError as error:
                log.error("left out of %s: damage or tampering: %s", node.path(), error)  # noqa: TRY400
                self._state.alarms.tell("readdir", str(error))
                continue
            yield index + 1, name, entry, found
