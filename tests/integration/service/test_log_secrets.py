"""What a log holds at its most talkative level: reasons, and nothing that opens anything."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.integration.command import Envfs
    from tests.integration.mounts import Mount

PLAINTEXT = "the plaintext that nobody may log"


def test_at_the_debug_level_reasons_are_logged_and_no_secrets(
    mounted: Callable[..., Mount], envfs: Envfs, kms_home: Path
) -> None:
    mount = mounted("log=debug")
    file = mount.path / "file"
    file.write_text(PLAINTEXT)
    assert file.read_text() == PLAINTEXT
    (mount.path / "denied").mkdir()
    made = envfs("key", "create", "--alias", "nobody").stdout
    assert made
    envfs("dir", "set-key", mount.path / "denied", "alias/nobody")
    envfs("key", "disable", "alias/nobody")
    try:
        (mount.path / "denied/file").write_text(PLAINTEXT)
        raise AssertionError("a disabled key was used")
    except OSError:
        pass
    mount.umount()
    text = b"".join(path.read_bytes() for path in (kms_home / "log").iterdir())
    assert b" DEBUG envfs.fs: create: Disabled" in text
    root_key = (kms_home / "root.key").read_bytes()
    for secret in (root_key, root_key.hex().encode(), base64.b64encode(root_key).rstrip(b"="), PLAINTEXT.encode()):
        assert secret not in text
