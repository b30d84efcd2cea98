"""In CI nothing may be skipped: a test that needs a mount or Unix users runs there, or the run fails (scripts/test)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

IN_CI = os.environ.get("CI") == "true"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report: pytest.TestReport = yield
    needs_machine = any(item.get_closest_marker(name) for name in ("mount", "users"))
    if IN_CI and report.skipped and needs_machine and call.excinfo is not None:
        report.outcome = "failed"
        report.longrepr = f"skipped in CI, where it must run: {call.excinfo.value}"
    return report
