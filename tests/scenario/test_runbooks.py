"""The runbooks of docs/OPERATIONS.md, word for word: what they promise is what users' processes and the trail show."""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.revocation.agents import BUS_ERROR, Agent
from tests.integration.revocation.conftest import eventually, outcome
from tests.integration.users import TIMEOUT, UnixUser
from tests.scenario.runbook import Runbook, Shell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.integration.command import Envfs
    from tests.integration.mounts import Mount
    from tests.integration.users import UserTable

DENIED, NO_KEY = errno.EACCES, errno.ENOKEY
PASSPHRASE = " of the KMS: "  # or recovery key


def plan(of: str) -> bytes:
    return f"what {of} plans\n".encode() * 1000


@dataclass
class Machine:
    """A volume, mounted by root, and the people who are on the machine. `names`: the page's → the test's."""

    envfs: Envfs
    mount: Mount
    home: Path
    base: Path
    table: UserTable
    shell: Shell
    names: dict[str, Any]
    agents: list[Agent] = field(default_factory=list)

    def runbook(self, title: str) -> Runbook:
        return Runbook(title, self.shell, self.names, self.home)

    def department(self, name: str, *members: UnixUser) -> Path:
        """Made by its runbook; each member is let into the group. Returns the directory."""
        group = self.table.announce(name)
        self.names[name] = group
        with Runbook("a new department", self.shell, self.names | {"finance": group}, self.home) as page:
            assert "granted: @" in page("groupadd finance")
        for member in members:
            self.shell.run(f"usermod --append --groups {group} {member.name}", self.home)
        return self.mount.path / group

    def user(self, name: str) -> UnixUser:
        (user,) = self.table.make(name)
        self.names[name] = user.name
        return user

    def process(self, user: UnixUser) -> Agent:
        self.agents.append(Agent(user))
        return self.agents[-1]

    def gets(self, user: UnixUser, path: Path) -> Any:
        """What a new process of the user reads, or the errno."""
        agent = Agent(user)
        try:
            return outcome(lambda: agent.read_file(path))
        finally:
            agent.end()

    def writes(self, user: UnixUser, path: Path, content: bytes, mode: int = 0o660) -> Any:
        agent = Agent(user)
        try:
            return outcome(lambda: agent.write_file(path, content, mode))
        finally:
            agent.end()

    def end_processes(self) -> None:
        while self.agents:
            self.agents.pop().end()


@pytest.fixture
def machine(
    envfs: Envfs,
    kms_home: Path,
    lower: Path,
    mounted: Callable[..., Mount],
    directory: Callable[..., Path],
    _user_table: UserTable,
) -> Iterator[Machine]:
    usb, auditor, root = directory("usb", mode=0o700), directory("auditor", mode=0o700), directory("root", mode=0o700)
    envfs("kms", "init", "--recovery-key-file", usb / "recovery")
    envfs("init", lower)
    mount = mounted(lower=lower)
    shell = Shell(directory("bin"), envfs.argv, kms_home.parent / "home")
    names = {
        "/srv/data": mount.path,
        "/srv/data.enc": lower,
        "/var/lib/envfs": kms_home,
        "/media/usb": usb,
        "/media/auditor": auditor,
        "/root": root,
    }
    found = Machine(envfs, mount, kms_home, kms_home.parent, _user_table, shell, names)
    yield found
    found.end_processes()


def tails(lower: Path) -> dict[str, bytes]:
    """The last blocks of what is large enough to have some behind its header."""
    files = [path for path in lower.rglob("*") if path.is_file() and path.stat().st_size > 1 << 13]
    return {str(path): path.read_bytes()[-4096:] for path in files}


