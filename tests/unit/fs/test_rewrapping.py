"""Rewrapping: nothing is left of the old blob, nothing else changes, and who may not does not."""

from __future__ import annotations

import errno
import json
import os
import stat
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import trio

from envfs.errors import AccessDenied, ConfigError, Disabled, EnvfsError, IntegrityError, InvalidState
from envfs.format.blob import Blob
from envfs.fs.attributes import Change
from envfs.fs.errno_table import errno_of
from envfs.fs.rewrapping import Outcome, Rewrapping
from envfs.fs.walking import Asker, Walk
from envfs.kms.engine import Engine
from envfs.kms.rootkey import KeyFileUnlock
from envfs.kms.schema import BACKING_KEYS
from tests.unit.fs.lab import Session, flip, slots_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.fs.lab import Lab

MASTER = Asker(0, frozenset(), is_master=True)
LONG = b"n" * 255


def new_key(lab: Lab, alias: str) -> str:
    arn = lab.engine.create_key(lab.me).arn
    lab.engine.create_alias(lab.me, f"alias/{alias}", arn)
    return arn


def rewrap(fs: Session, path: bytes = b"", to_key: str | None = None, asker: Asker = MASTER) -> dict[str, Any]:
    """Everything at and below a path; outcomes by path, errors among them."""
    found: dict[str, Any] = {}
    one = Rewrapping(fs.fs.state, asker, fs.lab.me, to_key)

    async def problem(at: str, error: Exception) -> None:
        found[at] = error

    async def work() -> None:
        async for entry in Walk(fs.fs.state, fs.fs.tree, asker, problem).files(fs.node(path)):
            try:
                found[entry.path] = one.one(entry)
            except (EnvfsError, OSError) as error:
                found[entry.path] = error

    trio.run(work)
    return found


def key_ids(lower: Path) -> set[bytes]:
    """Of every blob that stands in the header."""
    return {Blob.parse(slot.blob).key_id for slot in slots_of(lower)}


def key_id(arn: str) -> bytes:
    return bytes.fromhex(arn.rpartition("/")[2].replace("-", ""))


def test_both_slots_get_the_new_blob_and_nothing_else_changes(fs: Session) -> None:
    fs.write(b"f", b"content" * 3000)
    fs.change(b"f", Change(mtime_ns=10**18, mode=0o2710))
    lower = fs.lower(b"f")
    before, content = lower.stat(), lower.read_bytes()[1024:]
    old = {Blob.parse(slot.blob).serialise() for slot in slots_of(lower)}
    arn = new_key(fs.lab, "other")
    assert rewrap(fs, to_key=arn) == {"/f": Outcome.DONE}
    assert key_ids(lower) == {key_id(arn)}
    assert len(slots_of(lower)) == 2
    assert all(blob not in lower.read_bytes() for blob in old)
    after = lower.stat()
    assert (after.st_mtime_ns, after.st_mode, after.st_ino) == (before.st_mtime_ns, before.st_mode, before.st_ino)
    assert lower.read_bytes()[1024:] == content
    assert fs.read(b"f") == b"content" * 3000
    assert fs.lab.mount().read(b"f") == b"content" * 3000


def test_a_second_time_there_is_nothing_to_do(fs: Session) -> None:
    fs.write(b"f", b"content")
    arn = new_key(fs.lab, "other")
    rewrap(fs, to_key=arn)
    raw = fs.lower(b"f").read_bytes()
    assert rewrap(fs, to_key=arn) == {"/f": Outcome.CURRENT}
    assert fs.lower(b"f").read_bytes() == raw


def test_rotation_touches_no_file_and_rewrap_brings_the_newest_material(lab: Lab) -> None:
    fs = lab.mount()
    arn = new_key(lab, "mine")
    fs.fs.set_directory_key(1, arn)
    fs.write(b"f", b"content")
    raw = fs.lower(b"f").read_bytes()
    lab.engine.rotate_key_on_demand(lab.me, arn)
    assert fs.lower(b"f").read_bytes() == raw
    assert fs.read(b"f") == b"content"
    old = {Blob.parse(slot.blob).backing_key_id for slot in slots_of(fs.lower(b"f"))}
    assert rewrap(fs) == {"/f": Outcome.DONE}
    new = {Blob.parse(slot.blob).backing_key_id for slot in slots_of(fs.lower(b"f"))}
    assert len(new) == 1
    assert not new & old
    assert lab.mount().read(b"f") == b"content"


