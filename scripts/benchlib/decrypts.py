"""What a Decrypt of a 32-byte data key costs, policy decision and audit record included.

In process: the engine's own call, as a mount makes it, for a user who is not the KMS's owner. Over the Unix socket: one
connection to a server in a process of its own. Each with an empty store but for the key, and then with many keys and
grants in it.
"""

from __future__ import annotations

import argparse
import base64
import functools
import json
import os
import pwd
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from time import perf_counter_ns
from typing import Any

import trio

from envfs.access.resolver import Resolver
from envfs.api.client import SocketClient
from envfs.format.context import encode_context
from envfs.kms.bootstrap import init_kms
from envfs.kms.engine import DATABASE, Engine, read_slots
from envfs.kms.keyring import Keyring
from envfs.kms.migrations import open_sealed
from envfs.kms.model import (
    ENCRYPT_DECRYPT,
    ORIGIN_KMS,
    SYMMETRIC_DEFAULT,
    GrantConstraints,
    KeyManager,
    KeyState,
    Principal,
)
from envfs.kms.rootkey import KEY_FILE_NAME, KeyFileUnlock, open_slots
from envfs.kms.schema import BACKING_KEYS, GRANTS, KEYS, STORE, GrantRow, KeyRow
from envfs.kms.sqlite_store import SqliteStore
from envfs.service.kms_server import listening, open_server

OWNER_UID = 54321  # nobody of this host: what is measured is a user's call, not the owner's
CONTEXT: Mapping[str, str] = {"envfs:volume": "00" * 16, "envfs:file": "11" * 16, "department": "d49"}
GRANTS_OF_A_KEY = 50
STATEMENTS = 20
BATCH = 1_000  # rows in a transaction

# case → the least a second
TARGETS = {"1 statement": 20_000, "20 statements, 50 grants": 10_000, "over the socket": 1_500}
LARGEST_CHANGE = 0.2  # by a full store


@dataclass(frozen=True, slots=True)
class Users:
    """This process's user, and the owner."""

    name: str = pwd.getpwuid(os.getuid()).pw_name

    def uid_of(self, name: str) -> int | None:
        return {self.name: os.getuid(), "owner": OWNER_UID}.get(name)


@dataclass(frozen=True, slots=True)
class Case:
    """A key and a blob under it."""

    name: str
    blob: bytes


def open_engine(home: Path) -> Engine:
    return Engine.open(home, KeyFileUnlock(home / KEY_FILE_NAME), users=Users())


def owner(engine: Engine) -> Principal:
    return Principal(OWNER_UID, OWNER_UID, 1, "owner", engine.account.user_arn("owner"), frozenset(), True)


def make_cases(engine: Engine) -> list[Case]:
    """The keys, whose policies name this process's user."""
    me = engine.account.user_arn(Users().name)
    use = {"Effect": "Allow", "Principal": {"AWS": me}, "Action": "kms:Decrypt", "Resource": "*"}
    all_may = {"Effect": "Allow", "Principal": {"AWS": [me, owner(engine).arn]}, "Action": "kms:*", "Resource": "*"}
    others = [
        {
            **use,
            "Sid": f"Department{number}",
            "Condition": {"StringEquals": {"kms:EncryptionContext:department": f"x{number}"}},
        }
        for number in range(STATEMENTS - 2)
    ]
    administer = {**use, "Principal": {"AWS": engine.account.root_arn}, "Action": "kms:*"}
    return [
        _case(engine, "1 statement", [all_may], grants=0),
        _case(engine, "20 statements, 50 grants", [administer, *others, use], grants=GRANTS_OF_A_KEY),
        _case(engine, "20 statements, allowed by one of 50 grants", [administer, *others], grants=GRANTS_OF_A_KEY),
    ]


def _case(engine: Engine, name: str, statements: list[Any], *, grants: int) -> Case:
    policy = json.dumps({"Version": "2012-10-17", "Statement": statements})
    key = engine.create_key(owner(engine), policy=policy).key_id
    me = engine.account.user_arn(Users().name)
    for number in range(grants):
        constraints = GrantConstraints(subset={"department": f"d{number}"})
        engine.create_grant(owner(engine), key, me, ["Decrypt"], constraints=constraints)
    data_key = engine.generate_data_key(owner(engine), key, CONTEXT)
    data_key.plaintext.wipe()
    return Case(name, data_key.blob)


def fill(home: Path, keys: int, grants: int) -> None:
    """Puts keys and grants on them into the store, some thousand at a time."""
    database = SqliteStore.open(home / DATABASE)
    store_id, slots = read_slots(database)
    root_key, _ = open_slots(slots, store_id, KeyFileUnlock(home / KEY_FILE_NAME))
    store, keyring = open_sealed(database, root_key, store_id), Keyring(root_key, store_id)
    account = store.get(STORE, 1)
    assert account is not None
    policy = json.dumps({"Version": "2012-10-17", "Statement": []})
    ids = [uuid.uuid4().bytes for _ in range(keys)]
    now = int(time.time())
    for start in range(0, keys, BATCH):
        with store.transaction() as transaction:
            for key_id in ids[start : start + BATCH]:
                backing = keyring.new_backing_key(key_id, 1, SYMMETRIC_DEFAULT, now)
                row = KeyRow(key_id, KeyManager.CUSTOMER.value, SYMMETRIC_DEFAULT, ENCRYPT_DECRYPT, ORIGIN_KMS,
                             KeyState.ENABLED.value, "", now, backing.backing_key_id, policy)  # fmt: skip
                transaction.put(BACKING_KEYS, backing)
                transaction.put(KEYS, row)
    constraint = "EncryptionContextEquals"
    me, context = f"arn:{account.partition}:iam::{account.account}:user/{Users().name}", encode_context({"a": "b"})
    for start in range(0, grants, BATCH):
        with store.transaction() as transaction:
            for number in range(start, min(start + BATCH, grants)):
                grant_id, key_id = os.urandom(32).hex(), ids[number % keys]
                grant = GrantRow(grant_id, key_id, "", me, "", account.account, "Decrypt", constraint, context, now)
                transaction.put(GRANTS, grant)
    keyring.wipe()
    database.close()