def test_who_comes_and_who_goes(machine: Machine) -> None:
    alice, bob, ada = (machine.user(name) for name in ("alice", "bob", "ada"))
    finance, apollo = machine.department("finance", alice, bob), machine.department("apollo", ada)
    assert machine.writes(alice, finance / "plan.ods", plan("finance")) is None
    assert machine.writes(ada, apollo / "notes", plan("apollo"), 0o666) is None

    machine.names["nora"] = machine.table.announce("nora")
    with machine.runbook("a new employee") as page:
        page("useradd")
        nora = UnixUser.named(machine.names["nora"])
        assert machine.gets(nora, finance / "plan.ods") == plan("finance")
        assert machine.gets(nora, apollo / "notes") == DENIED
        assert f"{nora.name} can now: read\n" in page("chmod o+rx")
        said = page("envfs access who-can")
        assert f"{nora.name}  yes   yes    yes" in said
        assert f"allowed: {nora.name}" in said
        (row,) = [line for line in said.splitlines() if line.startswith(nora.name) and "rwc" in line]
        assert row.split()[2:] == ["r--", "rwc"], said
        assert page("cat ", user=nora).encode() == plan("finance") + plan("apollo")
        assert machine.writes(nora, apollo / "notes", b"hers") == DENIED
        assert machine.gets(bob, apollo / "notes") == DENIED, "the modes would let him, the key does not"
        trail = page("envfs audit query").splitlines()
    assert [line for line in trail if "Decrypt" in line and "/notes" in line and "access-read" in line]
    assert [line for line in trail if "/notes" in line and "AccessDenied" in line], trail

    machine.envfs("access", "grant", bob.name, "read", apollo, "--reason", "also")
    assert machine.gets(bob, apollo / "notes") == plan("apollo")
    his, hers = machine.process(bob), machine.process(alice)
    draft = his.open(finance / "draft", os.O_RDWR | os.O_CREAT)
    his.chmod(finance / "draft", 0o660)
    his.pwrite(draft, b"written while he was here")
    view = his.map(his.open(finance / "plan.ods"), mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ)
    assert his.look(view) == plan("finance")[:4]
    kept = hers.open(finance / "plan.ods", os.O_RDWR)
    with machine.runbook("a leaver") as page:
        said = page("envfs access list bob")
        assert ("also" in said, "trail is authentic" in said) == (True, True)
        report = (machine.base / "root" / f"{bob.name}.txt").read_text()
        assert "/notes" in report
        assert f"revoked: {bob.name} read" in page("usermod --lock")
        eventually(lambda: his.pread(draft), DENIED)
        eventually(lambda: his.pwrite(draft, b"sabotage"), DENIED)
        eventually(lambda: his.look(view), BUS_ERROR)
        assert hers.pread(kept) == plan("finance")[:4], "others go on"
        assert machine.gets(bob, finance / "plan.ods") == DENIED
        assert machine.gets(bob, apollo / "notes") == DENIED
        assert machine.gets(alice, finance / "draft") == b"written while he was here"
        said = page("envfs iam user-policy")
        assert ("no policies" in said, "no access keys" in said) == (True, True)
        said = page("envfs access who-can")
        assert f"{bob.name}  no    no     no" in said
        assert "RevokeGrant" in said
        assert said.count(f"{bob.name}  OpenFileRevoked") == 2, said
        before = tails(machine.mount.lower)
        page("envfs rekey")
    after = tails(machine.mount.lower)
    assert sum(before[path] != after[path] for path in before) == 1, "the plan, and not apollo's notes"
    assert hers.pread(kept) == plan("finance")[:4]
    hers.pwrite(kept, b"WHAT")
    assert machine.gets(nora, finance / "plan.ods") == b"WHAT" + plan("finance")[4:]


def test_a_suspected_leak(machine: Machine) -> None:
    alice = machine.user("alice")
    finance = machine.department("finance", alice)
    assert machine.writes(alice, finance / "plan.ods", plan("finance")) is None
    machine.envfs("audit", "checkpoint", "-o", machine.base / "auditor" / "checkpoint.json")
    hers = machine.process(alice)
    fd = hers.open(finance / "plan.ods", os.O_RDWR)
    with machine.runbook("a suspected leak") as page:
        page("envfs lock")
        assert outcome(lambda: hers.pread(fd)) == NO_KEY
        assert machine.gets(alice, finance / "plan.ods") == NO_KEY
        said = page("envfs audit verify")
        assert "goes on from there" in said
        assert "DisableKey" in said
        assert "<svg" in (machine.base / "root" / "leak.html").read_text()
        before = tails(machine.mount.lower)
        said = page("envfs unlock")
        assert said.count("1 file") == 2, said
        after = tails(machine.mount.lower)
        assert [path for path in before if before[path] != after[path]], before.keys()
        assert hers.pread(fd, len(plan("finance"))) == plan("finance"), "who had it open goes on"
        hers.pwrite(fd, b"WHAT")
        hers.fsync(fd)
        new_home, new_mount = machine.base / "kms.new", machine.base / f"{machine.mount.path.name}.new"
        with _unmounted_afterwards(machine.envfs, new_mount):
            page("ENVFS_HOME")
            there = new_mount / finance.name
            there.mkdir()
            machine.envfs("key", "create", "--alias", finance.name, home=new_home)
            machine.envfs("dir", "set-key", there, f"alias/{finance.name}", home=new_home)
            machine.envfs("access", "grant", f"@{finance.name}", "write", there, home=new_home)
            assert "copied" in page("envfs import")
            assert machine.gets(alice, there / "plan.ods") == b"WHAT" + plan("finance")[4:]
            assert machine.gets(machine.user("eve"), there / "plan.ods") == DENIED
        said = page("envfs fsck")
        assert said.startswith("clean")
        assert "are authentic" in said
    assert (machine.base / "auditor" / "checkpoint-2.json").exists()
    events = machine.envfs("audit", "query", "--since", "1h").stdout
    for event in ("DisableKey", "EnableKey", "RotateKeyOnDemand", "BackupKms"):
        assert event in events, event


