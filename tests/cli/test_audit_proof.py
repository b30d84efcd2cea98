"""`envfs audit report`, `export`, `checkpoint` and `durable`: transcripts."""

from __future__ import annotations

import array
import json
import os
import pwd
import socket
import threading
from contextlib import ExitStack
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest

from envfs.cli import audit_export
from envfs.cli.audit_html import page
from envfs.cli.audit_summary import Summary
from envfs.service import journal, syslog

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import CommandLine

ME = pwd.getpwuid(os.getuid()).pw_name
ARN = "arn:envfs:kms:local:000000000000:key/11111111-2222-4333-8444-555555555555"


def opened(user: str, path: str, *, access: str = "read", day: str = "2026-05-01", error: str = "") -> dict[str, Any]:
    """A record as a mount leaves it."""
    record: dict[str, Any] = {
        "userIdentity": {"type": "IAMUser", "userName": user},
        "eventTime": f"{day}T10:00:00Z",
        "eventName": "GenerateDataKey" if access == "create" else "Decrypt",
        "readOnly": True,
        "requestParameters": {"keyId": ARN},
        "resources": [{"ARN": ARN}],
        "envfs": {"path": path, "access": access, "decisions": []},
    }
    return record | ({"errorCode": error} if error else {})


@pytest.fixture
def key(envfs: CommandLine, tmp_path: Path) -> str:
    envfs("kms init")
    (tmp_path / "plain").write_bytes(b"x")
    made = str(envfs("key create --alias payroll --json").json["arn"])
    envfs("kms encrypt alias/payroll plain -o sealed")
    envfs("kms decrypt sealed -o opened --context wrong=one")
    return made


def test_the_summary_says_who_did_what() -> None:
    summary = Summary()
    for record in (
        opened("alice", "/a"),
        opened("alice", "/a"),
        opened("alice", "/b", access="write", day="2026-05-02"),
        opened("bob", "/a", error="AccessDeniedException", day="2026-05-02"),
        opened("bob", "/new", access="create", day="2026-05-03"),
        {"eventName": "IntegrityFailure", "eventTime": "2026-05-04T00:00:00Z", "userIdentity": {"invokedBy": "envfs"}},
        {"eventName": "CreateGrant", "eventTime": "2026-05-04T00:00:00Z", "readOnly": False},
        {"eventName": "ListKeys", "eventTime": "2026-05-05T00:00:00Z", "readOnly": True},
    ):
        summary.add(record)
    alice, bob = summary.uses["alice", ARN], summary.uses["bob", ARN]
    assert (dict(alice.accesses), alice.files, alice.refused) == ({"read": 2, "write": 1}, {"/a", "/b"}, 0)
    assert (alice.first, alice.last) == ("2026-05-01T10:00:00Z", "2026-05-02T10:00:00Z")
    assert (dict(bob.accesses), bob.files, bob.refused) == ({"create": 1}, {"/new"}, 1)
    ((who, refusal),) = summary.refusals.items()
    assert (who, refusal.count) == (("bob", ARN, "Decrypt", "/a"), 1)
    assert {day: dict(users) for day, users in summary.opens_by_day.items()} == {
        "2026-05-01": {"alice": 2},
        "2026-05-02": {"alice": 1},
        "2026-05-03": {"bob": 1},
    }
    assert [change.event for change in summary.changes] == ["CreateGrant"]
    assert [(alarm.event, alarm.user) for alarm in summary.alarms] == [("IntegrityFailure", "envfs")]
    assert (summary.records, summary.first, summary.last) == (8, "2026-05-01T10:00:00Z", "2026-05-05T00:00:00Z")


def test_a_report_for_people(envfs: CommandLine, key: str) -> None:
    answer = envfs("audit report --since today")
    assert answer.code == 0
    lines = answer.out.splitlines()
    assert "the trail is authentic" in lines[1]
    (use,) = [line.split() for line in lines if line.startswith(f"{ME}  alias/payroll")][:1]
    assert use[:8] == [ME, "alias/payroll", "0", "0", "0", "1", "1", "0"]
    assert "InvalidCiphertextException" in answer.out
    assert "CreateAlias" in answer.out, "what was changed"
    found = envfs("audit report --json").json
    assert [(use["user"], use["key"], use["direct"], use["refused"]) for use in found["uses"]] == [(ME, key, 1, 1)]
    assert envfs("audit report --user nobody --json").json["uses"] == []


def test_a_trail_that_is_not_authentic_is_reported_as_such(envfs: CommandLine, key: str, home: Path) -> None:
    (chain,) = (home / "audit").iterdir()
    chain.write_bytes(chain.read_bytes().replace(b'"eventName":"Encrypt"', b'"eventName":"Decrypt"', 1))
    answer = envfs("audit report")
    assert (answer.code, answer.err) == (5, "")
    assert "the trail is NOT authentic" in answer.out
    assert "PROBLEM: audit/" in answer.out
    assert envfs("audit report --no-verify").code == 0


