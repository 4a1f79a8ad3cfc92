"""Lines that say what they are about."""

from __future__ import annotations

import json
import logging

import pytest

from skerry import logs

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("_restored")]


@pytest.fixture
def _restored():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def lines(capsys) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_json(capsys) -> None:
    logs.set_up("info", "json")
    log = logging.getLogger("some.logger")
    with logs.bound(run=5):
        log.info("claimed by %s", "node 3", extra=logs.about(task=7))
        try:
            int("broken")
        except ValueError:
            log.exception("it\nfailed")
    log.debug("not shown")
    log.info("later")
    first, second, third = map(json.loads, lines(capsys))
    assert (first["level"], first["logger"], first["message"]) == ("info", "some.logger", "claimed by node 3")
    assert (first["run"], first["task"], second["run"]) == (5, 7, 5)
    assert "ValueError: invalid literal" in second["traceback"]
    assert "run" not in third


def test_text_adds_what_the_line_does_not_say(capsys) -> None:
    logs.set_up("info", "text")
    log = logging.getLogger("some.logger")
    with logs.bound(run=5):
        log.info("run 5 goes on")
        log.info("it goes on")
    first, second = lines(capsys)
    assert first.endswith("run 5 goes on")
    assert second.endswith("it goes on [run=5]")
