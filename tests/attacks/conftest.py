"""The count that the attacks end with."""

from __future__ import annotations

from collections.abc import Callable

import pytest

_PROPERTY = "attack"


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Notes of an attack that it was "tried", and "refused"; with the test's report, from whichever process."""
    return lambda how: request.node.user_properties.append((_PROPERTY, how))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    noted = [
        how
        for reports in terminalreporter.stats.values()
        for report in reports
        if isinstance(report, pytest.TestReport) and report.when == "call"
        for name, how in report.user_properties
        if name == _PROPERTY
    ]
    if noted:
        terminalreporter.write_line(f"attacks: {noted.count('tried')} tried, {noted.count('refused')} refused")