class _Page(HTMLParser):
    """What a browser would make of it: the tags, and the text in them."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not {name for name, _ in attrs} & {"src", "href", "onload", "onerror", "onclick"}

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_runs_nothing_that_users_put_into_names() -> None:
    evil = "</title></table><script>alert(1)</script><img src=x onerror=alert(1)>\x1b[31m"
    summary = Summary()
    summary.add(opened(evil, evil))
    summary.add(opened(evil, evil, error=evil))
    summary.add({"eventName": evil, "eventTime": evil, "readOnly": False, "requestParameters": {evil: evil}})
    head = {"made": evil, "by": evil, "asked": {evil: evil}, "trail": evil, "problems": [evil]}
    html = page(summary, head, {ARN: evil})
    parsed = _Page()
    parsed.feed(html)
    assert not {"script", "img"} & set(parsed.tags)
    assert "svg" in parsed.tags
    assert "alert(1)" in parsed.text, "it is shown"
    assert "\x1b" not in html


def test_the_page_is_written_whole_and_for_its_owner_alone(envfs: CommandLine, key: str, tmp_path: Path) -> None:
    answer = envfs("audit report --html page.html")
    assert answer.code == 0
    assert answer.out.startswith("page.html: ")
    written = tmp_path / "page.html"
    assert written.stat().st_mode & 0o777 == 0o600
    assert "alias/payroll" in written.read_text()
    assert envfs("audit report --html none/page.html").code == 8
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".page")]


def test_bars_of_many_users_and_days_fit() -> None:
    summary = Summary()
    for number in range(200):
        summary.add(opened(f"user{number % 11}", "/a", day=f"2026-{number % 12 + 1:02}-{number % 28 + 1:02}"))
    html = page(summary, {"made": "", "by": "", "asked": {}, "trail": "authentic", "problems": []}, {})
    assert "others" in html
    assert html.count("<rect") >= 84


def test_records_leave_in_cloudtrail_s_shape(envfs: CommandLine, key: str, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in envfs("audit export --event Encrypt").out.splitlines()]
    (one,) = lines
    assert one["eventName"] == "Encrypt"
    assert not {"envfs", "sequence", "tag"} & one.keys()
    assert one["additionalEventData"]["envfs"]["uid"] == os.getuid()
    assert set(one) <= {
        *("eventVersion", "userIdentity", "eventTime", "eventSource", "eventName", "awsRegion", "sourceIPAddress"),
        *("userAgent", "errorCode", "errorMessage", "requestParameters", "responseElements", "additionalEventData"),
        *("requestID", "eventID", "eventType", "readOnly", "resources", "recipientAccountId"),
    }


def test_an_export_goes_on_where_it_ended(envfs: CommandLine, key: str, tmp_path: Path) -> None:
    line = "audit export -o out.jsonl --state state"
    assert envfs(line).code == 0
    first = (tmp_path / "out.jsonl").read_text().splitlines()
    assert (tmp_path / "out.jsonl").stat().st_mode & 0o777 == 0o600
    assert "Encrypt" in [json.loads(one)["eventName"] for one in first]
    assert envfs(line).code == 0
    assert (tmp_path / "out.jsonl").read_text().splitlines() == first, "looking adds nothing"
    envfs(f"key disable {key}")
    assert envfs(line).code == 0
    added = (tmp_path / "out.jsonl").read_text().splitlines()[len(first) :]
    assert [json.loads(one)["eventName"] for one in added] == ["DisableKey"]
    (tmp_path / "state").write_text("nonsense")
    assert envfs(line).code != 0


def test_where_nobody_takes_records_is_said_with_a_next_step(
    envfs: CommandLine, key: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(syslog, "LOCAL", str(tmp_path / "nobody"))
    monkeypatch.setattr(journal.Journal.__init__, "__defaults__", (str(tmp_path / "nobody"),))
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        for where in ("--syslog local", f"--syslog tcp:127.0.0.1:{closed.getsockname()[1]}", "--journald"):
            answer = envfs(f"audit export {where}")
            assert answer.code == 3
            assert "next: " in answer.err


def test_looking_at_the_slots_is_no_change(envfs: CommandLine, key: str) -> None:
    envfs("kms slot list")
    assert "ListRootSlots" not in envfs("audit report").out


def test_only_who_exports_looks_unseen() -> None:
    def look(arn: str, event: str = "QueryAudit") -> dict[str, object]:
        return {"eventName": event, "userIdentity": {"arn": arn}}

    assert audit_export.is_look_of("arn:me", look("arn:me"))
    assert not audit_export.is_look_of("arn:me", look("arn:somebody-else"))
    assert not audit_export.is_look_of("arn:me", look("arn:me", "Decrypt"))
    assert not audit_export.is_look_of("arn:me", {"eventName": "QueryAudit", "userIdentity": None})


def test_records_reach_a_syslog_server_over_udp_and_tcp(envfs: CommandLine, key: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(20)
        port = server.getsockname()[1]
        assert envfs(f"audit export --event Encrypt --syslog udp:127.0.0.1:{port}").code == 0
        message = server.recv(1 << 16).decode()
    header, _, text = message.partition(" - {")
    assert header.startswith("<85>1 2")
    assert header.split()[3] == "envfs-audit"
    assert header.split()[-1] == "Encrypt"
    assert json.loads("{" + text)["eventName"] == "Encrypt"

    received = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                while part := connection.recv(1 << 16):
                    received.extend(part)

        thread = threading.Thread(target=serve)
        thread.start()
        port = listener.getsockname()[1]
        assert envfs(f"audit export --event Decrypt --syslog tcp:127.0.0.1:{port}").code == 0
        thread.join(20)
    length, _, rest = bytes(received).partition(b" ")
    assert int(length) == len(rest)


def test_a_record_that_no_datagram_takes_loses_its_parameters_only(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(20)
        with ExitStack() as stack:
            send = audit_export._to_syslog(stack, f"udp:127.0.0.1:{server.getsockname()[1]}")
            send(opened("alice", "/a") | {"requestParameters": {"long": "x" * 100_000}})
        text = server.recv(1 << 16).decode().partition(" - ")[2]
    shown = json.loads(text)
    assert shown["requestParameters"]["omitted"] is True
    assert shown["userIdentity"]["userName"] == "alice"


@pytest.mark.parametrize("address", ["", "udp", "udp:", "tls:host", "tcp:host:0x1", "tcp:host:99999", "/dev/log"])
def test_what_is_no_address_is_said_to_be_none(address: str, envfs: CommandLine, key: str) -> None:
    answer = envfs("audit export --syslog", address)
    assert answer.code == 3
    assert "next: " in answer.err


def test_an_ipv6_address_stands_in_brackets() -> None:
    assert syslog._host_and_port("[::1]:5140") == ("::1", 5140)
    assert syslog._host_and_port("[::1]") == ("::1", 514)


def fields_of(entry: bytes) -> dict[str, str]:
    """journald's parser."""
    found = {}
    while entry:
        name, _, entry = entry.partition(b"\n")
        size = int.from_bytes(entry[:8], "little")
        found[name.decode()], entry = entry[8 : 8 + size].decode(), entry[9 + size :]
    return found


