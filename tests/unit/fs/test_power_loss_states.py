"""The power fails at any moment: what was synced is there, and nothing that is left looks as if it had been changed.

The lower directory's changes are recorded, and many of the states made that a journalling filesystem may have on the
disk (see power.py). Whatever was synced is there, whole, until it is written over and synced again; then it is what it
was, or what it was to become, block by block. Every block of every file can be read, but for one that was added right
behind the end that a file had when it was last synced, and was never synced: its first bytes lie on a page that is on
the disk already, and the file's new size may get there before them.
"""

from __future__ import annotations

import os
import random
import shutil
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from envfs.errors import IntegrityError
from envfs.format.geometry import HEADER_SIZE
from envfs.fs import lower, nodes, recovery, undo
from envfs.fs.lower import RENAME_EXCHANGE, Kind
from envfs.fsck.findings import Problem
from envfs.service.fsck import check_volume
from tests.unit.fs.lab import Lab, Session
from tests.unit.fs.power import Inode, Loss, Recording, recorded
from tests.unit.fs.test_rekeying import rekey, rewrap_one

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

B = 4096
LONG, OTHER_LONG = b"n" * 255, b"o" * 255
FAR = b"t/" * 1900
# At each moment, beside the extreme ones. The long form: ENVFS_POWER_LOSSES=100 scripts/test -k power_loss_states
RANDOM_LOSSES = int(os.environ.get("ENVFS_POWER_LOSSES", "0"))


class Script:
    """Does things to a volume, and knows from which moment to which a synced file must be there as it is."""

    def __init__(self, fs: Session, recording: Recording) -> None:
        self.fs = fs
        self.recording = recording
        self.facts: list[tuple[bytes, bytes, int, int]] = []  # path, content, from, until
        self._open: dict[bytes, tuple[bytes, int]] = {}

    def sync(self, path: bytes) -> None:
        """fsync(2), as the adapter does it; the names are then on the disk, too."""
        with self.fs.opened(path, write=True) as content:
            content.prepare_sync()
            work = self.fs.fs.sync_work()
            if work is not None:
                work()
            os.fsync(content.fd)
            content.record_length(content.size)
        self.know(path)

    def sync_all(self) -> None:
        """sync(2): on a mount, each file and then the lower filesystem."""
        lower.syncfs(self.fs.fs.state.nodes.root.directory_fd)

    def know(self, path: bytes) -> None:
        self._open[path] = self.fs.read(path), self.recording.moment

    def changing(self, *paths: bytes) -> None:
        """From the next moment on these may be as they were, or not."""
        for path in paths:
            if path in self._open:
                content, since = self._open.pop(path)
                self.facts.append((path, content, since, self.recording.moment))

    def end(self) -> None:
        self.changing(*list(self._open))

    def known_at(self, moment: int) -> dict[bytes, bytes]:
        return {path: content for path, content, since, until in self.facts if since <= moment <= until}


def append_and_close(s: Script) -> None:
    """No fsync: the file may be shorter afterwards, but not damaged."""
    s.changing(b"f")
    s.fs.write(b"new", b"a" * 3 * B)
    s.fs.write(b"new", b"b" * 5 * B, 3 * B)
    s.fs.write(b"f", b"c" * 2 * B, 3 * B)
    s.fs.fs.state.promises.keep_now()
    s.fs.write(b"new", b"d" * B, 8 * B)


def shrink(s: Script) -> None:
    s.changing(b"f", b"g")
    s.fs.truncate(b"f", 2 * B)
    s.fs.truncate(b"g", 0)
    s.fs.write(b"g", b"again")
    s.fs.truncate(b"f", B + 7)


def shrink_and_sync(s: Script) -> None:
    s.changing(b"f")
    s.fs.truncate(b"f", 100)
    s.sync(b"f")
    s.changing(b"f")
    s.fs.truncate(b"f", 0)
    s.sync(b"f")


def holes(s: Script) -> None:
    s.changing(b"f", b"g")
    s.fs.truncate(b"f", 20 * B)
    s.fs.write(b"new", b"x", 10 * B)
    s.sync(b"new")
    s.fs.write(b"g", b"x", 5 * B + 10)


def save_with_care(s: Script) -> None:
    for number in range(3):
        s.fs.write(b"t", b"%d" % number * B * 2)
        s.sync(b"t")
        s.changing(b"f", b"t")
        s.fs.rename(b"t", b"f")
        s.sync(b"f")


