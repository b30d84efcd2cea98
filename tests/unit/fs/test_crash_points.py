"""A daemon killed before any one of its system calls: what the next mount finds is the old state or the new one.

The end is real: a child process runs the operation and exits right before its n-th call that changes something, for
every n there is. A write that is torn in itself is the matter of test_undo.py.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
from typing import TYPE_CHECKING

import pytest

from envfs.fs.attributes import Change
from envfs.fs.lower import RENAME_EXCHANGE
from tests.unit.fs.lab import Lab, lower_names

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import FrameType

    from tests.unit.fs.lab import Session

    State = dict[bytes, tuple[str, bytes]]

B = 4096
LONG = b"n" * 255
OTHER_LONG = b"o" * 255
FAR = b"t/" * 1900
CHANGING = frozenset(
    "open pwrite pwritev rename link unlink mkdir rmdir symlink mknod ftruncate truncate chmod fchmod chown fchown "
    "utime setxattr removexattr".split()
)
DIED, DONE, FAILED = 9, 0, 1


def state_of(fs: Session, path: bytes = b"") -> State:
    """Everything in the volume: kind, and content or target."""
    found: State = {}
    for name in fs.names(path):
        full = path + b"/" + name if path else name
        mode = fs.stat(full).st_mode
        if stat.S_ISDIR(mode):
            found[full] = ("directory", b"")
            found |= state_of(fs, full)
        elif stat.S_ISLNK(mode):
            found[full] = ("symlink", fs.readlink(full))
        elif stat.S_ISREG(mode):
            found[full] = ("file", fs.read(full))
        else:
            found[full] = ("other", b"")
    return found


def prepare(fs: Session) -> None:
    fs.mkdir(b"d")
    fs.write(b"d/inner", b"inner")
    fs.mkdir(b"empty")
    fs.write(b"f", b"file" * 3000)
    fs.write(b"g", b"other")
    fs.write(LONG, b"long")
    fs.symlink(b"l", b"target")
    fs.symlink(b"far", FAR)
    fs.write(b"two", b"names")
    fs.link(b"two", b"too")
    fs.symlink(b"d/far", b"x" + FAR)


def append_and_close(fs: Session) -> None:
    fs.write(b"f", b"more" * 3000, 12_000)


OPERATIONS: dict[str, Callable[[Session], object]] = {
    "create": lambda fs: fs.write(b"new", b""),
    "create long": lambda fs: fs.write(OTHER_LONG, b""),
    "mkdir": lambda fs: fs.mkdir(b"new"),
    "mkdir long": lambda fs: fs.mkdir(OTHER_LONG),
    "symlink": lambda fs: fs.symlink(b"new", b"somewhere"),
    "symlink far": lambda fs: fs.symlink(OTHER_LONG, b"y" + FAR),
    "mknod": lambda fs: fs.mknod(b"new", stat.S_IFIFO | 0o600),
    "unlink": lambda fs: fs.unlink(b"f"),
    "unlink long": lambda fs: fs.unlink(LONG),
    "unlink far": lambda fs: fs.unlink(b"far"),
    "rmdir": lambda fs: fs.rmdir(b"empty"),
    "rename file": lambda fs: fs.rename(b"f", b"d/moved"),
    "rename long to long": lambda fs: fs.rename(LONG, OTHER_LONG),
    "rename long away": lambda fs: fs.rename(LONG, b"d/" + LONG),
    "rename over": lambda fs: fs.rename(b"f", b"d/inner"),
    "rename over long": lambda fs: fs.rename(b"f", LONG),
    "rename directory": lambda fs: fs.rename(b"d", b"moved"),
    "rename directory over": lambda fs: fs.rename(b"d", b"empty"),
    "rename symlink": lambda fs: fs.rename(b"l", b"d/moved"),
    "rename far symlink": lambda fs: fs.rename(b"far", b"d/moved"),
    "rename far symlink over far": lambda fs: fs.rename(b"far", b"d/far"),
    "rename linked": lambda fs: fs.rename(b"two", b"d/moved"),
    "exchange files": lambda fs: fs.rename(b"f", b"d/inner", RENAME_EXCHANGE),
    "exchange directory": lambda fs: fs.rename(b"d", b"f", RENAME_EXCHANGE),
    "exchange symlinks": lambda fs: fs.rename(b"l", b"d/far", RENAME_EXCHANGE),
    "exchange long": lambda fs: fs.rename(LONG, b"d/inner", RENAME_EXCHANGE),
    "link": lambda fs: fs.link(b"f", b"d/second"),
    "link long": lambda fs: fs.link(LONG, OTHER_LONG),
    "link third": lambda fs: fs.link(b"two", b"d/third"),
    "link symlink": lambda fs: fs.link(b"l", b"d/second"),
    "append": append_and_close,
    "overwrite": lambda fs: fs.write(b"f", b"x" * 5000, 100),
    "write with a gap": lambda fs: fs.write(b"f", b"x", 50_000),
    "shrink": lambda fs: fs.truncate(b"f", 5000),
    "shrink to a block": lambda fs: fs.truncate(b"f", B),
    "empty": lambda fs: fs.truncate(b"f", 0),
    "grow": lambda fs: fs.truncate(b"f", 40_000),
    "chmod": lambda fs: fs.change(b"f", Change(mode=0o444)),
}
# Where there is a moment between the two, and why it may be seen.
BETWEEN: dict[str, Callable[[State, State], list[State]]] = {
    # The gap is made before what comes after it is written.
    "write with a gap": lambda old, _: [
        old | {b"f": ("file", old[b"f"][1] + bytes(size - 12_000))} for size in (3 * B, 50_000)
    ],
    "grow": lambda old, _: [old | {b"f": ("file", old[b"f"][1] + bytes(3 * B - 12_000))}],
    # The empty directory that is replaced is at the old name for a moment.
    "rename directory over": lambda _, new: [new | {b"d": ("directory", b"")}],
}


def run_until(lab: Lab, operation: Callable[[Session], object], count: int) -> int:
    """Run the operation in a process that ends before its `count`-th changing system call. How it ended."""
    child = os.fork()
    if child == 0:
        status = FAILED
        try:
            lab.reopen_engine()
            fs = lab.mount()
            left = count

            def watch(_frame: FrameType, event: str, called: object) -> None:
                nonlocal left
                if event != "c_call" or getattr(called, "__module__", None) != "posix":
                    return
                if getattr(called, "__name__", "") in CHANGING:
                    left -= 1
                    if left < 0:
                        os._exit(DIED)

            sys.setprofile(watch)
            operation(fs)
            sys.setprofile(None)
            status = DONE
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture
def template(lab: Lab) -> Path:
    """A lower directory to begin with, and a lab whose lower directory is a copy of it each time."""
    prepare(lab.mount())
    lab.unmount()
    kept = lab.lower.with_name("kept")
    os.rename(lab.lower, kept)
    return kept


def fresh(lab: Lab, template: Path) -> None:
    if lab.lower.exists():
        shutil.rmtree(lab.lower)
    _copy(template, lab.lower, {})


def _copy(source: Path, target: Path, links: dict[int, Path]) -> None:
    """With symlinks and hard links as they are."""
    target.mkdir()
    for entry in os.scandir(source):
        path = target / entry.name
        if entry.is_dir(follow_symlinks=False):
            _copy(source / entry.name, path, links)
        elif entry.inode() in links:
            os.link(links[entry.inode()], path, follow_symlinks=False)
        else:
            shutil.copy2(source / entry.name, path, follow_symlinks=False)
            links[entry.inode()] = path


@pytest.mark.parametrize("name", OPERATIONS)
def test_old_or_new(lab: Lab, template: Path, name: str) -> None:
    operation = OPERATIONS[name]
    fresh(lab, template)
    old = state_of(lab.mount())
    lab.unmount()
    assert run_until(lab, operation, 1 << 30) == DONE
    new = state_of(lab.mount())
    lab.unmount()
    allowed = [old, new, *(BETWEEN[name](old, new) if name in BETWEEN else [])]
    seen_old = False
    for count in range(200):
        fresh(lab, template)
        ended = run_until(lab, operation, count)
        fs = lab.mount()
        found = state_of(fs)
        assert found in allowed, f"killed before call {count}"
        seen_old |= found == old
        # Everything that is there can be used, and what is made afterwards is not disturbed by what was left behind.
        operation_again(fs, found)
        lab.unmount()
        if ended == DONE:
            break
        assert ended == DIED
    else:
        pytest.fail("the operation does not end")
    assert seen_old
    assert found == new


def operation_again(fs: Session, found: State) -> None:
    """Files can be written, moved and removed, and directories emptied and removed."""
    fs.mkdir(b"later")
    for index, (path, (kind, content)) in enumerate(sorted(found.items(), reverse=True)):
        if kind == "directory":
            fs.rmdir(path)
            continue
        moved = b"later/%d" % index
        fs.rename(path, moved)
        if kind == "file":
            fs.write(moved, b"!", len(content))
            assert fs.read(moved).startswith(content)
        fs.unlink(moved)
    fs.rmdir(b"later")
    assert fs.names() == []
    assert not any(name.startswith((b"envfs.long.", b"envfs.mode")) for name in lower_names(fs.lab.lower))
