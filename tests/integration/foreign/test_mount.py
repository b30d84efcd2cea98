"""A mount whose files have their keys in another KMS: what users see while it works, and while it does not."""

from __future__ import annotations

import errno
import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.foreign.faulty_kms import ALIAS, ARN, FaultyKms
from tests.foreign.moto_kms import client, moto_kms

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

    from tests.integration.foreign.conftest import WithCredentials
    from tests.integration.mounts import Mount

# What a new open waits for at most, by docs/KMS.md, and then some for a busy machine.
BOUND = 10 + 15


def errno_of(call: Callable[[], object]) -> str:
    began = time.monotonic()
    try:
        call()
    except OSError as error:
        assert time.monotonic() - began < BOUND
        return errno.errorcode[error.errno or 0]
    return "nothing"


@pytest.fixture
def mount(cloud: Callable[..., Mount], foreign: FaultyKms) -> Mount:
    return cloud(foreign.url, ALIAS)


def test_files_under_a_key_of_an_emulator_of_aws(
    cloud: Callable[..., Mount], keyed: WithCredentials, lower: Path
) -> None:
    with moto_kms() as url:
        aws = client(url)
        key = aws.create_key()["KeyMetadata"]["Arn"]  # moto knows disabled keys, and decrypts with them all the same
        mount = cloud(url, key)
        file = mount.path / "file"
        file.write_bytes(b"held elsewhere" * 1000)
        os.truncate(file, 14_000 - 1)
        os.mknod(mount.path / "made", 0o600)
        (mount.path / "directory").mkdir()
        (mount.path / "directory" / "made").write_text("x")
        mount.remount()
        assert file.read_bytes() == (b"held elsewhere" * 1000)[:-1]
        assert (mount.path / "directory" / "made").read_text() == "x"
        assert file.stat().st_size == 13_999
        assert len(file.read_bytes()) == 13_999
        shown = keyed("key", "show", "alias/cloud").stdout
        assert key in shown
        assert url in shown
        mount.umount()
        keyed("fsck", "--read-data", lower)
        aws.close()


def test_each_failure_of_the_other_kms_is_an_errno_within_its_time(mount: Mount, foreign: FaultyKms) -> None:
    file = mount.path / "file"
    file.write_text("held elsewhere")
    for fault, expected in (
        ("denied", "EACCES"),
        ("disabled", "ENOKEY"),
        ("throttled", "EAGAIN"),
        ("wrong key", "EIO"),
        ("wrong plaintext", "EIO"),
    ):
        foreign.fault = fault
        assert errno_of(file.read_bytes) == expected, fault
    foreign.fault = "denied"
    assert errno_of((mount.path / "new").touch) == "EACCES"
    assert errno_of(lambda: os.truncate(file, 3)) == "EACCES"
    assert not (mount.path / "new").exists()
    foreign.fault = None
    assert file.read_text() == "held elsewhere"
    foreign.fault = "broken"
    assert errno_of(file.read_bytes) == "EHOSTUNREACH"


def test_open_files_go_on_and_new_opens_fail_while_nobody_listens(mount: Mount, foreign: FaultyKms) -> None:
    file = mount.path / "file"
    file.write_bytes(b"a" * 100_000)
    mount.remount()
    with file.open("r+b", buffering=0) as handle:
        foreign.stop()
        assert os.pread(handle.fileno(), 5, 50_000) == b"aaaaa"
        os.pwrite(handle.fileno(), b"bbbbb", 50_000)
        os.pwrite(handle.fileno(), b"c" * 10_000, 100_000)
        os.fsync(handle.fileno())
        assert errno_of(file.read_bytes) == "EHOSTUNREACH"
        assert errno_of((mount.path / "new").touch) == "EHOSTUNREACH"
        assert os.pread(handle.fileno(), 7, 49_999) == b"abbbbba"
    # A mount needs nothing of the foreign KMS, and neither do names and attributes.
    mount.remount()
    assert file.stat().st_size == 110_000
    file.rename(mount.path / "renamed")
    foreign.start()
    until = time.monotonic() + BOUND
    while errno_of((mount.path / "renamed").read_bytes) != "nothing":
        assert time.monotonic() < until
        time.sleep(0.2)
    assert (mount.path / "renamed").read_bytes() == b"a" * 50_000 + b"bbbbb" + b"a" * 49_995 + b"c" * 10_000


