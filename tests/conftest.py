"""In CI nothing may be skipped that could run: for want of a package, of root or of /dev/fuse the run fails there.

A reason that begins with NOT_HERE says that the machine cannot do it at all: its kernel lacks the filesystem, say.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

NOT_HERE = "not on this machine: "
IN_CI = os.environ.get("CI") == "true"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
    call: pytest.CallInfo[None],
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report: pytest.TestReport = yield
    if IN_CI and report.skipped and call.excinfo is not None and not hasattr(report, "wasxfail"):
        reason = str(call.excinfo.value)
        if NOT_HERE not in reason:
            report.outcome = "failed"
            report.longrepr = f"skipped in CI, where it must run: {reason}"
    return report
