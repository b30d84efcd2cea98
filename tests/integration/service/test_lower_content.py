"""`envfs cat` and `envfs decrypt`: lower files without a mount, damaged, moved, replaced and raced; and what somebody
gets out of the KMS's socket who forges what he sends.
"""

from __future__ import annotations

import base64
import json
import os
import random
import shutil
import stat
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from envfs.api.client import SocketClient
from envfs.cli.main import run
from envfs.crypto.aead import Suite
from envfs.errors import AccessDenied, Validation
from envfs.format.block import BlockCodec
from envfs.format.geometry import HEADER_SIZE, Geometry
from envfs.format.header import Slot, content_key, header_key, parse_header_area
from envfs.service.kms_socket import find_sockets
from envfs.service.lower_reader import _find_root, _locate
from tests.integration.users import TIMEOUT

if TYPE_CHECKING:
    from tests.integration.command import Envfs
    from tests.integration.mounts import Mount
    from tests.integration.users import UnixUser

CONTENT = random.Random(3).randbytes(700_001)
BLOCK = 4096
SEALED = BLOCK + 28


def lower_of(mount: Mount, path: Path) -> Path:
    """The lower file of a file in a mount: the one with its inode number."""
    number = path.stat().st_ino
    return next(found for found in mount.lower.rglob("*") if found.lstat().st_ino == number)


def cat(envfs: Envfs, path: Path, **who: Any) -> tuple[int, bytes, str]:
    done: Any = envfs("cat", path, check=False, text=False, **who)
    return done.returncode, done.stdout, done.stderr.decode()


Cat = Callable[..., tuple[int, bytes]]


