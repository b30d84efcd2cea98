"""The check of a whole lower directory: from the root down, each object once for each of its names.

Nothing is followed and nothing is opened by a path from the root but step by step: the lower directory may be hostile.
While the volume is mounted for writing, what is found is looked at again, since it may have been in the middle of a
change; only what stays is told.
"""

from __future__ import annotations

import contextlib
import os
import stat as stat_module
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from envfs.format.geometry import Geometry
from envfs.format.place import ROOT
from envfs.format.volume import VolumeFile
from envfs.format.volume_keys import VolumeKeys
from envfs.fs import lower
from envfs.fsck.aside import Aside
from envfs.fsck.content import FileCheck, OpenFile, Unwrap, damaged_blocks
from envfs.fsck.directory import DirectoryCheck, Entry, Identity
from envfs.fsck.findings import Finding, Outcome, Problem, Report, Spot, describe
from envfs.fsck.objects import check_symlink, check_xattrs

T = TypeVar("T")

_PASSES = 4
_BETWEEN_PASSES = 0.25  # seconds
# So many files at most wait for their blocks to be read; each holds a descriptor.
_WAITING = 64
# So many damaged blocks of a file are named.
_SHOWN = 8
# What a repair moves out of the way, since it can neither be mended nor be trusted where it stands.
_TO_PUT_ASIDE = frozenset(
    (Problem.NAME, Problem.NAME_FILE, Problem.LEAVING, Problem.HEADER, Problem.PLACE, Problem.CUT, Problem.SYMLINK,
     Problem.DIRECTORY_FILE, Problem.DIRECTORY_PLACE)
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is asked of a check. `live`: the volume is mounted for writing meanwhile; then nothing can be repaired.

    `put_back`: blocks, by file id, that the next mount puts back; they are damaged until then.
    """

    read_data: bool = False
    repair: bool = False
    live: bool = False
    threads: int = 2
    put_back: Mapping[bytes, Collection[int]] = field(default_factory=dict)


class Check:
    """One check of one volume. `advance(objects, bytes)` hears what was looked at."""

    def __init__(
        self,
        root_fd: int,
        volume: VolumeFile,
        keys: VolumeKeys,
        unwrap: Unwrap,
        wishes: Wishes,
        advance: Callable[[int, int], None],
    ) -> None:
        self._root_fd = root_fd
        self._keys = keys
        self._wishes = wishes
        self._advance = advance
        self._geometry = Geometry(1 << volume.block_log2)
        self._directories = DirectoryCheck(keys, volume.root_id, live=wishes.live)
        self._files = FileCheck(self._geometry, keys.place, unwrap)
        self._report = Report()
        self._by_id: dict[bytes, Spot] = {}
        self._guesses: list[tuple[Entry, Identity]] = []
        self._to_put_aside: list[tuple[Spot, Finding]] = []
        self._counting = threading.Lock()
        self._reading: deque[tuple[Spot, Future[list[Finding]]]] = deque()

    def run(self) -> Report:
        """Everything. Goes on after each problem; raises only what ends the check itself."""
        waiting = [Entry(Spot(b"", b"", b""), ROOT)]
        with ThreadPoolExecutor(self._wishes.threads) as pool:
            while waiting:
                entry = waiting.pop()
                try:
                    waiting += self._directory(entry, pool)
                except OSError as error:
                    self._keep(entry.spot, [entry.spot.finding(Problem.UNREADABLE, describe(error))])
            while self._reading:
                self._finish_oldest()
        if self._wishes.repair:
            self._rebuild()
            self._put_aside()
        return self._report

    def _directory(self, entry: Entry, pool: ThreadPoolExecutor) -> list[Entry]:
        """Checks one directory and gives the directories in it."""
        spot = entry.spot
        with self._opened(spot.lower) as fd:
            self._report.directories += 1
            self._advance(1, 0)
            identity = self._settle(spot, lambda found: self._directories.identify(fd, spot, entry.where, found))
            if identity is None:
                return []
            directory_id = identity.directory_id
            self._remember(entry, identity)
            self._settle(spot, lambda found: check_xattrs(self._keys, fd, directory_id, spot, found))
            inner: list[Entry] = []
            for child in self._entries(fd, spot, directory_id):
                try:
                    if stat_module.S_ISDIR(os.stat(child.spot.name, dir_fd=fd, follow_symlinks=False).st_mode):
                        inner.append(child)
                    else:
                        self._object(fd, child, pool)
                except FileNotFoundError:
                    continue  # removed meanwhile
                except OSError as error:
                    self._keep(child.spot, [child.spot.finding(Problem.UNREADABLE, describe(error))])
            return inner

    def _remember(self, entry: Entry, identity: Identity) -> None:
        """Two directories with one id: one of them is a copy, and nothing says which."""
        if identity.guess is not None:
            self._guesses.append((entry, identity))
            return
        other = self._by_id.setdefault(identity.directory_id, entry.spot)
        if other is not entry.spot:
            detail = f"it has the same directory id as /{os.fsdecode(other.plain)}: one of them is a copy"
            self._keep(entry.spot, [entry.spot.finding(Problem.DUPLICATE, detail)])

    def _rebuild(self) -> None:
        """Directories without a directory file, when it is known which ids others have."""
        claims = Counter(identity.directory_id for _, identity in self._guesses)
        for entry, identity in self._guesses:
            finding = identity.guess
            if finding is None:
                continue
            if identity.directory_id in self._by_id or claims[identity.directory_id] > 1:
                finding.detail += ", and another directory has it, too: the content may have been moved or copied here"
                continue
            try:
                with self._opened(entry.spot.lower) as fd:
                    self._directories.rebuild(fd, entry.where, identity)
            except OSError as error:
                finding.detail += f"; it could not be made again: {describe(error)}"
            else:
                finding.detail += "; it is yours alone now: give it back its owner and mode"
                finding.outcome = Outcome.REPAIRED

    def _entries(self, fd: int, spot: Spot, directory_id: bytes) -> list[Entry]:
        """The entries with authentic names. What else stands there is found, each at its own spot."""

        def look(found: list[Finding]) -> list[Entry]:
            return list(self._directories.entries(fd, spot, directory_id, found))

        entries, findings = self._look_until_settled(look)
        for finding in findings:
            self._keep(spot.child(os.fsencode(finding.lower).rsplit(b"/", 1)[-1]), [finding])
        return entries

    def _object(self, fd: int, entry: Entry, pool: ThreadPoolExecutor) -> None:
        spot = entry.spot
        mode = os.stat(spot.name, dir_fd=fd, follow_symlinks=False).st_mode
        self._advance(1, 0)
        if stat_module.S_ISLNK(mode):
            self._report.symlinks += 1
            self._settle(spot, lambda found: check_symlink(self._keys, fd, spot, entry.where, found))
        elif stat_module.S_ISREG(mode):
            self._report.files += 1
            self._file(fd, entry, pool)
        else:
            self._report.others += 1  # FIFOs, sockets and devices are themselves: only their names are sealed

    def _file(self, dir_fd: int, entry: Entry, pool: ThreadPoolExecutor) -> None:
        with contextlib.ExitStack() as stack:

            def look(found: list[Finding]) -> tuple[int, OpenFile | None]:
                stack.close()  # what was looked at before
                fd = os.open(entry.spot.name, lower.OPEN_READ, dir_fd=dir_fd)
                stack.callback(os.close, fd)
                opened = self._files.check(fd, entry.spot, entry.where, found, repair=self._wishes.repair)
                if opened is not None:
                    check_xattrs(self._keys, fd, opened.slot.file_id, entry.spot, found)
                return fd, opened

            fd, opened = self._settle(entry.spot, look)
            if opened is not None and self._wishes.read_data:
                while len(self._reading) >= _WAITING:
                    self._finish_oldest()
                # The very file whose header was read, whatever its name means by then.
                self._reading.append((entry.spot, pool.submit(self._read_blocks, os.dup(fd), opened)))

    # The blocks of files, in threads: reading and decrypting both let others run.

    def _read_blocks(self, file: int, opened: OpenFile) -> list[Finding]:
        try:
            return self._look_until_settled(lambda found: self._damaged_blocks(file, opened, found))[1]
        except OSError as error:
            return [opened.spot.finding(Problem.UNREADABLE, describe(error))]
        finally:
            os.close(file)

    def _damaged_blocks(self, file: int, opened: OpenFile, found: list[Finding]) -> None:
        put_back = self._wishes.put_back.get(opened.slot.file_id, ())
        damaged, waiting = _Ranges(), _Ranges()
        for first, end in damaged_blocks(file, opened, self._geometry, self._count):
            if first + 1 == end and first in put_back:
                waiting.add(first, end)
            else:
                damaged.add(first, end)
        if damaged.count and self._wishes.live and opened.has_other_keys(file):
            detail = "it got a new data key while it was looked at: check it again"
            found.append(opened.spot.finding(Problem.KEY, detail, Outcome.NOT_CHECKED))
        elif damaged.count:
            detail = f"{damaged.count} blocks of {self._geometry.block_size} bytes are damaged: {damaged}"
            found.append(opened.spot.finding(Problem.BLOCK, detail))
        if waiting.count:
            detail = f"{waiting.count} blocks were torn, and the next mount or a repair puts them back: {waiting}"
            found.append(opened.spot.finding(Problem.BLOCK, detail, Outcome.HARMLESS))

    def _count(self, size: int) -> None:
        with self._counting:  # several threads count
            self._report.bytes_read += size
            self._advance(0, size)

    def _finish_oldest(self) -> None:
        spot, future = self._reading.popleft()
        self._keep(spot, future.result())

    # Findings

    def _settle(self, spot: Spot, look: Callable[[list[Finding]], T]) -> T:
        result, findings = self._look_until_settled(look)
        self._keep(spot, findings)
        return result

    def _look_until_settled(self, look: Callable[[list[Finding]], T]) -> tuple[T, list[Finding]]:
        """What `look` gives and finds; on a mounted volume the last of several looks counts."""
        for _ in range(_PASSES - 1 if self._wishes.live else 0):
            findings: list[Finding] = []
            result = look(findings)
            if not findings:
                return result, findings
            time.sleep(_BETWEEN_PASSES)
        last: list[Finding] = []
        return look(last), last

    def _keep(self, spot: Spot, findings: list[Finding]) -> None:
        self._report.findings += findings
        for finding in findings:
            wanted = finding.is_open or finding.outcome is Outcome.HARMLESS
            if wanted and finding.problem in _TO_PUT_ASIDE and spot.name:
                self._to_put_aside.append((spot, finding))
                return  # once is enough, whatever else is wrong with it

    def _put_aside(self) -> None:
        aside = Aside(self._root_fd)
        # What was found last lies deepest: it goes before the directory that it lies in.
        for spot, finding in reversed(self._to_put_aside):
            if finding.outcome is Outcome.REPAIRED:
                continue
            try:
                with self._opened(spot.directory) as fd:
                    aside.put(fd, spot.name, finding)
            except OSError as error:
                finding.detail += f"; it could not be put aside: {describe(error)}"
            else:
                for other in self._report.findings:
                    if other.lower == finding.lower:
                        other.outcome = finding.outcome

    @contextlib.contextmanager
    def _opened(self, path: bytes) -> Iterator[int]:
        """A lower directory, reached step by step."""
        fd = os.dup(self._root_fd)
        try:
            for name in path.split(b"/") if path else ():
                inner = os.open(name, lower.OPEN_DIRECTORY, dir_fd=fd)
                os.close(fd)
                fd = inner
            yield fd
        finally:
            os.close(fd)


class _Ranges:
    """Block indices for a message: all counted, the first few named."""

    def __init__(self) -> None:
        self.count = 0
        self._shown: list[str] = []

    def add(self, first: int, end: int) -> None:
        self.count += end - first
        if len(self._shown) < _SHOWN:
            self._shown.append(str(first) if end == first + 1 else f"{first} to {end - 1}")

    def __str__(self) -> str:
        return ", ".join(self._shown) + (", …" if len(self._shown) == _SHOWN else "")