def test_a_file_becomes_one_of_its_directory(fs: Session) -> None:
    """Key and labels, also below, under long names, and behind what is no file."""
    arn = new_key(fs.lab, "other")
    directory = fs.mkdir(b"d")
    fs.mkdir(b"d/e")
    for path in (b"d/f", b"d/e/f", b"d/" + LONG):
        fs.write(path, path)
    fs.symlink(b"d/link", b"f")
    fs.mknod(b"d/fifo", stat.S_IFIFO | 0o600)
    fs.fs.set_directory_key(directory.node_id, arn)
    assert directory.directory is not None
    directory.directory.labels = {"project": "apollo"}
    found = rewrap(fs, b"d")
    assert set(found.values()) == {Outcome.DONE}
    assert len(found) == 3
    for path in (b"d/f", b"d/e/f", b"d/" + LONG):
        assert key_ids(fs.lower(path)) == {key_id(arn)}
        assert fs.fs.describe_file(fs.node(path).node_id)["labels"] == {"project": "apollo"}
        assert fs.read(path) == path


@pytest.mark.parametrize("write", [True, False])
def test_open_files_keep_the_new_blob(fs: Session, *, write: bool) -> None:
    """Also in the headers that are written later, by the last close, a sync, or a length bound that is raised late."""
    arn = new_key(fs.lab, "other")
    fs.write(b"f", b"content")
    with fs.opened(b"f", write=write) as content:
        if write:
            content.write(0, b"CONTENT" * 1000)
        assert rewrap(fs, to_key=arn) == {"/f": Outcome.DONE}
        if write:
            content.write(9000, b"more")
            content.record_length()
    assert key_ids(fs.lower(b"f")) == {key_id(arn)}
    with fs.opened(b"f", write=True) as content:
        content.write(0, b"again")
    fs.lab.unmount()
    assert key_ids(fs.lab.mount().lower(b"f")) == {key_id(arn)}


def test_a_file_that_has_no_header_yet(fs: Session) -> None:
    arn = new_key(fs.lab, "other")
    with fs.created(b"f") as content:
        assert rewrap(fs, to_key=arn) == {"/f": Outcome.DONE}
        content.write(0, b"content")
    assert key_ids(fs.lower(b"f")) == {key_id(arn)}
    os.truncate(fs.lower(b"f"), 0)
    fs = fs.lab.mount()
    assert rewrap(fs, to_key=arn) == {"/f": Outcome.EMPTY}


def test_a_length_bound_that_is_still_to_be_raised(disk_lab: Lab) -> None:
    fs = disk_lab.mount()
    arn = new_key(disk_lab, "other")
    fs.write(b"f", b"content" * 100)
    assert len(fs.fs.state.promises) == 1
    assert rewrap(fs, to_key=arn) == {"/f": Outcome.DONE}
    disk_lab.unmount()
    fs = disk_lab.mount()
    assert key_ids(fs.lower(b"f")) == {key_id(arn)}
    assert slots_of(fs.lower(b"f"))[0].length_bound == 700
    assert fs.read(b"f") == b"content" * 100


def test_several_names_keep_their_key_unless_one_is_named(fs: Session) -> None:
    """Whoever can write the lower directory can put a name of such a file into any directory."""
    other, fine = new_key(fs.lab, "other"), new_key(fs.lab, "fine")
    fs.write(b"f", b"content")
    before = key_ids(fs.lower(b"f"))
    directory = fs.mkdir(b"d")
    fs.link(b"f", b"d/g")
    fs.fs.set_directory_key(directory.node_id, other)
    assert set(rewrap(fs, b"d").values()) == {Outcome.CURRENT}
    assert key_ids(fs.lower(b"f")) == before
    assert sorted(rewrap(fs, to_key=fine).items()) in (
        [("/d/g", one), ("/f", other)]
        for one, other in ((Outcome.DONE, Outcome.CURRENT), (Outcome.CURRENT, Outcome.DONE))
    )
    assert key_ids(fs.lower(b"f")) == {key_id(fine)}
    assert fs.read(b"d/g") == b"content"