def test_records_reach_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "journal")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(path)
        server.settimeout(20)
        with journal.Journal(path) as client:
            client.send({"MESSAGE": "two\nlines", "PRIORITY": "5"})
            assert fields_of(server.recv(1 << 16)) == {"MESSAGE": "two\nlines", "PRIORITY": "5"}
            client.send({"MESSAGE": "x" * 1_000_000})
        _, ancillary, _, _ = server.recvmsg(1 << 16, socket.CMSG_SPACE(4))
        descriptors = array.array("i")
        descriptors.frombytes(ancillary[0][2])
        with os.fdopen(descriptors[0], "rb") as file:
            file.seek(0)
            assert len(fields_of(file.read())["MESSAGE"]) == 1_000_000


def test_without_a_journal_it_is_said(envfs: CommandLine, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal.Journal.__init__, "__defaults__", ("/nonexistent/socket",))
    answer = envfs("audit export --journald")
    assert (answer.code, answer.out) == (3, "")


def test_one_destination_at_a_time(envfs: CommandLine, key: str) -> None:
    assert envfs("audit export --journald -o x").code == 2
    assert envfs("audit query --denied --error DisabledException").code == 2


def test_a_checkpoint_is_verified_from(envfs: CommandLine, key: str, tmp_path: Path, home: Path) -> None:
    assert envfs("audit checkpoint -o checkpoint").code == 0
    assert envfs("audit checkpoint").out.startswith('{"version": 1')
    answer = envfs("audit verify --from checkpoint")
    assert (answer.code, answer.out.split(";")[0]) == (0, "the audit trail goes on from there")
    (chain,) = (home / "audit").iterdir()
    raw = chain.read_bytes()
    chain.write_bytes(raw.replace(b'"eventName":"Encrypt"', b'"eventName":"Decrypt"', 1))
    assert envfs("audit verify --from checkpoint").code == 0, "what stands before is not read"
    assert envfs("audit verify").code == 5
    (tmp_path / "checkpoint").write_text("{}")
    answer = envfs("audit verify --from checkpoint")
    assert answer.code == 4
    assert "next: make one with: envfs audit checkpoint" in answer.err
    assert envfs("audit verify --from none").code == 8


def test_the_durable_mode_is_shown_and_set(envfs: CommandLine, key: str) -> None:
    assert envfs("audit durable").out == "off\n"
    assert envfs("audit durable on").out == "on\n"
    assert envfs("audit durable --json").json == {"durable": True}
    records = [json.loads(line) for line in envfs("audit query --event SetAuditDurability --json").out.splitlines()]
    assert [record["requestParameters"] for record in records] == [{"durable": True}]
    assert envfs("audit durable off").out == "off\n"


def test_a_path_that_is_in_no_mount_is_one_of_a_volume(envfs: CommandLine, key: str) -> None:
    answer = envfs("audit query --path /finance --json")
    assert (answer.code, answer.out) == (0, "")
