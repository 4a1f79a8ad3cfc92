"""The count that the attacks end with."""

from __future__ import annotations

from dataclasses import dataclass

import pytest


@dataclass
class Record:
    tried: int = 0
    refused: int = 0


_RECORD = Record()


@pytest.fixture
def record() -> Record:
    return _RECORD


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _RECORD.tried:
        terminalreporter.write_line(f"attacks: {_RECORD.tried} tried, {_RECORD.refused} refused")