def test_what_fails_is_told_and_the_others_go_on(fs: Session) -> None:
    """A disabled key, a damaged header, a file that was moved in the lower directory."""
    other, disabled = new_key(fs.lab, "other"), new_key(fs.lab, "disabled")
    for name in (b"damaged", b"fine", b"moved"):
        fs.write(name, name)
    directory = fs.mkdir(b"d")
    fs.fs.set_directory_key(directory.node_id, disabled)
    fs.write(b"d/f", b"content")
    lab = fs.lab
    damaged, moved = fs.lower(b"damaged"), fs.lower(b"moved")
    inside = fs.lower(b"d/f").parent
    lab.unmount()
    for offset in (200, 700):
        flip(damaged, offset)
    os.rename(moved, inside / moved.name)
    lab.engine.disable_key(lab.me, disabled)
    fs = lab.mount()
    found = rewrap(fs, to_key=other)
    assert found.pop("/fine") is Outcome.DONE
    assert isinstance(found.pop("/d/f"), Disabled)
    assert isinstance(found.pop("/damaged"), (IntegrityError, AccessDenied))
    assert found == {}  # a name of another directory is no name of this one


def test_moved_within_its_directory(fs: Session) -> None:
    """Names swapped in the lower directory: a rewrap would make the wrong file one of the directory."""
    fs.write(b"a", b"aaa")
    fs.write(b"b", b"bbb")
    first, second = fs.lower(b"a"), fs.lower(b"b")
    lab = fs.lab
    lab.unmount()
    aside = first.with_name("aside")
    os.rename(first, aside)
    os.rename(second, first)
    os.rename(aside, second)
    found = rewrap(lab.mount(), to_key=new_key(lab, "other"))
    assert all(isinstance(error, IntegrityError) for error in found.values())
    assert len(found) == 2


def test_only_what_is_his(fs: Session) -> None:
    """By the modes: other people's files, and directories that he may not list, are left alone."""
    arn = new_key(fs.lab, "other")
    fs.mkdir(b"closed", 0o700)
    fs.write(b"closed/f", b"content")
    fs.write(b"f", b"content")
    stranger = Asker(65_000, frozenset({65_000}), is_master=False)
    found = rewrap(fs, to_key=arn, asker=stranger)
    assert set(found) == {"/f", "/closed"}
    assert all(isinstance(error, PermissionError) for error in found.values())
    assert key_ids(fs.lower(b"f")) != {key_id(arn)}


def test_who_may_rewrap_need_not_decrypt(lab: Lab) -> None:
    """ReEncrypt is enough, nothing else is; each file leaves one record."""
    fs = lab.mount()
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"AWS": lab.me.arn}, "Action": "kms:*", "Resource": "*"},
            {"Effect": "Deny", "Principal": "*", "Action": "kms:Decrypt", "Resource": "*"},
        ],
    }
    arn = lab.engine.create_key(lab.me).arn
    other = new_key(lab, "other")
    fs.fs.set_directory_key(1, arn)
    fs.write(b"f", b"content")
    lab.engine.put_key_policy(lab.me, arn, json.dumps(policy))
    with pytest.raises(AccessDenied):
        fs.read(b"f")
    assert rewrap(fs, to_key=other) == {"/f": Outcome.DONE}
    assert fs.read(b"f") == b"content"
    denied = {"Effect": "Deny", "Principal": "*", "Action": "kms:ReEncryptTo", "Resource": "*"}
    policy["Statement"] = [policy["Statement"][0], denied]
    lab.engine.put_key_policy(lab.me, arn, json.dumps(policy))
    assert isinstance(rewrap(fs, to_key=arn)["/f"], AccessDenied)
    trail = b"".join(path.read_bytes() for path in (lab.home / "audit").iterdir())
    assert trail.count(b'"eventName":"ReEncrypt"') == 2


def test_labels_that_do_not_fit(fs: Session) -> None:
    fs.write(b"f", b"content")
    raw = fs.lower(b"f").read_bytes()
    root = fs.node(b"").directory
    assert root is not None
    root.labels = {"a": "x" * 300}
    assert isinstance(rewrap(fs)["/f"], ConfigError)
    assert fs.lower(b"f").read_bytes() == raw
    with fs.opened(b"f", write=True):
        assert isinstance(rewrap(fs)["/f"], ConfigError)
    assert fs.read(b"f") == b"content"


