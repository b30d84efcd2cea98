"""Lays out a volume in a lower directory with the package's own format code and KMS, without a mount."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from envfs.crypto.aead import Suite
from envfs.crypto.secret import Secret
from envfs.format.block import BlockCodec
from envfs.format.context import encode_context
from envfs.format.directory import DirectoryFile
from envfs.format.geometry import Geometry
from envfs.format.header import Slot, content_key, dek_context, header_key, volume_context
from envfs.format.names import DIRECTORY_FILE, VOLUME_BACKUP, VOLUME_FILE, name_file_for
from envfs.format.place import ANYWHERE, ROOT, Kind, Where
from envfs.format.symlink import link_file_for, to_text
from envfs.format.volume import VolumeFile
from envfs.format.volume_keys import VolumeKeys
from envfs.kms.engine import Engine
from envfs.kms.model import Principal


@dataclass(frozen=True)
class Folder:
    """A directory: where it lies below, its id, and the labels of files in it."""

    lower: Path
    id: bytes
    labels: Mapping[str, str]


class Builder:
    """Makes objects of a volume. `owner` may use `key_arn`."""

    def __init__(
        self, lower: Path, engine: Engine, owner: Principal, key_arn: str, suite: Suite, block_log2: int
    ) -> None:
        self.engine, self.owner, self.key_arn = engine, owner, key_arn
        self.suite, self.geometry = suite, Geometry(1 << block_log2)
        self.volume_id, root_id = os.urandom(16), os.urandom(16)
        volume_key = Secret.random()
        self.keys = VolumeKeys(volume_key)
        blob = engine.wrap_service_owned(volume_key, volume_context(self.volume_id))
        volume = VolumeFile(suite, block_log2, self.volume_id, engine.store_id, root_id, 1_700_000_000, key_arn, blob)
        raw = volume.serialise(self.keys.volume_file)
        lower.mkdir()
        for name in (VOLUME_FILE, VOLUME_BACKUP):
            (lower / os.fsdecode(name)).write_bytes(raw)
        self.root = Folder(lower, root_id, {})
        self._write_directory_file(self.root, DirectoryFile(root_id), ROOT)

    def _write_directory_file(self, folder: Folder, file: DirectoryFile, where: Where) -> None:
        place = self.keys.place.pack(Kind.DIRECTORY, folder.id, where)
        (folder.lower / os.fsdecode(DIRECTORY_FILE)).write_bytes(file.serialise(self.keys.directory, place))

    def place(self, folder: Folder, name: bytes) -> tuple[Path, Where]:
        """Where an entry goes below; the name file of a long name is written."""
        cipher = self.keys.names.encrypt(folder.id, name)
        if cipher.is_long:
            (folder.lower / os.fsdecode(name_file_for(cipher.lower))).write_bytes(cipher.full)
        return folder.lower / os.fsdecode(cipher.lower), Where(folder.id, cipher.full)

    def mkdir(self, parent: Folder, name: bytes, labels: Mapping[str, str] | None = None, key_arn: str = "") -> Folder:
        path, where = self.place(parent, name)
        path.mkdir()
        folder = Folder(path, os.urandom(16), {**parent.labels, **(labels or {})})
        self._write_directory_file(folder, DirectoryFile(folder.id, key_arn, labels or {}), where)
        return folder

    def file(
        self,
        parent: Folder,
        name: bytes,
        plain: bytes,
        *,
        holes: tuple[int, int] = (0, 0),
        rewritten: bool = False,
        anywhere: bool = False,
        xattrs: Mapping[bytes, bytes] | None = None,
    ) -> Path:
        """A file; blocks of `holes` are not written. `rewritten`: its header was written a second time."""
        path, where = self.place(parent, name)
        file_id = os.urandom(16)
        context = dek_context(self.volume_id, file_id, parent.labels)
        data_key = self.engine.generate_data_key(self.owner, self.key_arn, context)
        dek = self.keys.file_key(data_key.plaintext, is_bound=True)
        count = self.geometry.block_count(len(plain))
        slot = Slot(
            self.suite,
            self.geometry.block_log2,
            1,
            file_id,
            len(plain),
            count,
            *holes,
            data_key.blob,
            encode_context(parent.labels),
        )
        key = header_key(dek, file_id)
        slots = slot.seal(key) + bytes(448)
        if rewritten:  # what is not in force any more does not count
            slots = replace(slot, length_bound=2**60).seal(key) + replace(slot, sequence=2).seal(key)
        place = self.keys.place.pack(Kind.FILE, file_id, ANYWHERE if anywhere else where, where if anywhere else None)
        codec = BlockCodec(self.suite, content_key(dek, file_id, self.suite), file_id, self.geometry)
        cipher = codec.seal(0, plain)
        for index in range(*holes):
            start = index * self.geometry.cipher_block
            end = min(start + self.geometry.cipher_block, len(cipher))
            cipher[start:end] = bytes(end - start)
        path.write_bytes(place + slots + cipher)
        for xattr, value in (xattrs or {}).items():
            self.xattr(path, file_id, xattr, value)
        return path

    def xattr(self, path: Path, object_id: bytes, name: bytes, value: bytes) -> None:
        os.setxattr(path, self.keys.xattrs.name(object_id, name), self.keys.xattrs.seal(object_id, name, value))

    def symlink(self, parent: Folder, name: bytes, target: bytes) -> None:
        path, where = self.place(parent, name)
        link_id = os.urandom(16)
        payload = self.keys.symlinks.seal(link_id, target, where)
        text = to_text(payload)
        if text is None:
            text = link_file_for(link_id)
            (parent.lower / os.fsdecode(text)).write_bytes(payload)
        path.symlink_to(os.fsdecode(text))
