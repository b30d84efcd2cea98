"""The command line of envfs with a daemon that keeps no undo record: what keeping it costs shows in the difference."""

from __future__ import annotations

from envfs.cli.main import main
from envfs.format.undo import UndoHead
from envfs.fs.undo import Undo


def _keep_nothing(_self: Undo, _head: UndoHead, _old: bytes) -> None:
    pass


if __name__ == "__main__":
    Undo.begin = _keep_nothing  # type: ignore[method-assign, assignment]
    main()
