"""`envfs kms serve` at both ends: as the KMS that holds a key, and as the one whose key is held elsewhere."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from envfs.access.resolver import Resolver
from envfs.kms.engine import Engine
from envfs.kms.foreign.configuration import ForeignKey
from envfs.kms.model import ORIGIN_FOREIGN
from envfs.kms.rootkey import KEY_FILE_NAME, KeyFileUnlock
from tests.foreign.faulty_kms import ALIAS, REGION, FaultyKms
from tests.integration.api.kms_server import REGION as LOCAL
from tests.integration.api.kms_server import public_directory, running_server

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.integration.foreign.conftest import WithCredentials
    from tests.integration.mounts import Mount


def test_a_volume_moves_to_a_key_of_another_envfs_and_back(
    keyed: WithCredentials, aws: dict[str, str], cloud: Callable[..., Mount]
) -> None:
    with public_directory() as directory, running_server(directory) as server:
        aws |= {"AWS_ACCESS_KEY_ID": server.owner.access_key_id, "AWS_SECRET_ACCESS_KEY": server.owner.secret}
        kms = server.client()
        there = kms.create_key()["KeyMetadata"]["Arn"]
        mount = cloud(server.url, there, LOCAL)
        file = mount.path / "file"
        file.write_text("held by another envfs")
        keyed("key", "create", "--alias", "local")
        kms.disable_key(KeyId=there)
        with pytest.raises(OSError, match="Required key not available"):
            file.read_text()
        kms.enable_key(KeyId=there)
        keyed("rewrap", mount.path, "--to", "alias/local")
        kms.disable_key(KeyId=there)
        mount.remount()
        assert file.read_text() == "held by another envfs"
        kms.enable_key(KeyId=there)
        keyed("rewrap", mount.path, "--to", "alias/cloud")
        mount.remount()
        assert file.read_text() == "held by another envfs"
        mount.umount()


def test_a_server_whose_key_is_held_elsewhere_serves_others_meanwhile(
    foreign: FaultyKms, aws: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in aws.items():
        monkeypatch.setenv(name, value)
    with public_directory() as directory, running_server(directory) as server:
        key = make_key(server.home, foreign)
        kms, other = server.client(), server.client()
        sealed = kms.encrypt(KeyId=key, Plaintext=b"secret", EncryptionContext={"a": "b"})["CiphertextBlob"]
        asked = {"CiphertextBlob": sealed, "EncryptionContext": {"a": "b"}}
        assert kms.decrypt(**asked)["Plaintext"] == b"secret"
        shown = kms.describe_key(KeyId=key)["KeyMetadata"]
        assert (shown["Origin"], shown["KeyState"]) == ("EXTERNAL_KEY_STORE", "Enabled")
        foreign.fault = "slow"
        before = len(foreign.requests)
        found: list[bytes] = []
        waiting = threading.Thread(target=lambda: found.append(kms.decrypt(**asked)["Plaintext"]))
        waiting.start()
        while len(foreign.requests) == before:
            assert waiting.is_alive()
        for _ in range(5):
            assert other.list_keys()["Keys"]
            assert other.generate_random(NumberOfBytes=8)["Plaintext"]
        assert waiting.is_alive(), "nobody was served before the other one had its answer"
        waiting.join(30)
        assert found == [b"secret"]


def make_key(home: Path, foreign: FaultyKms) -> str:
    with Engine.open(home, KeyFileUnlock(home / KEY_FILE_NAME)) as engine:
        owner = Resolver(engine).resolve(os.getuid(), os.getgid(), os.getpid())
        place = ForeignKey(ALIAS, REGION, foreign.url)
        return engine.create_key(owner, origin=ORIGIN_FOREIGN, foreign=place).arn
