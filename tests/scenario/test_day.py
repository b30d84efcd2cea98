"""An administrator's working day: set up finance and engineering, hire, move, fire, rotate, shred, audit.

Every step is asserted from the users' side (what their processes get, and with which errno) and from the audit trail,
as the auditor is told it. The key administrator and the auditor are no root: they work through the KMS's socket.
"""

from __future__ import annotations

import json
import mmap
import os
import re
import time
from typing import TYPE_CHECKING, Any

import pytest

from envfs.kms.engine import Engine
from envfs.kms.rootkey import KEY_FILE_NAME, KeyFileUnlock
from tests.integration.revocation.agents import BUS_ERROR
from tests.scenario.office import DENIED, NO_KEY, Office, in_directory, join, leave, outcome, secret, soon

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.integration.command import Envfs
    from tests.integration.mounts import Mount
    from tests.integration.users import UnixUser

ACCOUNT = "arn:envfs:iam::000000000000"


def allow(*actions: str) -> str:
    statement = {"Effect": "Allow", "Action": list(actions), "Resource": "*"}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


KEY_ADMINISTRATION = allow(
    "kms:CreateKey", "kms:ListKeys", "kms:ListAliases", "kms:CreateAlias", "iam:*UserPolic*", "iam:*GroupPolic*"
)
AUDITING = allow("envfs:QueryAudit", "envfs:VerifyAudit", "envfs:CheckpointAudit", "kms:ListAliases")


@pytest.fixture
def office(
    mounted: Callable[..., Mount], envfs: Envfs, kms_home: Path, unix_users: Callable[..., list[UnixUser]]
) -> Iterator[Office]:
    kay, audrey = unix_users("kay", "audrey")
    office = Office(envfs, mounted(), kms_home, kay, audrey)
    yield office
    office.end()