def test_an_old_header_is_refused_afterwards(fs: Session) -> None:
    """Also where the kernel has forgotten the file meanwhile."""
    fs.write(b"f", b"content")
    lower = fs.lower(b"f")
    old = lower.read_bytes()
    assert rewrap(fs, to_key=new_key(fs.lab, "other")) == {"/f": Outcome.DONE}
    fs.forget(fs.node(b"f"))
    lower.write_bytes(old)
    with pytest.raises((IntegrityError, OSError)):
        fs.read(b"f")


def test_a_damaged_slot_is_mended(fs: Session) -> None:
    fs.write(b"f", b"content")
    lower = fs.lower(b"f")
    fs.lab.unmount()
    newest = slots_of(lower)[0]
    position = lower.read_bytes()[128:1024].index(replace(newest).blob) // 448
    flip(lower, 128 + 448 * position + 420)
    fs = fs.lab.mount()
    assert rewrap(fs, to_key=new_key(fs.lab, "other")) == {"/f": Outcome.DONE}
    assert len(key_ids(lower)) == 1
    assert fs.read(b"f") == b"content"


def later(lab: Lab, days: int) -> Engine:
    """The KMS as another process has it open, in some days."""
    now = time.time() + days * 86_400
    return Engine.open(lab.home, KeyFileUnlock(lab.home / "root.key"), clock=lambda: now)


def test_automatic_rotation_while_mounted(lab: Lab) -> None:
    """No file is touched, what is open and what is opened again reads on, and new files get the new material."""
    arn = new_key(lab, "mine")
    lab.engine.enable_key_rotation(lab.me, arn, 90)
    fs = lab.mount()
    fs.fs.set_directory_key(1, arn)
    fs.write(b"f", b"content")
    raw = fs.lower(b"f").read_bytes()
    with fs.opened(b"f") as content:
        with later(lab, 91) as maintainer:
            maintainer.maintain()
        assert bytes(content.read(0, 7)) == b"content"
        assert fs.read(b"f") == b"content"
    assert fs.lower(b"f").read_bytes() == raw
    fs.write(b"g", b"content")
    old, new = (Blob.parse(slots_of(fs.lower(name))[0].blob).backing_key_id for name in (b"f", b"g"))
    assert old != new
    assert rewrap(fs) == {"/f": Outcome.DONE, "/g": Outcome.CURRENT}
    assert Blob.parse(slots_of(fs.lower(b"f"))[0].blob).backing_key_id == new
    assert lab.mount().read(b"f") == b"content"


def test_the_end_of_a_key(lab: Lab) -> None:
    """ENOKEY for ever, also after a mount anew; nothing of the material is left in any file of the KMS."""
    arn = new_key(lab, "doomed")
    fs = lab.mount()
    directory = fs.mkdir(b"d")
    fs.fs.set_directory_key(directory.node_id, arn)
    fs.write(b"d/f", b"content")
    fs.write(b"kept", b"kept")
    lab.engine.rotate_key_on_demand(lab.me, arn)
    rows = lab.engine._store.find(BACKING_KEYS, key_id=key_id(arn))
    material = [row.wrapped for row in rows]
    # What the store never has, but a leak of it would.
    material += [bytes(lab.engine._keyring._open(row).expose()) for row in rows]
    lab.engine.schedule_key_deletion(lab.me, arn, 7)
    with pytest.raises(InvalidState) as pending:
        fs.read(b"d/f")
    assert errno_of(pending.value) == errno.ENOKEY
    with later(lab, 8) as maintainer:
        maintainer.maintain()
    for _ in range(2):
        with pytest.raises(EnvfsError) as gone:
            lab.mount().read(b"d/f")
        assert errno_of(gone.value) == errno.ENOKEY
    fs = lab.mount()
    assert fs.read(b"kept") == b"kept"
    with pytest.raises(EnvfsError) as gone:
        fs.write(b"d/new", b"content")
    assert errno_of(gone.value) == errno.ENOKEY
    assert isinstance(rewrap(fs, b"d")["/d/f"], EnvfsError)
    lab.unmount()
    lab.engine.close()
    lab.reopen_engine()
    lab.engine.maintain()
    contents = {path.name: path.read_bytes() for path in lab.home.rglob("*") if path.is_file()}
    assert "kms.db" in contents
    assert [name for name, raw in contents.items() if any(piece in raw for piece in material)] == []
