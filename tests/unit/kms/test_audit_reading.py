"""Questions to the audit trail: the right records, authentic ones only, from either end."""

from __future__ import annotations

import io
import json
import os
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envfs.crypto.secret import Secret
from envfs.errors import AccessDenied, DryRunOperation, IntegrityError, InvalidMarker
from envfs.kms.audit.chain import START, chain_mac, make_line
from envfs.kms.audit.query import Question, query
from envfs.kms.audit.reader import end_of_lines, lines_backwards, read_backwards, read_forwards
from envfs.kms.model import RequestFacts
from tests.unit.kms.kit import ALICE, BOB, CONTEXT, OWNER, THROUGH_MOUNT, audit_records, open_kms, users_policy

if TYPE_CHECKING:
    from pathlib import Path

    from envfs.crypto.mac import Mac
    from envfs.kms.engine import Engine
    from tests.unit.kms.kit import Clock

KEY = b"k" * 32


def make_mac() -> Mac:
    return chain_mac(Secret(KEY), b"s" * 16, b"c" * 16)


def make_chain(sizes: list[int], torn_after: int | None = None) -> list[bytes]:
    """Lines with records of these sizes, after one of which a crash left something."""
    mac, tag, lines = make_mac(), START.tag, []
    for number, size in enumerate(sizes):
        line, tag = make_line(mac, tag, f'{{"n":{number},"x":"{"x" * size}"'.encode())
        lines.append(line)
        if number == torn_after:
            lines.append(b'{"n":99,"torn\n')
    return lines


@given(st.lists(st.integers(0, 90), max_size=12), st.integers(0, 12))
def test_both_ways_tell_the_same(sizes: list[int], torn_after: int) -> None:
    lines = make_chain(sizes, torn_after)
    file = io.BytesIO(b"".join(lines) + b'{"being writ')
    good = [line for line in lines if b"torn" not in line]
    end = end_of_lines(file)
    assert end == sum(map(len, lines))
    found = list(read_forwards(file, make_mac(), lambda _: True, 0, end))
    assert [line for line, _ in found] == good
    assert list(read_backwards(file, make_mac(), lambda _: True, end)) == good[::-1]
    assert list(read_backwards(file, make_mac(), lambda line: b'"n":1,' in line, end)) == good[1:2]
    for number, (_, offset) in enumerate(found):
        rest = [line for line, _ in read_forwards(file, make_mac(), lambda _: True, offset, end)]
        assert rest == good[number + 1 :]


@given(st.lists(st.binary(max_size=20), max_size=12), st.integers(1, 50))
def test_lines_from_the_end(pieces: list[bytes], block: int) -> None:
    content = b"\n".join(pieces)
    complete = content[: content.rfind(b"\n") + 1]
    found = list(lines_backwards(io.BytesIO(content), len(content), block))
    assert b"".join(reversed(found)) == complete
    assert all(line.index(b"\n") == len(line) - 1 for line in found)


@pytest.mark.parametrize("index", [0, 3, 6])
@pytest.mark.parametrize("what", ["content", "tag", "removed"])
def test_a_line_that_somebody_changed_is_not_told(index: int, what: str) -> None:
    lines = make_chain([5] * 7)
    good = lines.copy()
    if what == "content":
        lines[index] = lines[index].replace(b"xxxxx", b"xyxxx")
        del good[index]
    elif what == "tag":
        lines[index] = lines[index][:-10] + bytes([lines[index][-10] ^ 1]) + lines[index][-9:]
        del good[index : index + 2]  # the one behind it is not proven either
    else:
        del lines[index], good[index]
        good = good[:index] + good[index + 1 :]
    file = io.BytesIO(b"".join(lines))
    end = end_of_lines(file)
    backwards = list(read_backwards(file, make_mac(), lambda _: True, end))[::-1]
    forwards = [line for line, _ in read_forwards(file, make_mac(), lambda _: True, 0, end)]
    assert [line for line in lines if line in backwards] == good
    assert forwards == good


def names(records: list[dict[str, object]]) -> list[object]:
    return [one["eventName"] for one in records]


