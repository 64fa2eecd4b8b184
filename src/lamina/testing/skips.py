# SPDX-License-Identifier: Apache-2.0
"""Skipped tests: why one may be, and the pytest plugin that fails a run which skips another.

With LAMINA_NO_SKIPS only a test that calls `host_lacks` may skip: what it needs is the host's kernel,
filesystem or processor, which no installation changes. A missing program, right, package or Python is
a failure then, wherever the skip is written.
"""

from __future__ import annotations

import os

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import NoReturn, TypeVar

    Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


class HostLacks(pytest.skip.Exception):  # type: ignore[name-defined, misc]  # an attribute
    """This host cannot do what is tested, whatever is installed."""


def host_lacks(what: str) -> NoReturn:
    """Skip the test that calls this."""
    raise HostLacks(f"this host lacks {what}", _use_item_location=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    call: pytest.CallInfo[None],
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _judged((yield), call)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _judged((yield), None)


def _judged(report: Report, call: pytest.CallInfo[None] | None) -> Report:
    if not report.skipped or hasattr(report, "wasxfail") or not os.environ.get("LAMINA_NO_SKIPS"):
        return report
    if call is None or call.excinfo is None or not isinstance(call.excinfo.value, HostLacks):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"this run must not skip: {reason}"
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped:
        terminalreporter.write_line(f"{len(skipped)} skipped:")
        for report in skipped:
            terminalreporter.write_line(f"  {report.nodeid}: {report.longrepr[2]}")
