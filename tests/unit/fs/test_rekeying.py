"""Rekeying: every block under a new DEK, nothing else different, and a file that can be read wherever it ends."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
import trio

from envfs.errors import EnvfsError, IntegrityError
from envfs.fs.attributes import Change
from envfs.fs.opening import Caller
from envfs.fs.rekeying import Rekeying
from envfs.fs.rewrapping import Outcome, Rewrapping
from envfs.fs.walking import Asker, Entry
from tests.unit.fs.lab import Session, flip, read_all, slots_of
from tests.unit.fs.test_crash_points import DIED, DONE, fresh, prepare, run_until, state_of
from tests.unit.fs.test_rewrapping import MASTER, key_id, key_ids, new_key, rewrap

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.unit.fs.lab import Lab

B = 4096
PIECE = 1 << 16


def entry_of(fs: Session, path: bytes) -> Entry:
    node = fs.node(path)
    assert node.parent is not None
    return Entry(node.parent, node.name, node.lower_name, node.full_name, node.path())


def rekey(
    fs: Session,
    path: bytes,
    between: Callable[[int], object] = lambda _: None,
    *,
    to_key: str | None = None,
    asker: Asker = MASTER,
    caller: Caller | None = None,
) -> Outcome:
    """Rekey one file; `between(n)` is called after its n-th piece."""
    count = 0

    async def ask(call: Callable[[], None]) -> None:
        call()

    async def give_way(_length: int) -> None:
        nonlocal count
        count += 1
        between(count)

    one = Rekeying(fs.fs.state, fs.fs.tree, asker, caller or fs.caller, fs.lab.me, to_key, ask)
    return trio.run(one.one, entry_of(fs, path), give_way)


def blocks(lower: Path) -> list[bytes]:
    raw = lower.read_bytes()[1024:]
    return [raw[start : start + B + 28] for start in range(0, len(raw), B + 28)]


def test_every_block_is_under_a_new_dek_and_nothing_else_changes(fs: Session) -> None:
    content = os.urandom(3 * PIECE + 77)
    fs.write(b"f", content)
    fs.link(b"f", b"g")
    fs.fs.xattrs.set(fs.node(b"f"), b"user.comment", b"kept")
    fs.change(b"f", Change(mtime_ns=10**18, mode=0o640))
    lower = fs.lower(b"f")
    before, old = lower.stat(), set(blocks(lower))
    old_blobs = {slot.blob for slot in slots_of(lower)}
    assert rekey(fs, b"f") is Outcome.DONE
    after = lower.stat()
    assert (after.st_ino, after.st_mtime_ns, after.st_mode, after.st_nlink, after.st_size) == (
        before.st_ino,
        before.st_mtime_ns,
        before.st_mode,
        2,
        before.st_size,
    )
    assert not old & set(blocks(lower))
    slots = slots_of(lower)
    assert len(slots) == 2
    assert not any(slot.previous or slot.blob in old_blobs for slot in slots)
    for again in (False, True):
        session = fs.lab.mount() if again else fs
        assert session.read(b"f") == session.read(b"g") == content
        assert session.fs.xattrs.get(session.node(b"f"), b"user.comment") == b"kept"


def test_the_old_dek_opens_nothing_any_more(fs: Session) -> None:
    """Old header, new blocks: what somebody has who kept the header."""
    fs.write(b"f", b"content" * 3000)
    lower = fs.lower(b"f")
    old = lower.read_bytes()
    rekey(fs, b"f")
    fs.lab.unmount()
    lower.write_bytes(old[:1024] + lower.read_bytes()[1024:])
    fs = fs.lab.mount()
    with pytest.raises(IntegrityError):
        fs.read(b"f")


def test_an_old_state_put_back_while_mounted_is_noticed(fs: Session) -> None:
    fs.write(b"f", b"content" * 3000)
    lower = fs.lower(b"f")
    old = lower.read_bytes()
    rekey(fs, b"f")
    fs.forget(fs.node(b"f"))
    lower.write_bytes(old)
    with pytest.raises((IntegrityError, OSError)):
        fs.read(b"f")


def test_beside_writers_and_readers(fs: Session) -> None:
    """Overwriting, appending, cutting and reading between the pieces; each changes what is done and what is not."""
    content = bytearray(os.urandom(4 * PIECE))
    fs.write(b"f", bytes(content))
    with fs.opened(b"f", write=True) as writer, fs.opened(b"f") as reader:

        def between(number: int) -> None:
            for offset in (100, 3 * PIECE + 5):
                content[offset : offset + 9000] = piece = os.urandom(9000)
                writer.write(offset, piece)
            if number == 2:
                content.extend(b"appended" * 9000)
                writer.write(4 * PIECE, b"appended" * 9000)
            if number == 3:
                del content[4 * PIECE - 1000 :]
                writer.truncate(4 * PIECE - 1000)
            assert read_all(reader) == content

        assert rekey(fs, b"f", between) is Outcome.DONE
        assert read_all(reader) == content
        writer.write(0, b"again")
        content[:5] = b"again"
    assert fs.read(b"f") == content
    assert fs.lab.mount().read(b"f") == content
    assert not any(slot.previous for slot in slots_of(fs.lab.mount().lower(b"f")))


def test_emptied_and_removed_meanwhile(fs: Session) -> None:
    fs.write(b"f", os.urandom(4 * PIECE))
    with fs.opened(b"f", write=True) as writer:
        rekey(fs, b"f", lambda _: writer.truncate(0))
        writer.write(0, b"new")
    assert fs.read(b"f") == b"new"
    fs.write(b"g", os.urandom(4 * PIECE))
    gone = [fs.unlink]
    rekey(fs, b"g", lambda _: gone and gone.pop()(b"g"))
    assert not fs.exists(b"g")
    fs.write(b"h", os.urandom(4 * PIECE))
    moved = [fs.rename]
    rekey(fs, b"h", lambda _: moved and moved.pop()(b"h", b"i"))
    assert len(fs.lab.mount().read(b"i")) == 4 * PIECE


def test_holes_stay_holes(fs: Session) -> None:
    with fs.created(b"f") as content:
        content.write(0, b"begin")
        content.write(10 * PIECE, b"middle")
        content.write(20 * PIECE + 5, b"end")
    lower = fs.lower(b"f")
    before, plain, taken = lower.read_bytes(), fs.read(b"f"), lower.stat().st_blocks
    assert rekey(fs, b"f") is Outcome.DONE
    after = lower.read_bytes()
    zero = bytes(B + 28)
    assert [one == zero for one in blocks(lower)] == [
        before[1024 + n * len(zero) :][: len(zero)] == zero for n in range(len(blocks(lower)))
    ]
    assert lower.stat().st_blocks == taken
    assert after != before
    assert fs.lab.mount().read(b"f") == plain


def test_empty_files(fs: Session) -> None:
    fs.write(b"f", b"")
    old = [slot.blob for slot in slots_of(fs.lower(b"f"))]
    assert rekey(fs, b"f") is Outcome.DONE
    assert not set(old) & {slot.blob for slot in slots_of(fs.lower(b"f"))}
    os.truncate(fs.lower(b"f"), 0)
    fs = fs.lab.mount()
    assert rekey(fs, b"f") is Outcome.EMPTY
    with fs.created(b"g") as content:
        assert rekey(fs, b"g") is Outcome.DONE
        content.write(0, b"content")
    assert fs.lab.mount().read(b"g") == b"content"


def test_another_key_and_rewrapped_in_the_middle(fs: Session) -> None:
    fs.write(b"f", b"content" * 50_000)
    other, third = new_key(fs.lab, "other"), new_key(fs.lab, "third")
    assert rekey(fs, b"f", to_key=other) is Outcome.DONE
    assert key_ids(fs.lower(b"f")) == {key_id(other)}
    assert rekey(fs, b"f", lambda number: rewrap_one(fs, b"f", third) if number == 2 else None) is Outcome.DONE
    assert key_ids(fs.lower(b"f")) == {key_id(third)}
    assert fs.lab.mount().read(b"f") == b"content" * 50_000


def test_what_was_cut_off_can_be_used_and_is_finished_later(lab: Lab) -> None:
    """Also by writers, a rewrap, and fsck; the previous key goes in the end."""

    def break_off(_number: int) -> None:
        raise KeyboardInterrupt

    fs = lab.mount()
    content = bytearray(os.urandom(4 * PIECE))
    fs.write(b"f", bytes(content))
    lower = fs.lower(b"f")
    old = blocks(lower)
    with pytest.raises(KeyboardInterrupt):
        rekey(fs, b"f", break_off)
    assert all(slot.previous for slot in slots_of(lower))
    assert blocks(lower)[0] != old[0]
    assert blocks(lower)[-1] == old[-1]
    fs = lab.mount()
    assert fs.fs.describe_file(fs.node(b"f").node_id)["rekey_unfinished"]
    assert fs.read(b"f") == content
    content[5000:5003] = b"new"
    fs.write(b"f", b"new", 5000)
    rewrap(fs, to_key=new_key(lab, "other"))
    fs = lab.mount()
    assert fs.read(b"f") == content
    assert rekey(fs, b"f") is Outcome.DONE
    assert not set(blocks(lower)) & set(old)
    assert not any(slot.previous for slot in slots_of(lower))
    assert lab.mount().read(b"f") == content


def test_damaged_blocks_are_told_and_keep_the_previous_key(fs: Session) -> None:
    fs.write(b"f", os.urandom(4 * PIECE))
    lower = fs.lower(b"f")
    good = lower.read_bytes()
    flip(lower, 1024 + 20 * (B + 28) + 50)
    with pytest.raises(IntegrityError, match="the first of them is 20"):
        rekey(fs, b"f")
    assert all(slot.previous for slot in slots_of(lower))
    # Somebody has a backup of the block: it can still be read, and everything else is under the new DEK.
    with open(lower, "r+b") as file:
        file.seek(1024 + 20 * (B + 28))
        file.write(good[1024 + 20 * (B + 28) :][: B + 28])
    assert len(fs.read(b"f")) == 4 * PIECE
    assert rekey(fs, b"f") is Outcome.DONE


def test_who_may_not(fs: Session) -> None:
    """Somebody else's file by the modes, and by the KMS: nothing has changed."""
    fs.write(b"f", b"content")
    raw = fs.lower(b"f").read_bytes()
    with pytest.raises(PermissionError):
        rekey(fs, b"f", asker=Asker(65_000, frozenset(), is_master=False))
    arn = new_key(fs.lab, "other")
    fs.lab.engine.disable_key(fs.lab.me, arn)
    with pytest.raises(EnvfsError):
        rekey(fs, b"f", to_key=arn)
    with pytest.raises(EnvfsError):
        rekey(fs, b"f", to_key=arn[:-1] + ("0" if arn[-1] != "0" else "1"))
    assert fs.lower(b"f").read_bytes() == raw


