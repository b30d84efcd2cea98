from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

PROGRAM = """\
import ctypes, json, os, resource, sys
from envfs.service.hardening import protect_process  # before the user changes, who may not see this interpreter
if {uid}:
    os.setgroups([])
    os.setresgid({uid}, {uid}, {uid})
    os.setresuid({uid}, {uid}, {uid})
resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
protection = protect_process()
again = protect_process()
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps(dict(
    undumpable=protection.undumpable, locked=protection.memory_locked, descriptors=protection.descriptors,
    dumpable=ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), core=resource.getrlimit(resource.RLIMIT_CORE),
    files=resource.getrlimit(resource.RLIMIT_NOFILE), resident=int(status["VmRSS"].split()[0]),
    locked_kib=int(status["VmLck"].split()[0]), idempotent=again == protection,
    fdinfo=open("/proc/self/fdinfo/0").read(), mounts=len(open("/proc/self/mountinfo").read()),
)))
"""


def protected(uid: int = 0) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(uid=uid)], capture_output=True, text=True, timeout=60, check=True
    )
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def test_no_dumps_and_all_descriptors() -> None:
    report = protected()
    assert report["undumpable"] is True
    assert report["dumpable"] == 0
    assert report["core"] == [0, 0]
    assert report["files"][0] == report["files"][1] == report["descriptors"]
    assert report["idempotent"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs the right to lock memory")
def test_root_locks_its_memory_without_growing_to_all_that_is_mapped() -> None:
    report = protected()
    assert report["locked"] is True
    assert report["locked_kib"] > 0
    assert report["resident"] < 200_000


@pytest.mark.users
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become an ordinary user")
def test_an_ordinary_user_is_protected_and_still_reads_what_the_control_socket_needs() -> None:
    report = protected(uid=65534)
    assert report["dumpable"] == 0
    assert report["locked"] is False
    assert "mnt_id:" in report["fdinfo"]
    assert report["mounts"] > 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has something to give up")
def test_root_heeds_quotas_in_every_thread() -> None:
    program = """\
import threading
from envfs.service.hardening import give_up_capability, heed_quotas
def look():
    status = dict(line.split(":", 1) for line in open("/proc/thread-self/status"))
    found.append([int(status[name], 16) for name in ("CapEff", "CapPrm")])
found = []
look()
assert heed_quotas() and heed_quotas()
assert give_up_capability(1)  # CAP_DAC_OVERRIDE, for where root lacks the other from the beginning
thread = threading.Thread(target=look)
thread.start()
thread.join()
look()
print(found)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    before, *after = json.loads(done.stdout)
    assert before[0] & 1 << 1
    assert after == [[capabilities & ~(1 << 24 | 1 << 1) for capabilities in before]] * 2
