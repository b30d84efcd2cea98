"""Decrypts a whole volume with nothing but docs/FORMAT.md, the standard library and `cryptography`.

    python -m tests.reference.read_volume --home ENVFS_HOME LOWER OUTDIR

Nothing may be mounted from LOWER meanwhile. What is damaged is named on standard error, the rest is read, and the exit
status is 1. Hard links come out as files of their own; FIFOs, sockets and devices do not come out.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import stat
import sys
from pathlib import Path
from typing import BinaryIO

from tests.reference import structures
from tests.reference.kms import Kms
from tests.reference.structures import Failure, FormatError, IntegrityError, Where, need


class Volume:
    """A volume and its key. `problems` collects what could not be read, as (lower path, failure)."""

    def __init__(self, kms: Kms, lower: Path) -> None:
        self.kms = kms
        self.lower = os.fsencode(lower)
        self.problems: list[tuple[bytes, Failure]] = []
        self._open()

    def _open(self) -> None:
        """Section 8: the first of the two copies that is authentic."""
        failures: list[Failure] = []
        for name in (b"envfs.volume", b"envfs.volume.backup"):
            try:
                raw = self._read(os.path.join(self.lower, name))
                volume = structures.parse_volume_file(raw)
                need(volume["kms_id"] == self.kms.store_id, IntegrityError("a volume of another KMS"))
                self.id = volume["volume_id"].hex()
                self.key = self.kms.decrypt(volume["blob"], {"envfs:volume": self.id})
                structures.check_volume_file(self.key, raw)
            except Failure as failure:
                failures.append(failure)
                continue
            self.root_id, self.block_size = volume["root_id"], volume["block_size"]
            self.is_bound = volume["is_bound"]
            self.place_key = structures.derive(self.key, "place")
            return
        raise failures[0]

    @staticmethod
    def _read(path: bytes) -> bytes:
        try:
            with open(path, "rb") as file:
                return file.read()
        except FileNotFoundError:
            raise structures.Truncated(os.fsdecode(path)) from None

    def extract(self, out: Path) -> None:
        self._directory(self.lower, os.fsencode(out), structures.ROOT)

    def _directory(self, lower: bytes, out: bytes, where: Where) -> None:
        """Section 5; `where` is the place at which the directory was found."""
        raw = self._read(os.path.join(lower, b"envfs.dir"))
        directory = structures.parse_directory_file(self.key, raw)
        directory_id = directory["directory_id"]
        structures.check_place(self.place_key, directory["place"], b"D", directory_id, where)
        if where == structures.ROOT:
            need(directory_id == self.root_id, IntegrityError("not the root directory of this volume"))
        os.makedirs(out, exist_ok=True)
        for entry in sorted(os.listdir(lower)):
            try:
                self._entry(lower, out, directory_id, entry)
            except Failure as failure:
                self.problems.append((os.path.join(lower, entry), failure))
        self._attributes(lower, out, directory_id)

    def _entry(self, lower: bytes, out: bytes, directory_id: bytes, entry: bytes) -> None:
        """Section 6. A name that is neither reserved nor decrypts is not part of the volume."""
        if entry.startswith(b"envfs.long."):
            name_file = os.path.join(lower, b"envfs.name." + entry.removeprefix(b"envfs.long."))
            cipher_name = structures.check_name_file(entry, self._read(name_file))
        elif entry.startswith(b"envfs."):
            return
        else:
            cipher_name = entry
        try:
            name = structures.open_name(self.key, directory_id, cipher_name)
        except Failure as failure:
            print(f"{os.fsdecode(os.path.join(lower, entry))}: not part of the volume: {failure}", file=sys.stderr)
            return
        source, target = os.path.join(lower, entry), os.path.join(out, name)
        where = Where(directory_id, cipher_name)
        mode = os.lstat(source).st_mode
        if stat.S_ISDIR(mode):
            self._directory(source, target, where)
        elif stat.S_ISREG(mode):
            self._file(source, target, where)
        elif stat.S_ISLNK(mode):
            os.symlink(self._link(lower, os.readlink(source), where), target)

    def _link(self, lower: bytes, string: bytes, where: Where) -> bytes:
        """Section 7."""
        if string.startswith(b"envfs.link."):
            payload = structures.parse_link_file(string, self._read(os.path.join(lower, string)))
        else:
            payload = structures.parse_link_text(string)
        return structures.open_symlink(self.key, payload, where)

    def _slot(self, header: bytes, cipher_size: int) -> tuple[structures.Slot, bytes] | None:
        """Section 2.1: the slot in force and the file key; None for a file without header."""
        slots = structures.parse_header_area(header)
        for slot in slots:
            context = structures.parse_labels(slot.labels)
            context |= {"envfs:volume": self.id, "envfs:file": slot.file_id.hex()}
            try:
                dek = self.kms.decrypt(slot.blob, context)
            except IntegrityError:
                continue
            file_key = structures.file_key(self.key, dek, is_bound=self.is_bound)
            if slot.is_authentic(file_key):
                need(slot.block_size == self.block_size, FormatError("block size is not the volume's"))
                return slot, file_key
        need(not slots and cipher_size <= 1024, IntegrityError("no authentic header"))
        return None

    def _file(self, source: bytes, target: bytes, where: Where) -> None:
        """Section 2."""
        object_id = None
        with open(source, "rb") as lower, open(target, "wb") as out:
            cipher_size = os.fstat(lower.fileno()).st_size
            header = lower.read(1024)
            found = self._slot(header, cipher_size)
            if found is not None:
                slot, file_key = found
                object_id = slot.file_id
                structures.check_place(self.place_key, header[:128], b"F", object_id, where)
                size = structures.plain_size(cipher_size, slot.block_size)
                self._blocks(source, lower, out, slot, file_key, size)
                need(size >= slot.length_bound, IntegrityError(f"cut: {size} bytes of {slot.length_bound}"))
        self._attributes(source, target, object_id)

    def _blocks(
        self, source: bytes, lower: BinaryIO, out: BinaryIO, slot: structures.Slot, file_key: bytes, size: int
    ) -> None:
        """Section 2.2. A damaged block reads as zeros and is reported."""
        keys = structures.content_keys(file_key, slot)
        for index in range(-(-size // slot.block_size)):
            sealed = lower.read(slot.block_size + 28)
            try:
                plain = structures.open_block_by_any(slot.suite, keys, slot.file_id, index, slot.holes, sealed)
            except IntegrityError as failure:
                self.problems.append((source, failure))
                continue
            out.seek(index * slot.block_size)
            out.write(plain)
        out.truncate(size)

    def _attributes(self, source: bytes, target: bytes, object_id: bytes | None) -> None:
        """Section 7, and mode and times, which are the lower file's own. A file without header has none of ours."""
        for lower_name in os.listxattr(source) if object_id else []:
            raw_name, value = os.fsencode(lower_name), os.getxattr(source, lower_name)
            try:
                opened = structures.open_xattr(self.key, object_id or b"", raw_name, value)
            except Failure as failure:
                self.problems.append((source + b" " + raw_name, failure))
                continue
            if opened is not None:
                os.setxattr(target, os.fsdecode(opened[0]), opened[1])
        status = os.stat(source)
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
        os.chmod(target, stat.S_IMODE(status.st_mode))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="decrypts a whole volume, as docs/FORMAT.md says")
    parser.add_argument("--home", type=Path, required=True, help="the directory of the KMS")
    parser.add_argument("--passphrase-file", type=Path, help="a file with the passphrase, if there is no key file")
    parser.add_argument("lower", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args(arguments)
    passphrase = options.passphrase_file.read_bytes().removesuffix(b"\n") if options.passphrase_file else None
    try:
        with contextlib.closing(Kms(options.home, passphrase)) as kms:
            volume = Volume(kms, options.lower)
            volume.extract(options.out)
    except Failure as failure:
        print(f"{type(failure).__name__}: {failure}", file=sys.stderr)
        return 1
    for path, problem in volume.problems:
        print(f"{os.fsdecode(path)}: {type(problem).__name__}: {problem}", file=sys.stderr)
    return 1 if volume.problems else 0


if __name__ == "__main__":
    sys.exit(main())