def moves(s: Script) -> None:
    s.changing(b"f", b"d/inner", LONG)
    s.fs.rename(b"f", b"d/f")
    s.fs.rename(b"d", b"e")
    s.fs.rename(LONG, b"e/" + OTHER_LONG)
    s.fs.rename(b"e/inner", b"e/" + LONG)
    s.sync(b"e/f")
    s.sync(b"e/" + LONG)
    s.changing(b"e/f", b"g", b"e/" + LONG)
    s.fs.rename(b"e/f", b"g", RENAME_EXCHANGE)
    s.fs.rename(b"e", b"empty")


def links(s: Script) -> None:
    s.fs.link(b"f", b"d/second")
    s.sync(b"d/second")
    s.fs.link(LONG, b"d/" + OTHER_LONG)
    s.changing(b"f", b"d/second")
    s.fs.unlink(b"f")
    s.fs.rename(b"d/second", b"third")


def new_directories(s: Script) -> None:
    s.fs.mkdir(b"one")
    s.fs.mkdir(b"one/" + LONG)
    s.fs.write(b"one/" + LONG + b"/f", b"deep")
    s.sync(b"one/" + LONG + b"/f")
    s.changing(b"d/inner")
    s.fs.rename(b"d/inner", b"one/inner")
    s.fs.rmdir(b"d")
    s.fs.mkdir(b"d")


def symlinks(s: Script) -> None:
    s.fs.symlink(b"near", b"target")
    s.fs.symlink(b"far", FAR)
    s.sync(b"g")
    s.fs.rename(b"near", b"d/near")
    s.fs.rename(b"far", b"d/far")
    s.fs.link(b"d/near", b"again")
    s.fs.unlink(b"d/far")


def keys(s: Script) -> None:
    arn = s.fs.lab.engine.service_managed_key("alias/envfs/other")
    s.fs.fs.state.directories.set_key(s.fs.node(b"d"), arn)
    s.fs.write(b"d/new", b"new")
    s.sync(b"d/new")


def rewrite(s: Script) -> None:
    """Blocks that were synced are written over; the others of the file are what they were."""
    s.changing(b"f")
    s.fs.write(b"f", b"z" * B, B)
    s.fs.write(b"f", b"y" * 10, 3 * B - 20)
    s.sync(b"f")


def append_to_a_log(s: Script) -> None:
    """A part of the last block is synced, and sealed anew with what is added."""
    for number in range(6):
        s.changing(b"f")
        s.fs.write(b"f", b"%d" % number * 700, s.fs.size(b"f"))
        if number % 2:
            s.sync(b"f")


def rewrite_and_move(s: Script) -> None:
    """The journal knows the file by the name that it had."""
    s.changing(b"f", b"d/inner")
    s.fs.write(b"f", b"z" * B, 0)
    s.fs.rename(b"f", b"d/moved")
    s.fs.rename(b"d", b"e")
    s.sync(b"e/moved")
    s.changing(b"e/moved")
    s.fs.write(b"e/moved", b"y" * B, B)
    s.fs.unlink(b"e/moved")


def rewrite_cut_and_grow(s: Script) -> None:
    """What the journal has of a block means nothing any more when the file was cut before it."""
    s.changing(b"f")
    s.fs.write(b"f", b"z" * (3 * B - 100))
    s.sync(b"f")
    s.changing(b"f")
    s.fs.truncate(b"f", B)
    s.fs.write(b"f", b"y" * (2 * B), B)
    s.sync(b"f")
    s.changing(b"f")
    s.fs.truncate(b"f", 0)
    s.fs.write(b"f", b"x" * 3 * B)
    s.sync(b"f")
    s.changing(b"f")
    s.fs.write(b"f", b"w" * 10, B)
    s.fs.write(b"f", b"v" * 10, B + 100)
    s.sync(b"f")


def fill_holes(s: Script) -> None:
    s.changing(b"f")
    s.fs.truncate(b"f", 12 * B)
    s.sync(b"f")
    s.changing(b"f")
    s.fs.write(b"f", b"x" * B, 8 * B)
    s.fs.write(b"f", b"y" * 10, 5 * B + 5)
    s.sync(b"f")


def new_deks(s: Script) -> None:
    """What was synced is there at every moment, under the old DEK, the new one, or both."""
    rekey(s.fs, b"f")
    rekey(s.fs, b"d/inner", to_key=s.fs.lab.engine.service_managed_key("alias/envfs/other"))
    with s.fs.opened(b"g", write=True) as content:
        s.changing(b"g")
        content.write(0, b"more than it was")
        rekey(s.fs, b"g")
    s.sync(b"g")


def new_blobs(s: Script) -> None:
    other = s.fs.lab.engine.service_managed_key("alias/envfs/other")
    for path in (b"f", b"g", LONG, b"d/inner"):
        rewrap_one(s.fs, path, other)
    s.sync_all()


