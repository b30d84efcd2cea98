"""`envfs cat` and `envfs decrypt`: files of a lower directory, without a mount."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from envfs.cli.arguments import PATH
from envfs.cli.backend import USER_AGENT, Backend, open_backend
from envfs.cli.byte_io import decode, encode
from envfs.cli.output import examples
from envfs.cli.passphrase import passphrase_file_option
from envfs.errors import AccessDenied, ConfigError, IntegrityError, KmsError
from envfs.format.header import Slot, parse_header_area
from envfs.format.names import VOLUME_FILE
from envfs.kms.model import RequestFacts
from envfs.kms.sealed_file import open_sealed_file
from envfs.service import client
from envfs.service.lower_reader import Changed, LowerReader

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from envfs.format.evidence import Evidence
    from envfs.service.lower_reader import OpenedFile, Opener

_THROTTLED = "ThrottlingException"
_ATTEMPTS = 3  # to get a file that is being written to in one piece
_PATIENCE = 100  # times 50 ms, while others keep the KMS busy


@click.command(epilog=examples("envfs cat ~/vault.enc/3kT0vJ0wV5z7 | less"))
@click.argument("path", metavar="LOWERFILE", type=PATH)
@click.option("--offset", type=click.IntRange(0), default=0, metavar="N", help="Begin at byte N of the content.")
@click.option("--length", type=click.IntRange(0), metavar="N", help="Print N bytes at most.")
@passphrase_file_option
def cat(path: Path, offset: int, length: int | None, passphrase_file: Path | None) -> None:
    """Print LOWERFILE, a file in a lower directory, without a mount.

    The KMS decides, as for a mount, and records it. Nothing is printed but blocks that are authentic; at the first that
    is not, it ends with exit code 5.
    """
    with _reader(path, passphrase_file) as reader:
        out = sys.stdout.buffer
        for piece in reader.read(offset, length):
            out.write(piece)
        out.flush()


@click.command(epilog=examples("envfs decrypt ~/vault.enc/3kT0vJ0wV5z7 -o notes.txt"))
@click.argument("path", metavar="LOWERFILE", type=PATH)
@click.option("-o", "--output", type=PATH, metavar="F", required=True, help="Where the content goes.")
@passphrase_file_option
def decrypt(path: Path, output: Path, passphrase_file: Path | None) -> None:
    """Decrypt LOWERFILE to F, without a mount.

    The KMS decides, as for a mount, and records it. F is made for its owner alone, and not before all of LOWERFILE was
    authentic.
    """
    _check_output(output)
    for attempt in range(_ATTEMPTS):
        try:
            with _reader(path, passphrase_file) as reader:
                _write_whole(reader, output)
        except Changed:
            if attempt == _ATTEMPTS - 1:
                raise
            time.sleep(0.2)
        else:
            return


@contextlib.contextmanager
def _reader(path: Path, passphrase_file: Path | None) -> Iterator[LowerReader]:
    with client.open_path(path) as opened:
        if opened.envfs_mount is not None:
            raise ConfigError(f"{path} lies in a mount", hint="there cat(1) and cp(1) read it")
    with open_backend(passphrase_file, maintain=False) as backend, LowerReader(path, _opener(backend)) as reader:
        yield reader


def _opener(backend: Backend) -> Opener:
    session = backend.session
    if session is None:
        return lambda evidence: _open_by_socket(backend, evidence)
    facts = RequestFacts(user_agent=USER_AGENT)
    return lambda evidence: open_sealed_file(session.engine, session.principal, evidence, facts, path_is_proven=True)


def _open_by_socket(backend: Backend, evidence: Evidence) -> OpenedFile | None:
    request = {
        "VolumeFile": encode(evidence.volume_file),
        "Directories": [{"Name": encode(step.cipher_name), "File": encode(step.directory_file)}
                        for step in evidence.steps],
        "Name": encode(evidence.cipher_name),
        "Header": encode(evidence.header),
    }  # fmt: skip
    answer = _ask(backend, request)
    if "Slot" not in answer:
        return None
    slots = parse_header_area(evidence.header).slots
    slot = next(parsed.slot for parsed in slots if parsed.position == answer["Slot"])
    return _Remote(backend, request, slot)


@dataclass(frozen=True, slots=True)
class _Remote:
    """A file that the server opens, anew for each piece: it hands out no key."""

    backend: Backend
    request: dict[str, Any]
    slot: Slot

    def open(self, first_index: int, cipher: bytes, /) -> tuple[bytes, int | None]:
        answer = _ask(self.backend, {**self.request, "FirstBlock": first_index, "Blocks": encode(cipher)})
        return decode(answer.get("Plaintext", "")), answer.get("DamagedBlock")


def _ask(backend: Backend, request: dict[str, Any]) -> dict[str, Any]:
    for _ in range(_PATIENCE):
        try:
            answer = backend.call("EnvfsKms.OpenBlocks", request)
        except AccessDenied as error:
            raise AccessDenied(
                error.message,
                hint="a policy that asks for envfs:Path lets nobody read this way: read it in a mount; "
                "else who administers the key can allow it",
            ) from None
        except KmsError as error:
            if error.code != _THROTTLED:
                raise
            time.sleep(0.05)
            continue
        if "Problem" in answer:
            raise IntegrityError(str(answer["Problem"]))
        return answer
    return backend.call("EnvfsKms.OpenBlocks", request)


def _check_output(output: Path) -> None:
    """Plaintext has no place in a lower directory, nor over what is no file."""
    parent = output.absolute().parent
    real = parent.resolve()
    if any(os.path.lexists(one / os.fsdecode(VOLUME_FILE)) for one in (real, *real.parents)):
        raise ConfigError(f"{output} lies in a lower directory: that is for ciphertext", hint="write it elsewhere")
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(output.lstat().st_mode):
            raise ConfigError(f"{output} is there, and no regular file", hint="name a new file; cat writes to pipes")


def _write_whole(reader: LowerReader, output: Path) -> None:
    """`output` whole or not at all, and the owner's alone from its first byte on."""
    directory = os.open(output.absolute().parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    name = f".envfs-part.{secrets.token_hex(8)}"
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            file = os.open(name, flags, 0o600, dir_fd=directory)
        except OSError as error:  # which names a file that nobody knows
            raise OSError(error.errno, error.strerror, os.fspath(output)) from None
        try:
            with os.fdopen(file, "wb") as stream:
                os.fchmod(file, 0o600)
                for piece in reader.read():
                    if piece.count(0) == len(piece):
                        stream.seek(len(piece), os.SEEK_CUR)  # a hole, most likely
                    else:
                        stream.write(piece)
                stream.truncate(reader.size)
                stream.flush()
                os.fsync(file)
            os.rename(name, output.name, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException as error:
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=directory)
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise OSError(error.errno, error.strerror, os.fspath(output)) from None
            raise
        os.fsync(directory)
    finally:
        os.close(directory)