def test_a_day(
    office: Office, unix_users: Callable[..., list[UnixUser]], unix_group: Callable[..., str], tmp_path: Path
) -> None:
    kay, audrey, mount = office.kay, office.audrey, office.mount
    fay, finn, ed, eve, ned = unix_users("fay", "finn", "ed", "eve", "ned")
    finance_group, engineering_group = unix_group("finance", fay, finn), unix_group("engineering", ed, eve)

    # 08:00, root: who administers keys, and who audits. Neither is root, neither may read a file.
    office(None, "iam", "user-policy", "put", kay.name, "key-administration", input=KEY_ADMINISTRATION)
    office(None, "iam", "user-policy", "put", audrey.name, "auditing", input=AUDITING)
    begin = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
    checkpoint = audrey.home / "checkpoint.json"
    office(audrey, "audit", "checkpoint", "-o", checkpoint)

    # 08:30, kay: a key for each department. Whom she may let use it: users other than herself, so no groups, which she
    # could be in. Those are the owner's to let in.
    for department in ("finance", "engineering"):
        office(kay, "key", "create", "--alias", department, "--admin", kay.name, "--admin", "root")
        _lock_root_out(office, f"alias/{department}")
    finance = in_directory(mount.path / "finance", finance_group)
    engineering = in_directory(mount.path / "engineering", engineering_group)
    for directory, group in ((finance, finance_group), (engineering, engineering_group)):
        office(None, "dir", "set-key", directory, f"alias/{directory.name}")
        planned = ("access", "grant", f"@{group}", "write", f"alias/{directory.name}", "--reason", "department")
        assert "CreateGrant" in office(None, *planned, "--dry-run")
        assert "kms:CreateGrant" in office(kay, *planned, code=4), "what she lacks is named"
        office(None, *planned)
    made = [one for one in office.records("--event", "CreateGrant", "--since", begin) if "errorCode" not in one]
    assert len(made) == 2, "a dry run makes none"

    # 09:00, everybody works. The other department, the key administrator and root read nothing.
    for author, directory in ((fay, finance), (ed, engineering)):
        assert office.writes(author, directory / "plan", secret(directory.name)) is None
    assert office.reads(finn, finance / "plan") == secret("finance")
    assert office.reads(eve, engineering / "plan") == secret("engineering")
    assert office.reads(eve, finance / "plan") == DENIED
    assert outcome((finance / "plan").read_bytes) == DENIED, "root is no exception"
    denied = office.records("--denied", "--path", str(finance), "--since", begin)
    assert [one["userIdentity"]["userName"] for one in denied] == ["root"], "eve did not get past the Unix modes"

    # 10:00, ned is hired into finance. His processes from now on get in, the one from before does not.
    before = office.process(ned)
    assert office.reads(ned, finance / "plan") == DENIED
    join(ned, finance_group)
    assert office.reads(ned, finance / "plan") == secret("finance")
    assert outcome(lambda: before.read_file(finance / "plan")) == DENIED, "Unix: groups are given at the login"

    # 11:00, ed moves from engineering to finance while his programs run.
    ed_program = office.process(ed)
    plan = ed_program.open(engineering / "plan")
    view = ed_program.map(plan, 4096, mmap.MAP_SHARED, mmap.PROT_READ)
    assert ed_program.look(view) == secret("engineering")[:4]
    eve_program = office.process(eve)
    eve_plan = eve_program.open(engineering / "plan")
    leave(ed, engineering_group)
    join(ed, finance_group)
    soon(lambda: ed_program.pread(plan), DENIED)
    soon(lambda: ed_program.look(view), BUS_ERROR)
    assert eve_program.pread(eve_plan, 4) == secret("engineering")[:4], "others go on"
    assert office.reads(ed, engineering / "plan") == DENIED
    assert office.reads(ed, finance / "plan") == secret("finance")

    # 12:00, a contractor helps in engineering for some seconds; a directory with a label of its own says where.
    contractor = unix_users("contractor")[0]
    apollo = in_directory(engineering / "apollo", engineering_group)
    office(None, "dir", "label", apollo, "project=apollo")
    assert office.writes(eve, apollo / "notes", secret("apollo")) is None
    (apollo / "notes").chmod(0o664)
    for directory in (engineering, apollo):
        directory.chmod(0o2775)
    office(None, "access", "grant", contractor.name, "read", apollo, "--until", "6s", "--reason", "review")
    visitor = office.process(contractor)
    notes = visitor.open(apollo / "notes")
    assert visitor.pread(notes, 4) == secret("apollo")[:4]
    assert office.reads(contractor, engineering / "plan") == DENIED, "another label, another file"
    soon(lambda: visitor.pread(notes), DENIED)
    assert office.reads(contractor, apollo / "notes") == DENIED
    assert contractor.name not in office(None, "access", "who-can", apollo / "notes")

    # 13:00, kay asks why finn can, and what would have to be for eve. What she may not do, names what she lacks.
    assert "grant" in office(kay, "explain", "--user", finn.name, finance / "plan")
    said = office(kay, "explain", "--user", eve.name, finance / "plan", "--why-not", code=4)
    assert eve.name in said
    refused = office(eve, "access", "grant", eve.name, "read", "alias/finance", code=4)
    assert "kms:" in refused, "the missing permission is named"

    office(kay, "access", "grant", finn.name, "write", "alias/finance", "--reason", "on call")

    # 14:00, finn is fired while he writes. What he had written is kept; what he writes now is not.
    finn_program = office.process(finn)
    draft = finn_program.open(finance / "draft", os.O_RDWR | os.O_CREAT)
    finn_program.pwrite(draft, b"written while he was here")
    leave(finn, finance_group)
    office(None, "access", "revoke", finn.name, "--everywhere")
    soon(lambda: finn_program.pread(draft), DENIED)
    soon(lambda: finn_program.pwrite(draft, b"sabotage"), DENIED)
    (finance / "draft").chmod(0o660)
    assert office.reads(fay, finance / "draft") == b"written while he was here"

    # 15:00, kay rotates; root rewraps what is there. The plan, whose data key finn may
    # have kept, gets a new one.
    fay_program = office.process(fay)
    fay_plan = fay_program.open(finance / "plan", os.O_RDWR)
    shown = office.json(None, "file", "show", finance / "plan")
    office(kay, "key", "rotate", "alias/finance")
    assert office.reads(fay, finance / "plan") == secret("finance"), "old files open"
    assert office.json(None, "file", "show", finance / "plan") == shown, "and no file was touched"
    office(None, "rewrap", finance)  # which shows root nothing: the KMS re-encrypts data keys
    office(fay, "rekey", finance / "plan")
    assert fay_program.pread(fay_plan, 4) == secret("finance")[:4], "open files go on"
    fay_program.pwrite(fay_plan, b"FOR", 0)
    expected = b"FOR" + secret("finance")[3:]
    assert office.reads(ned, finance / "plan") == expected
    office.end()
    mount.remount()
    assert office.reads(ned, finance / "plan") == expected

    # 16:00, apollo is cancelled: its key is to be destroyed, and its files with it. First with a way back.
    office(kay, "key", "create", "--alias", "doomed", "--admin", kay.name, "--admin", "root")
    office(kay, "access", "grant", eve.name, "write", "alias/doomed")
    doomed = in_directory(engineering / "doomed", engineering_group)
    office(None, "dir", "set-key", doomed, "alias/doomed")
    assert office.writes(eve, doomed / "file", b"gone tomorrow") is None
    reader = office.process(eve)
    held = reader.open(doomed / "file")
    assert reader.pread(held) == b"gone"
    office(kay, "key", "delete", "alias/doomed", "--days", "7", input="y\n")
    soon(lambda: reader.pread(held), NO_KEY)
    assert office.reads(eve, doomed / "file") == NO_KEY
    office(kay, "key", "cancel-deletion", "alias/doomed")
    office(kay, "key", "enable", "alias/doomed")
    assert office.reads(eve, doomed / "file") == b"gone tomorrow"
    office(kay, "key", "delete", "alias/doomed", "--days", "7", input="y\n")
    _eight_days_later(office.home)
    assert office.reads(eve, doomed / "file") == NO_KEY
    assert office.reads(eve, engineering / "plan") == secret("engineering")

    # 17:00, audrey: who read what, what was denied, what was changed, and is all of it authentic?
    report = office.json(audrey, "audit", "report", "--since", begin)
    assert report["trail"] == "authentic"
    uses = {(use["user"], use["alias"]): use for use in report["uses"] if use["alias"]}
    assert uses[fay.name, "alias/finance"]["create"] == 1
    assert uses[finn.name, "alias/finance"]["read"] >= 1
    assert ("root", "alias/finance") not in uses or uses["root", "alias/finance"]["read"] == 0
    assert (kay.name, "alias/finance") not in uses, "who administers a key has not used it"
    events = [change["event"] for change in report["changes"]]
    for event in (
        "CreateKey",
        "CreateGrant",
        "RotateKeyOnDemand",
        "ScheduleKeyDeletion",
        "CancelKeyDeletion",
        "DeleteKey",
    ):
        assert event in events, event
    lost = [one for one in office.records("--since", begin) if "Revo" in one["eventName"] or "Lose" in one["eventName"]]
    assert {ed.name, finn.name, contractor.name} <= {_who(one) for one in lost}, "who lost an open file"
    assert not report["alarms"]
    page = tmp_path / "report.html"
    page.write_text("")
    office(None, "audit", "report", "--since", begin, "--html", page)
    assert re.search(r"<svg .*</svg>", page.read_text())
    assert office(audrey, "audit", "verify", "--from", checkpoint).startswith("the audit trail goes on from there")

    # 18:00, the office is locked for the night: nobody reads anything until root unlocks it.
    night = office.process(ned)
    fd = night.open(finance / "plan")
    office(None, "lock", mount.path)
    assert isinstance(outcome(lambda: night.pread(fd)), int)
    assert isinstance(office.reads(ned, finance / "plan"), int)
    office(None, "unlock", mount.path)
    assert night.pread(fd, 3) == b"FOR"
    assert office.reads(ned, finance / "plan") == expected


def _lock_root_out(office: Office, key: str) -> None:
    """The owner of the KMS administers the key, and may use it no more than others of whom nothing is said."""
    policy = json.loads(office(office.kay, "key", "policy", "get", key))
    policy["Statement"].append(
        {
            "Sid": "Root reads nothing",
            "Effect": "Deny",
            "Principal": "*",
            "Action": ["kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey*"],
            "Resource": "*",
            "Condition": {"ArnEquals": {"aws:PrincipalArn": f"{ACCOUNT}:user/root"}},
        }
    )
    office(office.kay, "key", "policy", "put", key, input=json.dumps(policy))


def _who(record: dict[str, Any]) -> str:
    return str(record.get("userIdentity", {}).get("userName") or record.get("requestParameters", {}).get("userName"))


def _eight_days_later(home: Path) -> None:
    """What each process of the KMS does by itself when the time has come, with a clock that says so."""
    with Engine.open(home, KeyFileUnlock(home / KEY_FILE_NAME), clock=lambda: time.time() + 8 * 86400) as engine:
        engine.maintain()
