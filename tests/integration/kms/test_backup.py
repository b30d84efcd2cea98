"""A backup that is taken while mounts and commands write, and what is read with it on another host."""

from __future__ import annotations

import os
import shutil
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.integration.command import Envfs
    from tests.integration.mounts import Mount


def test_a_volume_is_read_with_a_backup_that_was_taken_under_load(
    envfs: Envfs, kms_home: Path, lower: Path, mounted: Callable[..., Mount], directory: Callable[..., Path]
) -> None:
    safe = directory("safe", mode=0o700)
    envfs("kms", "init", "--recovery-key-file", safe / "recovery")
    envfs("init", lower)
    mount = mounted("noxattr", lower=lower)
    envfs("key", "create", "--alias", "payroll", "--description", "x")
    envfs("dir", "set-key", mount.path, "alias/payroll")
    stop = threading.Event()
    written: dict[str, bytes] = {}

    def write() -> None:
        while not stop.is_set():
            name = f"file {len(written)}"
            content = os.urandom(5000)
            (mount.path / name).write_bytes(content)
            written[name] = content

    writer = threading.Thread(target=write)
    writer.start()
    try:
        while len(written) < 50:
            stop.wait(0.01)
        for number in range(2):
            envfs("kms", "backup", safe / f"kms.backup.{number}")
            envfs("key", "rotate", "alias/payroll") if number == 0 else None
    finally:
        stop.set()
        writer.join(60)
    assert not writer.is_alive()
    mount.umount()
    copy = directory("copy")
    shutil.copytree(lower, copy, dirs_exist_ok=True, copy_function=shutil.copy2)
    shutil.rmtree(lower)
    kms_home.rename(kms_home.with_name("lost"))

    restored = kms_home.with_name("restored")
    envfs("kms", "restore", safe / "kms.backup.1", "--passphrase-file", safe / "recovery", home=restored)
    verified = envfs("kms", "verify", "--passphrase-file", safe / "recovery", home=restored)
    assert "are authentic" in verified.stdout
    again = mounted("ro", f"passphrase_file={safe / 'recovery'}", lower=copy, home=restored)
    assert {path.name: path.read_bytes() for path in again.path.iterdir()} == written
    events = envfs("audit", "query", "--event", "RestoreKms", "--passphrase-file", safe / "recovery", home=restored)
    assert "RestoreKms" in events.stdout