def test_an_unlock_while_nobody_listens_gives_open_files_back_when_somebody_does(
    mount: Mount, foreign: FaultyKms, keyed: WithCredentials
) -> None:
    file = mount.path / "file"
    file.write_bytes(b"a" * 100_000)
    with file.open("r+b", buffering=0) as handle:
        assert os.pwrite(handle.fileno(), b"dirty", 0) == 5
        keyed("lock", mount.path)
        foreign.stop()
        keyed("unlock", mount.path)
        assert errno_of(lambda: os.pread(handle.fileno(), 5, 0)) == "EHOSTUNREACH"
        assert errno_of(file.read_bytes) == "EHOSTUNREACH"
        time.sleep(1)  # several looks at who may keep what open
        assert errno_of(lambda: os.pwrite(handle.fileno(), b"later", 0)) == "EHOSTUNREACH"
        foreign.start()
        until = time.monotonic() + BOUND
        while errno_of(lambda: os.pread(handle.fileno(), 5, 0)) != "nothing":
            assert time.monotonic() < until
            time.sleep(0.2)
        assert os.pread(handle.fileno(), 7, 0) == b"dirtyaa"
        assert os.pwrite(handle.fileno(), b"later", 5) == 5
    mount.remount()
    assert file.read_bytes()[:12] == b"dirtylateraa"


def test_while_one_waits_others_are_served(mount: Mount, foreign: FaultyKms) -> None:
    slow, quick = mount.path / "slow", mount.path / "quick"
    slow.write_text("slow")
    quick.write_text("quick")
    mount.remount()
    with quick.open("r+b", buffering=0) as handle:
        foreign.fault = "silent"
        before = len(foreign.requests)
        outcome: list[str] = []
        waiting = threading.Thread(target=lambda: outcome.append(errno_of(slow.read_bytes)))
        waiting.start()
        while len(foreign.requests) == before:
            assert waiting.is_alive(), outcome
            time.sleep(0.01)
        served = 0
        while waiting.is_alive() and served < 50:
            os.pwrite(handle.fileno(), b"Q", 0)
            os.fsync(handle.fileno())
            assert os.listdir(mount.path)
            os.mkdir(mount.path / f"directory{served}")
            served += 1
        assert waiting.is_alive(), "nobody was served before the other one's time was over"
        waiting.join(BOUND)
        assert outcome == ["ETIMEDOUT"]
        # And now nobody waits for it again.
        before = len(foreign.requests)
        assert errno_of(slow.read_bytes) == "ETIMEDOUT"
        assert len(foreign.requests) == before


def test_what_the_other_kms_is_asked(
    mount: Mount, foreign: FaultyKms, unix_users: Callable[..., Any], run_as: Callable[..., Any]
) -> None:
    foreign.requests.clear()
    for name in ("one", "two"):
        (mount.path / name).write_text(name)
    made = [request for operation, request in foreign.requests if operation == "Encrypt"]
    assert all(set(request["EncryptionContext"]) == {"envfs:volume", "envfs:file"} for request in made)
    assert len({request["EncryptionContext"]["envfs:file"] for request in made}) == 2
    assert {request["KeyId"] for request in made} == {ARN}
    # Who is denied here is not asked for there.
    (alice,) = unix_users("alice")
    (mount.path / "one").chmod(0o644)
    foreign.requests.clear()
    assert run_as(alice, lambda: errno_of((mount.path / "one").read_bytes)) == "EACCES"
    assert foreign.requests == []