@contextmanager
def _unmounted_afterwards(envfs: Envfs, path: Path) -> Iterator[None]:
    try:
        yield
    finally:
        envfs("umount", path)


def test_a_lost_root_key(machine: Machine) -> None:
    alice = machine.user("alice")
    finance = machine.department("finance", alice)
    assert machine.writes(alice, finance / "plan.ods", plan("finance")) is None
    usb = machine.base / "usb"
    recovery = (usb / "recovery").read_text().strip()
    slots = {line.split()[1]: line.split()[0] for line in machine.envfs("kms", "slot", "list").stdout.splitlines()[1:]}
    machine.names |= {"3f2a": slots["keyfile"][:8], "77c0": slots["recovery"][:8]}
    (machine.home / "root.key").unlink()
    assert machine.gets(alice, finance / "plan.ods") == plan("finance"), "what runs goes on"
    with machine.runbook("the root key is lost") as page:
        assert slots["keyfile"] in page("envfs kms slot list", answers=[(PASSPHRASE, recovery)])
        said = page("envfs kms slot add keyfile", answers=[(PASSPHRASE, recovery)])
        assert "before opens this KMS no more" in said, "nobody is told to destroy the new one"

        laptop, old, new = machine.base / "laptop", usb / "old", usb / "laptop-recovery"
        old.write_text("forgotten")
        make = ("kms", "init", "--root-key", "passphrase", "--passphrase-file", old, "--recovery-key-file", new)
        machine.envfs(*make, home=laptop)
        typed = [
            ("Present passphrase", new.read_text().strip()),
            ("New passphrase", "remembered"),
            ("again", "remembered"),
        ]
        page("envfs kms change-passphrase", answers=typed, home=laptop)
        assert machine.envfs("kms", "slot", "list", "--passphrase-file", old, home=laptop, check=False).returncode == 3
        (usb / "new").write_text("remembered")
        machine.envfs("kms", "slot", "list", "--passphrase-file", usb / "new", home=laptop)

        shown = page("envfs kms slot add recovery", answers=[])
        assert recovery not in shown
        refused = machine.envfs("kms", "slot", "list", "--passphrase-file", usb / "recovery", check=False)
        assert refused.returncode == 3
        said = page("envfs kms slot list")
        assert slots["keyfile"] not in said
        assert slots["recovery"] not in said
        assert "are authentic" in said
        machine.mount.remount()
        assert machine.gets(alice, finance / "plan.ods") == plan("finance")
        check = ("kms", "restore", "--check", usb / "kms-new-slots.backup", "--key-file", machine.home / "root.key")
        machine.envfs(*check, home=machine.base / "nowhere")
        events = machine.envfs("audit", "query", "--since", "1h").stdout
        assert ("AddRootSlot" in events, "RemoveRootSlot" in events) == (True, True)

        (machine.home / "root.key").unlink()
        page("envfs export")
    assert (usb / "rescued" / finance.name / "plan.ods").read_bytes() == plan("finance")
    machine.mount.umount()
    lost = machine.envfs("mount", machine.mount.lower, machine.mount.path, check=False)
    assert (lost.returncode, machine.mount.is_mounted) == (3, False)


def test_moving_to_another_host(machine: Machine, directory: Callable[..., Path]) -> None:
    alice, carol, envfs = machine.user("alice"), machine.user("carol"), machine.envfs
    finance = machine.department("finance", alice, carol)
    assert machine.writes(alice, finance / "plan.ods", plan("finance")) is None
    there = directory("newhost")
    new_lower, new_mount, new_home = there / "lower", there / "mount", there / "kms"
    machine.names["newhost:/srv/data.enc"] = new_lower
    machine.names["1009"] = alice.uid
    on_new = {"/srv/data.enc": new_lower, "/srv/data": new_mount, "/var/lib/envfs": new_home}
    plan_there = new_mount / finance.name / "plan.ods"
    with machine.runbook("moving to another host") as page:
        page("envfs umount")
        page("rsync")
        # The new host: alice has another uid there.
        machine.shell.run(f"usermod --uid {alice.uid + 20_000} {alice.name}", new_home)
        moved = UnixUser.named(alice.name)
        with _unmounted_afterwards(envfs, new_mount):
            said = page("envfs kms restore", names=on_new, home=new_home)
            assert "clean: " in said
            assert machine.gets(carol, plan_there) == plan("finance")
            assert machine.gets(moved, plan_there) == DENIED
            said = page("envfs explain", names=on_new, home=new_home)
            assert said.startswith("DENIED")
            assert "with another uid" in said
            page("envfs iam unpin", names=on_new, home=new_home)
            assert machine.gets(moved, plan_there) == plan("finance")
            assert plan_there.stat().st_uid == moved.uid
            assert machine.writes(moved, plan_there, b"new") is None
            said = page("envfs audit query", names=on_new, home=new_home)
            assert "RestoreKms" in said
            assert "UnpinUser" in said
            denied = envfs("audit", "query", "--event", "IdentifyCaller", "--since", "1h", home=new_home).stdout
            assert "AccessDenied" in denied
        page("shred")
    old = envfs("mount", machine.mount.lower, machine.mount.path, check=False)
    assert old.returncode == 3
    assert not machine.mount.lower.exists()
    with_nothing = envfs("kms", "restore", machine.base / "usb" / "kms-moved.backup", check=False)
    assert with_nothing.returncode == 3, "the backup alone opens nothing"