@pytest.fixture
def cat_here(kms_home: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Cat:
    """`envfs cat` in this process, which is quicker: exit code and output."""
    monkeypatch.setenv("ENVFS_HOME", str(kms_home))

    def call(path: Path, *more: str) -> tuple[int, bytes]:
        capfdbinary.readouterr()
        code = run(["cat", os.fspath(path), *more])
        return int(code), capfdbinary.readouterr().out

    return call


def decryptions(envfs: Envfs, *which: str) -> list[dict[str, Any]]:
    lines = envfs("audit", "query", "--event", "Decrypt", "--json", *which).stdout.splitlines()
    return [json.loads(line) for line in lines]


def write(path: Path, content: bytes) -> Path:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.write(fd, content)
    os.fsync(fd)
    os.close(fd)
    return path


def test_content_comes_out_mounted_or_not_and_is_recorded(
    envfs: Envfs, mounted: Callable[..., Mount], directory: Callable[..., Path], cat_here: Cat
) -> None:
    mount = mounted()
    (mount.path / "deep").mkdir()
    name = "n" * 255
    lower = lower_of(mount, write(mount.path / "deep" / name, CONTENT))
    empty = mount.path / "empty"
    empty.touch()
    empty_lower = lower_of(mount, empty)
    assert cat_here(lower) == (0, CONTENT)
    mount.umount()
    assert cat_here(lower, "--offset", "4000", "--length", "300000") == (0, CONTENT[4000:304000])
    assert cat_here(lower, "--offset", "700001") == (0, b"")
    assert cat_here(empty_lower) == (0, b"")
    out = directory("out") / "plain"
    out.write_bytes(b"older")
    out.chmod(0o644)
    envfs("decrypt", lower, "-o", out)
    assert out.read_bytes() == CONTENT
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    records = decryptions(envfs)
    unix = records[-1]["envfs"]
    assert (unix["path"], unix["access"], unix["viaService"]) == (f"/deep/{name}", "read", "envfs")


def test_damage_ends_it_after_the_last_good_block_and_leaves_no_file(
    envfs: Envfs, mounted: Callable[..., Mount], directory: Callable[..., Path], cat_here: Cat
) -> None:
    mount = mounted()
    lower = lower_of(mount, write(mount.path / "f", CONTENT))
    mount.umount()
    whole = lower.read_bytes()
    out = directory("out")

    def damaged(raw: bytes, printed: bytes) -> None:
        lower.write_bytes(raw)
        assert cat_here(lower) == (5, printed)

    swapped = bytearray(whole)
    at = HEADER_SIZE + 100 * SEALED
    swapped[at : at + SEALED], swapped[at + SEALED : at + 2 * SEALED] = (
        whole[at + SEALED : at + 2 * SEALED],
        whole[at : at + SEALED],
    )
    damaged(bytes(swapped), CONTENT[: 100 * BLOCK])
    done = envfs("decrypt", lower, "-o", out / "plain", check=False)
    assert (done.returncode, "next: envfs fsck" in done.stderr) == (5, True)
    assert os.listdir(out) == []
    damaged(whole[: HEADER_SIZE + 3 * SEALED], b"")  # cut: known before anything is printed
    damaged(whole[:HEADER_SIZE] + bytes(len(whole) - HEADER_SIZE), b"")  # zeros that no header calls a hole
    damaged(bytes(HEADER_SIZE) + whole[HEADER_SIZE:], b"")


def test_only_a_file_that_stands_where_it_belongs(
    envfs: Envfs, mounted: Callable[..., Mount], directory: Callable[..., Path], cat_here: Cat
) -> None:
    mount = mounted()
    for name in ("one", "two"):
        (mount.path / name).mkdir()
    lower = lower_of(mount, write(mount.path / "one" / "f", CONTENT))
    other = lower_of(mount, write(mount.path / "two" / "f", b"something else"))
    mount.umount()
    out = directory("out")
    copied = Path(shutil.copy(lower, out))
    assert cat_here(copied)[0] == 3  # no volume above it
    shutil.copy(lower, lower.with_name("AAAA"))  # another name
    assert cat_here(lower.with_name("AAAA"))[0] == 5
    shutil.copy(lower, other.parent / lower.name)  # the same name in another directory
    assert cat_here(other.parent / lower.name)[0] == 5
    shutil.copy(lower, other)  # over another file
    assert cat_here(other) == (5, b"")
    link = lower.with_name("BBBB")
    link.symlink_to(lower.name)
    os.mkfifo(lower.with_name("CCCC"))
    for name, code in (("BBBB", 3), ("CCCC", 3), ("envfs.dir", 3), ("nothing", 8)):
        assert cat_here(lower.with_name(name))[0] == code, name
    (mount.lower / "DDDD").symlink_to(lower.parent.name)  # a symlink on the way leads to where the file really is
    assert cat_here(mount.lower / "DDDD" / lower.name) == (0, CONTENT)
    for target in (mount.lower / "plain", link):
        done = envfs("decrypt", lower, "-o", target, check=False)
        assert (done.returncode, "lies in a lower directory" in done.stderr) == (3, True)


def test_beside_writers_and_renames_it_is_one_state_or_an_error(
    envfs: Envfs, mounted: Callable[..., Mount], directory: Callable[..., Path], cat_here: Cat
) -> None:
    mount = mounted("nowriteback")
    states = [bytes([number]) * 300_000 for number in (1, 2)]
    path = write(mount.path / "f", states[0])
    lower, ends = lower_of(mount, path), threading.Event()

    def disturb() -> None:
        turn = 0
        while not ends.wait(0.02):
            turn += 1
            fd = os.open(mount.path / "f", os.O_WRONLY)
            os.pwrite(fd, states[turn % 2], 0)
            os.close(fd)
            os.rename(mount.path / "f", mount.path / "g")
            os.rename(mount.path / "g", mount.path / "f")

    writer = threading.Thread(target=disturb)
    writer.start()
    out = directory("out") / "plain"
    codes = set()
    try:
        for _ in range(4):
            done = envfs("decrypt", lower, "-o", out, check=False)
            codes.add(done.returncode)
            assert done.returncode in {0, 5, 6, 8}, done.stderr
            assert "Traceback" not in done.stderr
            if done.returncode == 0:
                assert out.read_bytes() in states
    finally:
        ends.set()
        writer.join()
    assert codes != {5}, "a writer is taken for damage"
    assert cat_here(lower) == (0, path.read_bytes())


class Stranger(NamedTuple):
    """Alice may use a key and read a copy of LOWER; the KMS is root's, who serves it (the mount does)."""

    alice: UnixUser
    mount: Mount
    copy: Path
    key: str
    mine: Path
    others: Path


POLICY = """{"Version": "2012-10-17", "Statement": [
  {"Effect": "Allow", "Principal": {"AWS": "arn:envfs:iam::000000000000:root"}, "Action": "kms:*", "Resource": "*"},
  {"Effect": "%s", "Principal": {"AWS": "arn:envfs:iam::000000000000:user/%s"},
   "Action": ["kms:Decrypt", "kms:GenerateDataKey"], "Resource": "*", "Condition": %s}%s]}"""


def put_policy(envfs: Envfs, stranger: Stranger, condition: str, effect: str = "Allow", more: str = "") -> None:
    text = POLICY % (effect, stranger.alice.name, condition, more)
    envfs("key", "policy", "put", stranger.key, "/dev/stdin", input=text)


@pytest.fixture
def stranger(
    envfs: Envfs,
    mounted: Callable[..., Mount],
    unix_users: Callable[..., list[UnixUser]],
    directory: Callable[..., Path],
) -> Stranger:
    (alice,) = unix_users("alice")
    mount = mounted("allow_other")
    key = json.loads(envfs("key", "create", "--alias", "hers", "--user", alice.name, "--json").stdout)["key_id"]
    envfs("key", "create", "--alias", "closed", "--user", "root")
    for name in ("hers", "closed"):
        (mount.path / name).mkdir()
        envfs("dir", "set-key", mount.path / name, f"alias/{name}")
    mine = lower_of(mount, write(mount.path / "hers" / "f", CONTENT))
    others = lower_of(mount, write(mount.path / "closed" / "f", b"not hers" * 1000))
    copy = directory("copy", owner=alice) / "v"
    shutil.copytree(mount.lower, copy)
    subprocess.run(["chown", "-R", f"{alice.uid}:{alice.gid}", copy], check=True, timeout=TIMEOUT)
    where = [copy / path.relative_to(mount.lower) for path in (mine, others)]
    return Stranger(alice, mount, copy, key, *where)


def test_through_the_socket_she_reads_what_the_policy_lets_her(
    envfs: Envfs, stranger: Stranger, kms_home: Path, directory: Callable[..., Path]
) -> None:
    who: dict[str, Any] = {"user": stranger.alice, "home": kms_home}
    assert cat(envfs, stranger.mine, **who) == (0, CONTENT, "")
    code, printed, told = cat(envfs, stranger.others, **who)
    assert (code, printed) == (4, b"")
    assert "not hers" not in told
    out = stranger.copy.parent / "plain"
    envfs("decrypt", stranger.mine, "-o", out, **who)
    assert out.read_bytes() == CONTENT
    # Of a path that can only be claimed, no Allow makes use, and every Deny.
    anywhere = '{"StringLike": {"envfs:Path": "*"}}'
    nowhere = '{"StringEquals": {"envfs:Path": "/nowhere"}}'
    via = '{"StringEquals": {"kms:ViaService": "envfs", "envfs:Access": "read"}}'
    allow = POLICY.split("\n")[2:]
    put_policy(envfs, stranger, via)
    assert cat(envfs, stranger.mine, **who)[0] == 0
    put_policy(envfs, stranger, anywhere)
    code, printed, told = cat(envfs, stranger.mine, **who)
    assert (code, printed, "envfs:Path" in told) == (4, b"", True)
    statement = "\n".join(allow).removesuffix("%s]}") % ("Allow", stranger.alice.name, via)
    put_policy(envfs, stranger, nowhere, "Deny", ",\n" + statement)
    assert cat(envfs, stranger.mine, **who)[0] == 4
    # In the mount the path is proven.
    os.chown(stranger.mount.path / "hers" / "f", stranger.alice.uid, stranger.alice.gid)
    done = envfs("export", stranger.mount.path / "hers", stranger.copy.parent / "out", user=stranger.alice, check=False)
    assert done.returncode == 0, done.stderr
    records = decryptions(envfs, "--user", stranger.alice.name)
    claimed = [record["envfs"] for record in records if record["envfs"].get("pathMayBeFormer")]
    assert {unix["path"] for unix in claimed} == {"/hers/f", "/closed/f"}
    assert {unix["uid"] for unix in claimed} == {stranger.alice.uid}


def text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def request_for(path: Path, cipher: bytes | None = None, **changed: object) -> dict[str, Any]:
    fd, evidence = _locate(path, *_find_root(path))
    os.close(fd)
    raw = path.read_bytes()
    return {
        "VolumeFile": text(evidence.volume_file),
        "Directories": [{"Name": text(name), "File": text(file)} for name, file in evidence.steps],
        "Name": text(evidence.cipher_name),
        "Header": text(raw[:HEADER_SIZE]),
        "Blocks": text(raw[HEADER_SIZE : HEADER_SIZE + 2 * SEALED] if cipher is None else cipher),
        **changed,
    }


def test_through_the_socket_nothing_that_she_forges_leads_further(
    stranger: Stranger, kms_home: Path, run_as: Callable[..., Any]
) -> None:
    (socket_path,) = find_sockets(kms_home)

    def ask(request: dict[str, Any], target: str = "EnvfsKms.OpenBlocks") -> dict[str, Any]:
        def call() -> dict[str, Any]:
            with SocketClient(socket_path) as client:
                return client.call(target, request)

        return dict(run_as(stranger.alice, call))

    mine, others = request_for(stranger.mine), request_for(stranger.others)
    answer = ask(mine)
    assert set(answer) == {"Slot", "Plaintext"}  # and no key
    assert base64.b64decode(answer["Plaintext"]) == CONTENT[: 2 * BLOCK]
    with pytest.raises(AccessDenied):
        ask(others)

    # Blocks of another file under a header of hers.
    spliced = ask({**mine, "Blocks": others["Blocks"]})
    assert (base64.b64decode(spliced["Plaintext"]), spliced["DamagedBlock"]) == (b"", 0)

    # A way, a name, a volume, a place of something else.
    damaged = bytearray(base64.b64decode(mine["VolumeFile"]))
    damaged[30] ^= 1
    other_root = bytearray(base64.b64decode(mine["VolumeFile"]))
    other_root[50] ^= 1
    header = bytearray(base64.b64decode(mine["Header"]))
    header[:128] = base64.b64decode(others["Header"])[:128]
    for name, value in (
        ("Directories", others["Directories"]),
        ("Directories", mine["Directories"][:1]),
        ("Directories", mine["Directories"][1:]),
        ("Directories", [mine["Directories"][0], *mine["Directories"]]),
        ("Name", others["Name"]),
        ("Header", text(bytes(header))),
        ("VolumeFile", text(bytes(other_root))),
    ):
        assert set(ask({**mine, name: value})) == {"Problem"}, name
    with pytest.raises(Validation, match="another KMS"):
        ask({**mine, "VolumeFile": text(bytes(damaged))})

    # A DEK that she let the KMS make for the other's file id, under her key, in a header of her own making: if she
    # could have that opened, the server would open the other's blocks for her, or read hers in its place.
    slot = parse_header_area(base64.b64decode(others["Header"])).slots[0].slot
    volume_id = base64.b64decode(mine["VolumeFile"])[12:28]
    context = {"envfs:volume": volume_id.hex(), "envfs:file": slot.file_id.hex()}
    made = ask(
        {"KeyId": stranger.key, "KeySpec": "AES_256", "EncryptionContext": context}, "TrentService.GenerateDataKey"
    )
    dek, blob = base64.b64decode(made["Plaintext"]), base64.b64decode(made["CiphertextBlob"])
    forged = Slot(Suite.AES_256_GCM, 12, 99, slot.file_id, 1, 1, 0, 0, blob).seal(header_key(dek, slot.file_id))
    codec = BlockCodec(
        Suite.AES_256_GCM, content_key(dek, slot.file_id, Suite.AES_256_GCM), slot.file_id, Geometry(BLOCK)
    )
    area = base64.b64decode(others["Header"])[:128] + forged + bytes(448)
    for blocks in (others["Blocks"], text(bytes(codec.seal_one(0, b"hers")))):
        answer = ask({**others, "Header": text(area), "Blocks": blocks})
        assert answer == {"Problem": "neither header slot is authentic"}
