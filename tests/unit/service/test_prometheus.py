"""Prometheus's text format, by its specification."""

from __future__ import annotations

import re
from typing import Any

from envfs.fs.counters import MOST_USERS, OTHERS, Counters
from envfs.service.prometheus import exposition

SAMPLE = re.compile(r'[a-z_]+\{([a-z]+="(?:[^"\\\n]|\\[\\"n])*",?)+\} [0-9.]+')


def metrics(mountpoint: str) -> dict[str, Any]:
    counters = Counters()
    counters.operations["lookup"] += 3
    counters.failures[13] += 1
    counters.of(1000).read_bytes += 4096
    counted: Any = counters.values()
    return {
        "mountpoint": mountpoint,
        "uptime_seconds": 1.5,
        "operations": counted["operations"],
        "failures": {"EACCES": 1},
        "users": {"alice": counted["users"][1000]},
        "sizes": {"nodes": 1, "open_files": 2, "file_handles": 3, "directory_handles": 4, "requests": 5},
        "process": {"cpu_seconds": 0.25, "resident_bytes": 1 << 20},
    }


def test_every_line_is_a_sample_or_says_what_follows() -> None:
    text = exposition([metrics("/a"), metrics('/b "c"\\\n\udcff')])
    lines = text.splitlines()
    assert text.endswith("\n")
    seen: set[str] = set()
    for line in lines:
        if line.startswith("# TYPE "):
            name, kind = line.split()[2:]
            assert kind in {"counter", "gauge"}
            assert name not in seen, "each family once"
            assert (kind == "counter") == name.endswith("_total")
            seen.add(name)
        elif not line.startswith("# HELP "):
            assert SAMPLE.fullmatch(line), line
            assert line.partition("{")[0] in seen
    assert 'envfs_user_read_bytes_total{mountpoint="/a",user="alice"} 4096' in lines
    assert 'envfs_requests_total{mountpoint="/a",operation="lookup"} 3' in lines
    assert len([line for line in lines if line.startswith("envfs_uptime_seconds{")]) == 2


def test_no_mounts_are_no_metrics() -> None:
    assert exposition([]) == ""


def test_counting_stays_bounded_whatever_uids_there_are() -> None:
    counters = Counters()
    for uid in range(MOST_USERS + 100):
        counters.of(uid).opens += 1
    assert len(counters.users) == MOST_USERS + 1
    assert counters.users[OTHERS].opens == 100


def test_requests_are_the_sum_of_all() -> None:
    counters = Counters()
    counters.operations["lookup"] += 2
    counters.of(0).reads += 3
    counters.of(1).writes += 4
    assert counters.requests == 9
