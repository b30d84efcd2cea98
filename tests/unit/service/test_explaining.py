from __future__ import annotations

import json
from typing import Any

from envfs.access.unix_modes import EXECUTE, READ, Inode, Login
from envfs.service.explaining import _fitting, unix_link
from envfs.service.peer import MAX_LINE

BOB = Login("bob", 1002, frozenset({1002}))


def test_a_deep_path_is_told_with_what_is_in_the_way() -> None:
    inodes = [(Inode("/" + "d/" * depth, 0o755, 0, 0), EXECUTE) for depth in range(300)]
    inodes[7] = (Inode("/closed", 0o700, 0, 0), EXECUTE)
    link = unix_link([*inodes, (Inode("/end", 0o640, 0, 0), READ)], BOB, acls=False)
    assert not link["allowed"]
    assert [one["path"] for one in link["path"] if one["missing"]] == ["/closed", "/end"]
    assert len(link["path"]) < 100


def test_an_answer_fits_into_a_line_whatever_others_have_written() -> None:
    considered = [{"what": "\u202e" * 500, "unmet": ["é" * 500]} for _ in range(40)]
    links = [{"link": "kms", "considered": list(considered)} for _ in range(2)]
    answer: dict[str, Any] = {"allowed": False, "chain": [*links, {"link": "principal", "groups": ["g" * 90] * 200}]}
    assert len(json.dumps(answer)) > MAX_LINE
    fitting = _fitting(answer)
    assert len(json.dumps(fitting)) < MAX_LINE
    assert fitting["chain"][0]["considered"]