def test_restoring_a_backup(machine: Machine) -> None:
    alice, bob, envfs = machine.user("alice"), machine.user("bob"), machine.envfs
    finance = machine.department("finance", alice)
    finance.chmod(0o2775)
    lower, usb, auditor = machine.mount.lower, machine.base / "usb", machine.base / "auditor"
    envfs("access", "grant", bob.name, "read", finance)
    assert machine.writes(alice, finance / "plan.ods", plan("finance"), 0o664) is None
    assert machine.gets(bob, finance / "plan.ods") == plan("finance")

    # Monday: KMS, volume, checkpoint. Then bob leaves, and keys are made and rotated. Tuesday: a checkpoint.
    envfs("kms", "backup", usb / "kms-monday.backup")
    envfs("audit", "checkpoint", "-o", auditor / "monday.json", home=machine.home)
    _copy(lower, usb / "data.enc")
    envfs("access", "revoke", bob.name, "--everywhere")
    envfs("key", "rotate", f"alias/{finance.name}")
    assert machine.writes(alice, finance / "rotated", b"under new material") is None
    later = machine.department("later", alice)
    assert machine.writes(alice, later / "file", b"under a new key") is None
    envfs("audit", "checkpoint", "-o", auditor / "tuesday.json")
    recovery = (usb / "recovery").read_text().strip()
    with machine.runbook("restoring a backup") as page:
        page("envfs umount")
        said = page("envfs kms restore", answers=[(PASSPHRASE, recovery)] * 2)
        assert "key file is not there" in said, "what is missing"
        shutil.copy2(machine.home.with_name("kms.damaged") / "root.key", machine.home / "root.key")

        # The volume is newer than the KMS.
        machine.mount.mount("-o", "ro")
        assert machine.gets(alice, finance / "plan.ods") == plan("finance")
        assert machine.gets(alice, later / "file") == NO_KEY
        assert machine.gets(alice, finance / "rotated") == errno.EIO
        machine.mount.umount()
        checked = envfs("fsck", lower, check=False)
        assert (checked.returncode, "header" in checked.stdout) == (5, True), checked.stdout
        page("mv ")
        said = page("envfs kms verify")
        assert "are authentic" in said
        assert "RestoreKms" in said
        assert "clean: " in said
        assert machine.gets(alice, finance / "plan.ods") == plan("finance")
        assert machine.writes(alice, finance / "new", b"") == errno.EROFS
        assert machine.gets(bob, finance / "plan.ods") == plan("finance"), "everything is as it was then"
        said = page("envfs audit verify")
        assert said.startswith("the audit trail goes on from there")
        assert "tuesday" not in said.splitlines()[0]
        assert "missing" in said or "not" in said, said
        said = page("envfs access list")
        assert f"revoked: {bob.name} read" in said
        assert machine.gets(bob, finance / "plan.ods") == DENIED
        page("envfs umount")
    assert machine.writes(alice, finance / "new", b"goes on") is None
    assert machine.gets(alice, finance / "new") == b"goes on"
    envfs("audit", "verify", "--from", auditor / "restored.json")

    # The volume is older than the KMS.
    envfs("key", "rotate", f"alias/{finance.name}")
    machine.mount.umount()
    shutil.rmtree(lower)
    _copy(usb / "data.enc", lower)
    machine.mount.mount()
    assert machine.gets(alice, finance / "plan.ods") == plan("finance")


def _copy(source: Path, target: Path) -> None:
    subprocess.run(["rsync", "-aHX", f"{source}/", f"{target}/"], check=True, timeout=TIMEOUT)
