"""Killing a process at every line of some code, one run for each line."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType
    from typing import Any


def killed_at_every_line(action: Callable[[], object], *modules: str, step: int = 1) -> Iterator[int]:
    """Runs `action` in children, of which the n-th kills itself (SIGKILL) at its n-th line of `modules`, until one gets
    through. Yields after each kill.
    """
    number = 1
    while _run(action, modules, number):
        yield number
        number += step


def _run(action: Callable[[], object], modules: tuple[str, ...], number: int) -> bool:
    """Whether the child was killed before it was through."""
    with warnings.catch_warnings():
        # The child runs `action` alone and ends: it takes no lock that another thread could have held at fork(2).
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        _child(action, modules, number)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.waitstatus_to_exitcode(status) == 0, "the action failed by itself"
    return False


def _child(action: Callable[[], object], modules: tuple[str, ...], number: int) -> None:
    """Never returns: the child must not run on into pytest."""
    left = number

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if frame.f_globals.get("__name__") not in modules:
            return None
        if event == "line":
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    try:
        sys.settrace(trace)
        action()
        sys.settrace(None)
    except BaseException:  # noqa: BLE001 - the parent asks for the exit status only
        os._exit(1)
    os._exit(0)