SCRIPTS: list[Callable[[Script], None]] = [
    append_and_close, shrink, shrink_and_sync, holes, save_with_care, moves, links, new_directories, symlinks, keys,
    rewrite, append_to_a_log, rewrite_and_move, rewrite_cut_and_grow, fill_holes,
    new_deks, new_blobs,
]  # fmt: skip


@pytest.fixture
def on_disk(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """In memory, for speed, and taken for a disk. Files are never so new that the kernel leaves them alone."""
    monkeypatch.setattr("envfs.fs.lower.kind_of", lambda _fd: Kind.DISK)
    monkeypatch.setattr(nodes, "FRESH", 0.0)
    return lab


def prepare(fs: Session) -> None:
    fs.mkdir(b"d")
    fs.write(b"d/inner", b"inner")
    fs.mkdir(b"empty")
    fs.write(b"f", b"f" * (3 * B - 100))
    fs.write(b"g", b"other")
    fs.write(LONG, b"long")


@pytest.mark.parametrize("script", SCRIPTS)
def test_after_a_power_loss(on_disk: Lab, script: Callable[[Script], None], monkeypatch: pytest.MonkeyPatch) -> None:
    lab = on_disk
    prepare(lab.mount())
    lab.unmount()
    recording = Recording(lab.lower)
    fs = lab.mount()
    known = Script(fs, recording)
    with recorded(recording):
        for path in (b"f", b"g", LONG, b"d/inner"):
            known.know(path)
        script(known)
        known.end()
        lab.unmount()
    monkeypatch.setattr(undo, "boot_id", lambda: b"another boot....")
    walk_lower = recovery._walk
    monkeypatch.setattr(  # on a disk, inode numbers stay
        recovery, "_walk", lambda fd: ((path, recording.numbers[number]) for path, number in walk_lower(fd))
    )
    original = lab.lower
    rng = random.Random(5)
    seen: set[bytes] = set()
    for loss in recording.losses(rng, 0, RANDOM_LOSSES):
        lab.lower = original.with_name("after")
        recording.make(loss, lab.lower)
        with _explained(loss):
            check(lab.mount(), known.known_at(loss.moment), recording, loss)
            seen |= known.known_at(loss.moment).keys()
            lab.unmount()
            if loss.label == "random 0":
                check_structure(lab)
        shutil.rmtree(lab.lower)
    lab.lower = original
    assert seen


@contextmanager
def _explained(loss: Loss) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        error.add_note(f"power failed at moment {loss.moment}, names as of {loss.names}, {loss.label}")
        raise


def check_structure(lab: Lab) -> None:
    """`envfs fsck` calls nothing damaged, either; blocks were looked at by `check`."""
    report = check_volume(
        lab.lower, lab.engine, lab.me, read_data=False, repair=False, threads=1, advance=lambda _objects, _bytes: None
    )
    damaged = [finding for finding in report.findings if finding.problem is not Problem.LEAVING]
    assert damaged == []


def check(fs: Session, known: dict[bytes, bytes], recording: Recording, loss: Loss) -> None:
    for path in walk(fs):
        mode = fs.stat(path).st_mode
        if stat.S_ISLNK(mode):
            assert fs.readlink(path) in {b"target", FAR}
        elif stat.S_ISREG(mode):
            found = read(fs, path, recording, loss)
            if path in known:
                assert found == known[path], path
    missing = [path for path in known if not fs.exists(path)]
    assert not missing


def walk(fs: Session, path: bytes = b"") -> Iterator[bytes]:
    for name in fs.names(path):
        full = path + b"/" + name if path else name
        yield full
        if stat.S_ISDIR(fs.stat(full).st_mode):
            yield from walk(fs, full)


def read(fs: Session, path: bytes, recording: Recording, loss: Loss) -> bytes:
    """The content, without the one block that may be missing."""
    geometry = fs.lab.geometry
    parts = []
    with fs.opened(path) as content:
        for index in range(geometry.block_count(content.size)):
            try:
                parts.append(bytes(content.read(index * B, B)))
            except IntegrityError:
                inode = next(one for one in recording.inodes.values() if _file_id(one) == content.slot.file_id)
                assert geometry.block_offset(index) == _end_when_synced(inode, loss.moment), (path, index)
    return b"".join(parts)


def _file_id(inode: Inode) -> bytes:
    written = [inode.base, *(data for _, offset, data in inode.changes if data is not None and offset == 0)]
    return next((raw[144:160] for raw in written if len(raw) >= HEADER_SIZE), b"")


def _end_when_synced(inode: Inode, moment: int) -> int:
    last = max((at for at in inode.synced if at <= moment), default=0)
    size = len(inode.base)
    for at, offset, data in inode.changes:
        if at <= last:
            size = offset if data is None else max(size, offset + len(data))
    return size