def time_calls(call: Callable[[], object], count: int) -> list[int]:
    """Nanoseconds of each call, after some that do not count."""
    for _ in range(count // 10):
        call()
    times = []
    for _ in range(count):
        start = perf_counter_ns()
        call()
        times.append(perf_counter_ns() - start)
    return times


def in_process(home: Path, cases: list[Case], count: int) -> dict[str, list[int]]:
    with open_engine(home) as engine:
        me = Resolver(engine).resolve(os.getuid(), os.getgid(), os.getpid())

        def decrypt(blob: bytes) -> None:
            engine.decrypt(me, blob, CONTEXT).wipe()

        return {case.name: time_calls(functools.partial(decrypt, case.blob), count) for case in cases}


def over_socket(home: Path, case: Case, count: int) -> list[int]:
    request = {"CiphertextBlob": base64.b64encode(case.blob).decode(), "EncryptionContext": dict(CONTEXT)}
    with running_server(home) as socket, SocketClient(socket) as client:
        return time_calls(lambda: client.call("TrentService.Decrypt", request), count)


@contextmanager
def running_server(home: Path) -> Iterator[Path]:
    """A server of the KMS in a process of its own."""
    path = home / "bench.sock"
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            trio.run(_serve, home, path, write_end)
        finally:
            os._exit(0)
    os.close(write_end)
    try:
        os.read(read_end, 1)  # until it listens, or has failed
        yield path
    finally:
        os.close(read_end)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        path.unlink(missing_ok=True)


async def _serve(home: Path, path: Path, ready: int) -> None:
    with open_engine(home) as engine, open_server(engine) as server, listening(path, everybody=False) as listener:
        os.write(ready, b"\n")
        await server.serve_unix(listener, Resolver(engine))


def summary(times: list[int]) -> dict[str, float]:
    """Median and 99th percentile in µs, and calls a second at the mean."""
    parts = quantiles(times, n=100)
    return {"p50": parts[49] / 1000, "p99": parts[98] / 1000, "per_second": 1e9 * len(times) / sum(times)}


def measure(directory: Path, arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Rounds with an empty store and a full one in turn, so that noise of the machine meets both."""
    times: dict[str, list[int]] = {}
    with tempfile.TemporaryDirectory(prefix="envfs-bench-", dir=directory) as name:
        stores: dict[str, tuple[Path, list[Case]]] = {}
        for suffix in ("", f", {arguments.keys:,} keys and {arguments.grants:,} grants in the store"):
            home = Path(name) / f"kms{len(stores)}"
            init_kms(home, owner_uid=OWNER_UID)
            if suffix:
                fill(home, arguments.keys, arguments.grants)
            with open_engine(home) as engine:
                stores[suffix] = home, make_cases(engine)
        for _ in range(arguments.rounds):
            for suffix, (home, cases) in stores.items():
                for case, found in in_process(home, cases, arguments.calls).items():
                    times.setdefault(case + suffix, []).extend(found)
                times.setdefault(f"over the socket{suffix}", []).extend(over_socket(home, cases[0], arguments.calls))
    return {case: summary(found) for case, found in times.items()}


def print_table(found: dict[str, dict[str, float]]) -> None:
    print("| Decrypt | p50, µs | p99, µs | a second | target |", "| --- | --- | --- | --- | --- |", sep="\n")
    for name, values in found.items():
        base = next((found[case] for case in found if name.startswith(case) and "store" in name and case != name), None)
        if name in TARGETS:
            met = values["per_second"] >= TARGETS[name]
            target = f"{TARGETS[name]:,}: {'met' if met else 'MISSED'}"
        elif base is not None:
            change = values["p50"] / base["p50"] - 1
            target = f"change {change:+.0%} (< {LARGEST_CHANGE:.0%}: {'met' if change < LARGEST_CHANGE else 'MISSED'})"
        else:
            target = ""
        print(f"| {name} | {values['p50']:.0f} | {values['p99']:.0f} | {values['per_second']:,.0f} | {target} |")


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench-kms", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--calls", type=int, default=5000, help="in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keys", type=int, default=10_000, help="in the full store")
    parser.add_argument("--grants", type=int, default=50_000, help="in the full store")
    parser.add_argument("--directory", type=Path, default=Path("/dev/shm"), help="for the KMS")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = measure(arguments.directory, arguments)
    if arguments.json:
        json.dump(found, sys.stdout, indent=1)
        print()
    else:
        print_table(found)


if __name__ == "__main__":
    main()
