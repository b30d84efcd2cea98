"""Processes that work with a KMS at the same time as others. Each says on stdout what it has done, when it is done."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from envfs.errors import EnvfsError
from envfs.kms.engine import Engine
from envfs.kms.rootkey import KEY_FILE_NAME, KeyFileUnlock
from tests.unit.kms.kit import ALICE, BOB, CONTEXT, OWNER, People, every, users_policy


def say(*words: object) -> None:
    print(*words, flush=True)


def change(engine: Engine, name: str) -> None:
    """Changes and uses keys for ever."""
    number = 0
    while True:
        number += 1
        key = engine.create_key(OWNER, description=f"{name} {number}", policy=users_policy(ALICE)).key_id
        say("created", key)
        engine.create_alias(OWNER, f"alias/{name}-{number}", key)
        say("alias", key, f"alias/{name}-{number}")
        data_key = engine.generate_data_key(ALICE, key, CONTEXT)
        say("generated", key, data_key.blob.hex())
        engine.put_key_policy(OWNER, key, users_policy(BOB))
        say("policy", key)
        if engine.decrypt(BOB, data_key.blob, CONTEXT) != data_key.plaintext:
            say("wrong", key)
        engine.disable_key(OWNER, key)
        say("disabled", key)


def answer(engine: Engine, blob: str) -> None:
    """Decrypts the blob as alice whenever a line comes in, and says what happened."""
    say("ready")
    for _ in sys.stdin:
        try:
            engine.decrypt(ALICE, bytes.fromhex(blob), CONTEXT)
            say("allowed")
        except EnvfsError as error:
            say(type(error).__name__)


def verify(engine: Engine) -> None:
    """Reads everything for ever: what it lists is what the digests say, and so is the rest of the database."""
    while True:
        aliases = {alias.target_key_id for alias in every(engine.list_aliases, OWNER)}
        keys = {key.key_id for key in every(engine.list_keys, OWNER)}
        problems = engine._store.verify_all()
        say("authentic" if aliases <= keys and not problems else f"wrong {problems}")


def main() -> None:
    command, home, *arguments = sys.argv[1:]
    path = Path(home)
    with Engine.open(path, KeyFileUnlock(path / KEY_FILE_NAME), users=People()) as engine:
        commands: dict[str, Callable[..., None]] = {"change": change, "answer": answer, "verify": verify}
        commands[command](engine, *arguments)


if __name__ == "__main__":
    main()
