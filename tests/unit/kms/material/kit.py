"""Keys to test with, made once (RSA takes its time), and the `openssl` command, which computes on its own."""

from __future__ import annotations

import functools
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from envfs.crypto.secret import Secret
from envfs.kms.material.generate import Material, PrivateKey, PublicKey, generate
from envfs.kms.material.keys import load_private_key, load_public_key

if TYPE_CHECKING:
    from pathlib import Path

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl command")


@functools.cache
def material_bytes(spec: str) -> tuple[bytes, bytes]:
    made = generate(spec)
    return bytes(made.private.expose()), made.public_key


def material(spec: str) -> Material:
    private, public = material_bytes(spec)
    return Material(Secret(private), public)


def private_key(spec: str) -> PrivateKey:
    return load_private_key(spec, material(spec).private, trusted=True)


def public_key(spec: str) -> PublicKey:
    return load_public_key(spec, material(spec).public_key)


def openssl(directory: Path, *arguments: str, **files: bytes) -> bytes:
    """What `openssl` prints. `files` are written before; {name} in an argument is the path of one."""
    paths = {}
    for name, content in files.items():
        paths[name] = directory / name
        paths[name].write_bytes(content)
    command = ["openssl", *(argument.format(**paths) for argument in arguments)]
    return subprocess.run(command, check=True, capture_output=True, timeout=60).stdout