def ask(engine: Engine, limit: int = 100, *, newest: bool = False, **members: object) -> list[dict[str, object]]:
    found = engine.query_audit(OWNER, Question(**members), limit=limit, newest=newest)[0]  # type: ignore[arg-type]
    return [record for record in found if record["eventName"] != "QueryAudit"]


@pytest.fixture
def key(engine: Engine, clock: Clock) -> str:
    """Created, used by alice on two paths, denied to bob: a minute apart each. Five records."""
    key = engine.create_key(OWNER, policy=users_policy(ALICE)).key_id
    clock.now += 60
    blob = engine.generate_data_key(ALICE, key, CONTEXT, THROUGH_MOUNT).blob
    clock.now += 60
    engine.decrypt(ALICE, blob, CONTEXT, replace(THROUGH_MOUNT, path="/finance/plan"))
    clock.now += 60
    with pytest.raises(AccessDenied):
        engine.decrypt(BOB, blob, CONTEXT)
    clock.now += 60
    engine.create_key(OWNER)
    return key


def test_questions(engine: Engine, key: str, clock: Clock) -> None:
    arn = engine.describe_key(OWNER, key).arn
    assert names(ask(engine, event_name="Decrypt")) == ["Decrypt", "Decrypt"]
    assert names(ask(engine, user_name="alice")) == ["GenerateDataKey", "Decrypt"]
    assert names(ask(engine, error_code="AccessDeniedException")) == ["Decrypt"]
    assert names(ask(engine, event_name="Decrypt", error_code="")) == ["Decrypt"]
    assert names(ask(engine, key=arn)) == ["CreateKey", "GenerateDataKey", "Decrypt", "Decrypt", "DescribeKey"]
    assert names(ask(engine, path="/finance/*")) == ["GenerateDataKey", "Decrypt"]
    assert names(ask(engine, path="/finance/plan")) == ["Decrypt"]
    start = clock.now - 180
    assert names(ask(engine, start=start, end=start + 120)) == ["GenerateDataKey", "Decrypt"]
    assert names(ask(engine, newest=True, limit=1, user_name="alice")) == ["Decrypt"]
    assert names(ask(engine, newest=True, limit=2, key=arn)) == ["Decrypt", "DescribeKey"]


def test_several_chains_are_one_story(home: Path, engine: Engine, key: str, clock: Clock) -> None:
    with open_kms(home, clock=clock) as second:
        for number in range(6):
            clock.now += 1
            (engine, second)[number % 2].create_key(OWNER, description=str(number))
    oldest = ask(engine, event_name="CreateKey")
    assert len({path.name for path in (home / "audit").iterdir()}) == 2
    told = [one["requestParameters"]["description"] for one in oldest]  # type: ignore[index]
    assert told == ["", "", *"012345"]
    newest = ask(engine, event_name="CreateKey", newest=True, limit=3)
    assert [one["requestParameters"]["description"] for one in newest] == ["3", "4", "5"]  # type: ignore[index]


def test_pages_and_what_comes_later(home: Path, engine: Engine, key: str) -> None:
    macs = partial(chain_mac, engine._root_key, engine.store_id)
    whole = audit_records(home)
    found: list[dict[str, object]] = []
    marker, more = None, True
    while more:
        records, marker, more = query(home / "audit", macs, Question(), limit=2, marker=marker)
        found += records
    assert found == whole
    assert query(home / "audit", macs, Question(), limit=2, marker=marker)[0] == []
    _, tail, _ = query(home / "audit", macs, Question(), limit=1, newest=True)
    assert tail == marker
    engine.create_key(OWNER)
    with open_kms(home) as other:
        other.list_keys(OWNER)
    later = query(home / "audit", macs, Question(), limit=9, marker=marker)[0]
    assert sorted(str(one["eventName"]) for one in later) == ["CreateKey", "ListKeys"]
    for bad in ("", "AAAA", "e30x", marker[:-4] if marker else ""):
        with pytest.raises(InvalidMarker):
            query(home / "audit", macs, Question(), limit=2, marker=bad)