def test_a_full_disk_loses_nothing(fs: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each write in turn is refused."""
    content = os.urandom(3 * PIECE)
    real = os.pwrite
    for number in range(12):
        fs.write(b"f", content)
        left = number

        def refuse(fd: int, data: Any, offset: int) -> int:
            nonlocal left
            left -= 1
            if left == -1:
                raise OSError(28, "No space left on device")
            return real(fd, data, offset)

        monkeypatch.setattr(os, "pwrite", refuse)
        try:
            rekey(fs, b"f")
        except OSError as error:
            assert error.errno == 28  # noqa: PT017
        finally:
            monkeypatch.setattr(os, "pwrite", real)
        assert fs.read(b"f") == content
        fs = fs.lab.mount()
        assert fs.read(b"f") == content
        assert rekey(fs, b"f") is Outcome.DONE
        assert fs.read(b"f") == content


@pytest.mark.parametrize("what", ["rekey", "rewrap"])
def test_killed_at_any_moment(lab: Lab, what: str) -> None:
    """What is found is what was there; it can be used, and the second run completes it."""
    fs = lab.mount()
    prepare(fs)
    fs.write(b"big", bytes(range(256)) * 800)
    old = state_of(fs)
    lab.unmount()
    kept = lab.lower.with_name("prepared")
    os.rename(lab.lower, kept)
    other = new_key(lab, "other")

    def run(session: Session) -> None:
        if what == "rekey":
            assert rekey(session, b"big") is Outcome.DONE
        else:
            assert rewrap_one(session, b"big", other) is Outcome.DONE

    for count in range(100):
        fresh(lab, kept)
        ended = run_until(lab, run, count)
        fs = lab.mount()
        assert state_of(fs) == old, f"killed before call {count}"
        lower = fs.lower(b"big")
        if ended == DONE:
            break
        assert ended == DIED
        fs.write(b"big", b"!", 5)
        if what == "rekey":
            assert rekey(fs, b"big") is Outcome.DONE
        else:
            rewrap_one(fs, b"big", other)
            assert key_ids(lower) == {key_id(other)}
        assert not any(slot.previous for slot in slots_of(lower))
        assert len({slot.blob for slot in slots_of(lower)}) == 1
        assert fs.read(b"big") == (bytes(range(256)) * 800)[:5] + b"!" + (bytes(range(256)) * 800)[6:]
        lab.unmount()
    else:
        pytest.fail("it does not end")
    assert count > 3


def rewrap_one(fs: Session, path: bytes, to_key: str) -> Outcome:

    return Rewrapping(fs.fs.state, MASTER, fs.lab.me, to_key).one(entry_of(fs, path))
