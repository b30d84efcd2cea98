#!/usr/bin/env python3
"""Writes the test vectors beside this file; with --check, says whether those that are there are what would be written.

Everything is fixed: keys and ids are hashes of labels, nonces are handed in. What a decoder must give is written down
from what was encoded, and how it must fail from what was broken: no decoder takes part.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.vectors import (
    backup_cases,
    crypto_cases,
    file_cases,
    header_cases,
    journal_cases,
    kms_cases,
    metadata_cases,
    name_cases,
    store_cases,
)
from tests.vectors.material import VectorFile

HERE = Path(__file__).resolve().parent
MODULES = (
    crypto_cases, header_cases, file_cases, metadata_cases, journal_cases, name_cases, kms_cases, store_cases,
    backup_cases,
)  # fmt: skip


def all_files() -> list[VectorFile]:
    return [file for module in MODULES for file in module.vector_files()]


def render(file: VectorFile) -> str:
    names = [case["name"] for case in file.cases]
    if len(set(names)) != len(names):
        raise ValueError(f"{file.name}: two cases have one name")
    content = {"format": 1, "section": file.section, "says": file.says, "cases": file.cases}
    return json.dumps(content, indent=1, ensure_ascii=True) + "\n"


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--check"]):
        print("usage: generate.py [--check]", file=sys.stderr)
        return 2
    wanted = {f"{file.name}.json": render(file) for file in all_files()}
    if not arguments:
        for name, text in wanted.items():
            (HERE / name).write_text(text)
        return 0
    present = {path.name: path.read_text() for path in HERE.glob("*.json")}
    stale = sorted(name for name in wanted.keys() | present.keys() if wanted.get(name) != present.get(name))
    for name in stale:
        print(f"{name}: not what generate.py writes", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