def test_a_stranger_s_file_tells_nothing(home: Path, engine: Engine, key: str) -> None:
    (path,) = (home / "audit").iterdir()
    (home / "audit" / ("00" * 16 + ".jsonl")).write_bytes(path.read_bytes())
    (home / "audit" / "notes.jsonl").write_text('{"eventTime":"2030"}\n')
    assert len(ask(engine)) == 5


def test_the_last_use_of_a_key(home: Path, engine: Engine, key: str, clock: Clock) -> None:
    told = engine.get_key_last_usage(OWNER, key)
    used = next(
        one for one in reversed(audit_records(home)) if one["eventName"] == "Decrypt" and "errorCode" not in one
    )
    assert told.usage is not None
    assert (told.usage.operation, told.usage.timestamp) == ("Decrypt", int(clock.now) - 120)
    assert (told.usage.event_id, told.usage.request_id) == (used["eventID"], used["requestID"])
    assert told.tracking_start == told.created == int(clock.now) - 240
    unused = engine.create_key(OWNER).key_id
    engine.tag_resource(OWNER, unused, {"a": "b"})
    assert engine.get_key_last_usage(OWNER, unused).usage is None
    with pytest.raises(AccessDenied):
        engine.get_key_last_usage(ALICE, key)


def test_the_last_use_may_stand_in_any_chain(home: Path, engine: Engine, key: str, clock: Clock) -> None:
    blob = engine.generate_data_key(ALICE, key, CONTEXT).blob
    with open_kms(home, clock=clock) as second, open_kms(home, clock=clock) as third:
        third.list_keys(OWNER)
        for who in (second, third, engine, second, third):
            clock.now += 5
            who.decrypt(ALICE, blob, CONTEXT)
            usage = third.get_key_last_usage(OWNER, key).usage
            assert usage is not None
            assert usage.timestamp == int(clock.now)
        clock.now += 5
        other = engine.create_key(OWNER)
        engine.re_encrypt(OWNER, engine.encrypt(OWNER, key, b"x", {}).blob, other.key_id,
                          source_context={}, destination_context={})  # fmt: skip
        for one in (key, other.key_id):
            usage = third.get_key_last_usage(OWNER, one).usage
            assert usage is not None
            assert usage.operation == "ReEncrypt"


def test_a_dry_run_and_a_forged_record_are_no_use(home: Path, engine: Engine, key: str, clock: Clock) -> None:
    before = engine.get_key_last_usage(OWNER, key)
    with pytest.raises(DryRunOperation):
        engine.generate_data_key(ALICE, key, CONTEXT, RequestFacts(dry_run=True))
    (path,) = (home / "audit").iterdir()
    lines = path.read_bytes().splitlines(keepends=True)
    with path.open("ab") as file:
        file.write(lines[2].replace(b"2023", b"2029"))
        file.write(lines[2])
    assert engine.get_key_last_usage(OWNER, key) == before


def test_a_trail_with_a_hole_does_not_say_that_a_key_is_unused(home: Path, engine: Engine, key: str) -> None:
    engine.close()
    (path,) = (home / "audit").iterdir()
    os.truncate(path, path.stat().st_size - 700)
    with open_kms(home) as later:
        with pytest.raises(IntegrityError, match="cut off"):
            later.get_key_last_usage(OWNER, key)
        path.unlink()
        with pytest.raises(IntegrityError, match="missing"):
            later.get_key_last_usage(OWNER, key)


def test_records_say_which_program_and_from_where(home: Path, engine: Engine, key: str) -> None:
    me = replace(OWNER, pid=os.getpid())
    engine.list_keys(me, facts=RequestFacts(source_ip="192.0.2.7", user_agent='Boto3/1 "x"'))
    engine.list_keys(replace(OWNER, pid=0))
    engine.list_keys(replace(OWNER, pid=2**22 + 1))  # beyond the greatest pid
    first, *others = audit_records(home)[-3:]
    assert first["envfs"]["executable"] == os.readlink("/proc/self/exe")
    assert (first["sourceIPAddress"], first["userAgent"]) == ("192.0.2.7", 'Boto3/1 "x"')
    for other in others:
        assert not {"sourceIPAddress", "userAgent"} & other.keys()
        assert "executable" not in other["envfs"]
    assert json.dumps(first)
