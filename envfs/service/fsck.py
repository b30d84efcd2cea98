"""`envfs fsck` from the locks and the volume file on; the check of what stands in the volume is `envfs.fsck`'s."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from envfs.errors import ConfigError, EnvfsError
from envfs.format.context import decode_labels
from envfs.format.geometry import HEADER_SIZE, Geometry
from envfs.format.header import Slot, dek_context
from envfs.format.names import VOLUME_BACKUP, VOLUME_FILE
from envfs.format.volume import MAX_VOLUME_FILE_SIZE, VolumeFile
from envfs.fs import lower as lower_calls
from envfs.fs import raised_mode, recovery, undo
from envfs.fsck.check import Check, Wishes
from envfs.fsck.findings import Finding, Outcome, Problem, Report, Spot, describe
from envfs.kms.model import RequestFacts
from envfs.service import checks
from envfs.service.errors import MountError
from envfs.service.keys import VIA_SERVICE
from envfs.service.volume import OpenVolume, authenticate_volume_file, open_volume

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from envfs.crypto.secret import Secret
    from envfs.kms.engine import Engine
    from envfs.kms.model import Principal


def check_volume(
    lower: Path,
    engine: Engine,
    principal: Principal,
    *,
    read_data: bool,
    repair: bool,
    threads: int,
    advance: Callable[[int, int], None],
) -> Report:
    """Checks the volume in `lower`; with `repair` mends what can be mended.

    DEKs are unwrapped in the name of `principal`: what he may not read is not checked beyond its place. Raises
    MountError for a repair of a volume that is in use, ConfigError where `lower` is no volume, IntegrityError if
    neither copy of the volume file is authentic.
    """
    lower = lower.resolve()
    with _locked(lower, repair=repair) as live:
        opened, findings = _open(lower, engine, repair=repair)
        root_fd = os.open(lower, lower_calls.OPEN_DIRECTORY)
        try:
            if repair:
                raised_mode.restore(root_fd)
                undo.recover(root_fd, opened.keys.undo)
                recovery.recover(root_fd, opened.keys.undo, opened.file.block_log2, undo.boot_id())
            waiting = {} if repair or live or not read_data else _waiting(root_fd, opened)
            wishes = Wishes(read_data=read_data, repair=repair, live=live, threads=threads, put_back=waiting)
            unwrap = unwrapper(engine, principal, opened)
            report = Check(root_fd, opened.file, opened.keys, unwrap, wishes, advance).run()
        finally:
            os.close(root_fd)
    report.findings[:0] = findings
    return report


def _waiting(root_fd: int, volume: OpenVolume) -> dict[bytes, Collection[int]]:
    """The blocks that the next mount puts back, by file id: torn by a power failure, or by the end of a daemon."""
    found: dict[bytes, Collection[int]] = {}
    with contextlib.suppress(OSError):
        found.update(recovery.torn_blocks(root_fd, volume.keys.undo, volume.file.block_log2))
    with contextlib.suppress(OSError):
        head = undo.waiting(root_fd, volume.keys.undo)
        if head is not None:
            geometry = Geometry(1 << volume.file.block_log2)
            first = (head.offset - HEADER_SIZE) // geometry.cipher_block
            found[head.file_id] = range(first, first + -(-(head.end - head.offset) // geometry.cipher_block))
    return found


def measure(lower: Path) -> tuple[int, int]:
    """How many objects there are, and how many bytes of content at most: what a progress bar goes up to."""
    objects = size = 0
    waiting = [os.fspath(lower)]
    while waiting:
        objects += 1
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif not entry.name.startswith("envfs.") or entry.name.startswith("envfs.long."):
                    objects += 1
                    with contextlib.suppress(OSError):
                        size += entry.stat(follow_symlinks=False).st_size
    return objects, size


@contextlib.contextmanager
def _locked(lower: Path, *, repair: bool) -> Iterator[bool]:
    """Holds the volume as a mount does, shared for a check alone. Gives whether it is mounted for writing meanwhile."""
    with contextlib.ExitStack() as stack:
        try:
            for lock in (checks.lock_directory, checks.lock_volume):
                stack.callback(os.close, lock(lower, shared=not repair))
        except MountError:
            if repair:
                raise
            yield True
            return
        except FileNotFoundError:
            # Without a volume file there is nothing to lock but the directory, and `_open` says what is to be done.
            pass
        yield False


def _open(lower: Path, engine: Engine, *, repair: bool) -> tuple[OpenVolume, list[Finding]]:
    """The volume by whichever copy of its file is authentic, and what is wrong with the other one."""
    names = (VOLUME_FILE, VOLUME_BACKUP)
    raws = [_read(lower, name) for name in names]
    good: OpenVolume | None = None
    problems: list[tuple[bytes, str]] = []
    for name, raw in zip(names, raws, strict=True):
        try:
            opened = authenticate_volume_file(VolumeFile.parse(raw), raw, engine, lower)
        except EnvfsError as error:
            problems.append((name, describe(error) if raw else "it is missing"))
        else:
            good = good or opened
            if raw != raws[0] and not problems:
                problems.append((name, "it differs from the other copy"))
    if good is None:
        return open_volume(lower, engine), []  # which says best what is wrong
    findings = []
    for name, detail in problems:
        finding = Spot(b"", name, name).finding(Problem.VOLUME_FILE, f"{os.fsdecode(name)}: {detail}")
        findings.append(finding)
        if repair:
            other = next(raw for other, raw in zip(names, raws, strict=True) if other != name)
            _write(lower, name, other)
            finding.outcome = Outcome.REPAIRED
    return good, findings


def _read(lower: Path, name: bytes) -> bytes:
    try:
        directory = os.open(lower, lower_calls.OPEN_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(
            f"the lower directory {lower} does not exist", hint="name the directory of a volume"
        ) from None
    try:
        return lower_calls.read_small_file(directory, name, MAX_VOLUME_FILE_SIZE)
    except OSError:
        return b""
    finally:
        os.close(directory)


def _write(lower: Path, name: bytes, raw: bytes) -> None:
    directory = os.open(lower, lower_calls.OPEN_DIRECTORY)
    try:
        lower_calls.replace_file(directory, name, raw)
        os.fsync(directory)
    finally:
        os.close(directory)


def unwrapper(engine: Engine, principal: Principal, volume: OpenVolume) -> Callable[[Slot, Spot], Secret]:
    """Gives the file key of a slot, with its DEK out of `engine` in the name of `principal`."""

    def unwrap(slot: Slot, spot: Spot) -> Secret:
        facts = RequestFacts(via_service=VIA_SERVICE, path="/" + os.fsdecode(spot.plain), access="read")
        context = dek_context(volume.file.volume_id, slot.file_id, decode_labels(slot.labels))
        return volume.keys.file_key(engine.decrypt(principal, slot.blob, context, facts), is_bound=volume.file.is_bound)

    return unwrap
