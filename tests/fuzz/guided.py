"""Coverage-guided fuzzing of one parser, with atheris. For `scripts/fuzz`: `python -m tests.fuzz.guided NAME CORPUS …`

What comes behind the name is libFuzzer's: directories of inputs, and its options. An input that makes a parser do
anything but give a value that serialises back, or raise one of our errors, ends the run and is kept as `crash-*`.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

# Not among the test's requirements: it is large, and wanted by nobody else.
atheris: Any = importlib.import_module("atheris")

with atheris.instrument_imports(include=["envfs"]):
    from envfs.crypto.mac import mac
    from envfs.errors import EnvfsError
    from tests.fuzz.test_format_parsers import KEY, PARSERS, Parser


def _authentic(parser: Parser, raw: bytes) -> bytes:
    """With the MAC that its bytes need: what is behind that check is to be reached, too."""
    if parser.mac_from is None or len(raw) <= parser.mac_from + 32:
        return raw
    return raw[:-32] + mac(KEY, raw[parser.mac_from : -32])


def main() -> None:
    """Fuzzes until libFuzzer has had enough."""
    parser = PARSERS[sys.argv.pop(1)]

    def test_one_input(raw: bytes) -> None:
        try:
            again = parser.again(raw)
        except EnvfsError:
            return
        if again != raw:
            raise RuntimeError(f"{raw!r} is accepted, and serialises to {again!r}")

    def mutate(raw: bytes, most: int, seed: int) -> bytes:
        mutated = bytes(atheris.Mutate(raw, most))
        return _authentic(parser, mutated) if seed % 2 else mutated

    atheris.Setup(sys.argv, test_one_input, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
